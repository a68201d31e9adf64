"""Print the main scores of one point, with their 95 % intervals."""

import pandas as pd

MEANINGS = {
    "accuracy": "share of the target class according to the guiding classifier",
    "accuracy_judge": "share of the target class according to the judge",
    "cfd_judge": "Fréchet distance to the target class, in the judge's features",
}

scores = pd.read_csv("results/one_point/sportballs/scores/nonrobust_x0_ema0.99_scale_4.csv")
reported = scores[scores["seeds"] == "reported"].set_index("metric")
for metric, meaning in MEANINGS.items():
    row = reported.loc[metric]
    print(f"{meaning}: {row.value:.3g} [{row.low:.3g}, {row.high:.3g}]")
