"""Files of scores as `nrcg measure collect` writes them, from plain numbers."""

from pathlib import Path
from typing import Any

import pandas as pd

from nrcg.evaluation.uncertainty import wilson

COLUMNS = ["dataset", "setup", "repeat", "scale", "seeds", "metric", "value", "low", "high", "n", "n_diverged",
           "features"]  # fmt: skip


def rows_of(
    setup: str, scale: float | str, values: dict[str, Any], *, n: int = 256, lost: int = 0, half: float | None = 0.02,
    features: int | str = "", seeds: str = "reported", repeat: int = 1, dataset: str = "sportballs",
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for each metric of a point: shares with Wilson's interval, others with `half` of the value to either side.

    Without `half` there are no intervals, as of samples for choosing a scale; `features` belong to distances alone.
    """
    rows = []
    for metric, value in values.items():
        share = metric.startswith(("accuracy", "judge_share/"))
        low, high = "", ""
        if half is not None and metric != "unet_evaluations" and value != "":
            low, high = map(float, wilson(value, n)) if share else (value * (1 - half), value * (1 + half))
        of = "" if share or metric == "unet_evaluations" else features
        row = (dataset, setup, repeat, scale, seeds, metric, value, low, high, n, lost, of)
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows


def write_scores(path: Path, rows: list[dict[str, Any]]) -> Path:
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path, index=False)
    return path


def add_scores(path: Path, rows: list[dict[str, Any]]) -> None:
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path, mode="a", header=False, index=False)


def edit(path: Path, column: str, rows: Any, value: Any) -> None:
    """Write a value into a column of a CSV file, where `rows` of the table of strings holds."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[rows(table), column] = value
    table.to_csv(path, index=False)


EMA, LOGPROB = "nonrobust_x0_ema0.99", "nonrobust_x0_ema0.99_logprob"
EXAMPLE = [  # setup, scale, accuracy, accuracy by the judge, cfd_judge, diverged
    ("unconditional", "", 0.34, 0.33, 60.0, 0),
    (EMA, 3, 0.80, 0.78, 20.0, 0),
    (EMA, 15, 0.99, 0.97, 5.25, 0),
    (LOGPROB, 3, 0.90, 0.60, 25.0, 0),
    (LOGPROB, 15, 0.99, 0.70, 5.5, 0),
    ("nonrobust", 3, 0.30, 0.10, 900.0, 100),
]


def values_of(own: float, judge: float, distance: float) -> dict[str, float]:
    return {"accuracy": own, "accuracy_judge": judge, "judge_share/baseball": judge, "cfd_judge": distance}


def write_example(path: Path) -> Path:
    """The scores of EXAMPLE, by a judge of 64 features."""
    points = [rows_of(setup, scale, values_of(*values), lost=lost, features=64)
              for setup, scale, *values, lost in EXAMPLE]  # fmt: skip
    return write_scores(path, [row for point in points for row in point])
