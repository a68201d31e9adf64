"""Claims about guided and unguided samples, figures 5 to 9: what was measured, and whether it is seen."""

from functools import partial

import numpy as np
import pandas as pd

from nrcg.io.shards import Shard
from nrcg.plots.setups import metric_label
from nrcg.report import claims_forward  # noqa: F401  (its claims come first)
from nrcg.report.measurements import Absent, Evidence, claim, percent

REACHED = 0.95  # share of samples in the target class that counts as reached
GAP = 0.1  # by which the judge's share lies clearly lower
MUCH_SMALLER = 10  # ratio of scales
TURN = 1.1  # ratio of the distance at the largest scale to its minimum
NEAR_500 = (400, 600)
SHARES = (0.2, 0.5)  # of each class, by the judge, of unguided SportBalls
AWAY = 0.4  # image widths from the ball's centre at which the background begins
BACKGROUND = 0.97  # least mean brightness on [0, 1]


def _steering(role: str, evidence: Evidence) -> tuple[str, bool]:
    """The best point in words: nearest to the target class where the target share is reached, else of largest share."""
    rows, unguided = evidence.scales(role, "accuracy_judge", "cfd_judge"), evidence.unguided("cfd_judge")
    good = rows[(rows["accuracy_judge"] >= REACHED) & (rows["cfd_judge"] < unguided)]
    best = rows.loc[rows["accuracy_judge"].idxmax() if good.empty else good["cfd_judge"].idxmin()]
    try:
        share, free = evidence.scales(role, "accuracy").loc[best.name, "accuracy"], evidence.unguided_by(role)
        own = f"{percent(share)} by its own classifier (unguided {percent(free)})"
    except (Absent, KeyError):
        own = "not measured by its own classifier"
    text = f"at best {percent(best['accuracy_judge'])} {evidence.target} by the judge and FD {best['cfd_judge']:.4g} "
    text += f"(unguided {percent(evidence.unguided('accuracy_judge'))} and {unguided:.4g}) at s = {best.name:g}, "
    return f"{text}{own}; steers at {len(good)} of {len(rows)} scales; {_diverged(rows)}", not good.empty


def _reaches(role: str, evidence: Evidence) -> tuple[str, bool]:
    shares, unguided = evidence.scales(role, "accuracy")["accuracy"], evidence.unguided_by(role)
    best = shares.idxmax()
    text = f"at best {percent(shares[best])} {evidence.target} at s = {best:g} (unguided {percent(unguided)}); "
    return text + evidence.clean(role), shares[best] >= REACHED and shares[best] > unguided


def _diverged(rows: pd.DataFrame) -> str:
    worst = rows.loc[rows["n_diverged"].idxmax()]
    if worst["n_diverged"] == 0:
        return "no sample diverged"
    return f"up to {worst['n_diverged']:.0f} of {worst['n']:.0f} samples diverged (s = {worst.name:g})"


def _satisfied(role: str, metric: str, evidence: Evidence) -> tuple[pd.DataFrame, str]:
    """The points with accuracy and `metric` that satisfy the own classifier; in words, where there are none."""
    rows = evidence.scales(role, "accuracy", metric)
    never = f"its own classifier never reaches {percent(REACHED)} (at best {percent(rows['accuracy'].max())})"
    return rows[rows["accuracy"] >= REACHED], never


STEERED = f"≥ {percent(REACHED)} by the judge with FD (judge) to the target class below the unguided one, at one scale"


@claim(
    "Guidance by the non-robust classifier on x_t, not stabilised, destroys or fails to steer the samples.",
    f"at no scale: {STEERED}",
)
def unstabilised_fails(evidence: Evidence) -> tuple[str, bool]:
    (text, steers), (rows, own) = _steering("nonrobust", evidence), _satisfied("nonrobust", "cfd_judge", evidence)
    if len(rows):
        times = rows["cfd_judge"] / evidence.unguided("cfd_judge")
        own = f"its own classifier reaches {percent(REACHED)} at s = {', '.join(f'{scale:g}' for scale in rows.index)}"
        own += f": FD there {times.min():.3g} to {times.max():.3g} times the unguided one"
    try:
        other = f" {evidence.label('ema')}: {_steering('ema', evidence)[0]}"
    except Absent as absent:
        other = f": {absent}"
    return f"{text}; {own}. For comparison{other}", not steers


@claim(
    "Guidance by the non-robust classifier on x_t drives the chain so far off that no sample survives.",
    "at some scale every sample diverged, that is became infinite or not a number",
)
def none_survives(evidence: Evidence) -> tuple[str, bool]:
    rows = evidence.scales("nonrobust", "accuracy")
    return _diverged(rows), bool((rows["n_diverged"] == rows["n"]).any())


for role, who in (("robust", "by the robust classifier"), ("ema", "with {ema}")):
    claim(f"Guidance {who} steers.", STEERED)(partial(_steering, role))
    claim(
        f"Guidance {who} reaches the target class by its own classifier, the paper's measure.",
        f"≥ {percent(REACHED)} at one scale, and more than the unguided samples by the same classifier",
    )(partial(_reaches, role))


def _gap(role: str, evidence: Evidence) -> tuple[float, str]:
    """Own minus judge's share at the first scale that satisfies the own classifier, NaN if none does; in words."""
    rows, never = _satisfied(role, "accuracy_judge", evidence)
    if rows.empty:
        return np.nan, never
    first, gaps = rows.iloc[0], rows["accuracy"] - rows["accuracy_judge"]
    text = f"own {percent(first['accuracy'])}, judge {percent(first['accuracy_judge'])} at s = {first.name:g}; gap "
    text += f"{100 * gaps.min():.1f} to {100 * gaps.max():.1f} points over the {len(gaps)} such scales"
    return gaps.iloc[0], text


@claim(
    "{log_prob} satisfies its own classifier while the judge lies clearly lower.",
    f"a gap ≥ {100 * GAP:g} points at the first scale where its own classifier gives ≥ {percent(REACHED)}",
)
def log_prob_fools(evidence: Evidence) -> tuple[str, bool]:
    gap, text = _gap("log_prob", evidence)
    return text, gap >= GAP


@claim(
    "With the raw logit instead, judge and classifier agree.",
    f"at the first such scale a gap < {100 * GAP:g} points and smaller than with log_prob",
)
def logit_does_not(evidence: Evidence) -> tuple[str, bool]:
    (gap, text), (fooled, contrast) = _gap("ema", evidence), _gap("log_prob", evidence)
    return f"{text}; with log_prob: {contrast}", gap < GAP and gap < fooled


@claim("{adam} needs much smaller scales.", f"best scale ≤ 1/{MUCH_SMALLER} of every best one of x̂₀ without it")
def adam_scales(evidence: Evidence) -> tuple[str, bool]:
    metric = evidence.criterion()
    best = {role: evidence.scales(role, metric)[metric].idxmin() for role in ("adam", "x0", "ema_low", "ema")}
    text = ", ".join(f"{evidence.label(role)}: {scale:g}" for role, scale in best.items())
    return f"{text} (by {metric_label(metric)})", best.pop("adam") <= min(best.values()) / MUCH_SMALLER


@claim(
    "The distance to the target class under robust guidance has a turning point.",
    f"minimum inside the grid, and ≥ {TURN:g} times the minimum at the largest scale",
)
def robust_turns(evidence: Evidence) -> tuple[str, bool]:
    metric = evidence.criterion()
    values = evidence.scales("robust", metric)[metric]
    low, end = values.idxmin(), values.index[-1]
    text = ", ".join(f"{values[scale]:.4g} at s = {scale:g}" for scale in (values.index[0], low, end))
    return f"{metric_label(metric)} {text}", low != values.index[0] and values[end] >= TURN * values[low]


@claim(
    "On CelebA the EMA setups stay stable up to scales near 500.",
    f"at the scale nearest to 500, of {NEAR_500[0]} to {NEAR_500[1]}: none diverged, distance below the unguided one",
    "celeba",
)
def celeba_stable(evidence: Evidence) -> tuple[str, bool]:
    metric, rows = evidence.criterion(), {}
    for role in ("ema_low", "ema"):
        near = evidence.scales(role, metric).loc[NEAR_500[0] : NEAR_500[1]]
        if near.empty:
            raise Absent(f"no scale near 500 of {evidence.label(role)}")
        rows[evidence.label(role)] = near.loc[min(near.index, key=lambda scale: abs(scale - 500))]
    text, unguided = "", evidence.unguided(metric)
    for label, row in rows.items():
        text += f"{label}: {row[metric]:.4g} at s = {row.name:g}, {row['n_diverged']:.0f} diverged; "
    holds = all(row["n_diverged"] == 0 and row[metric] < unguided for row in rows.values())
    return f"{text}unguided {unguided:.4g} ({metric_label(metric)})", holds


@claim(
    "The best scale of each setup lies inside its grid.",
    "nearest to the target class at neither end; a setup never nearer than the unguided samples has no best scale",
)
def best_inside(evidence: Evidence) -> tuple[str, bool]:
    metric = evidence.criterion()
    unguided, places = evidence.unguided(metric), {"inside": [], "AT AN END": [], "no scale below unguided": []}
    distances = evidence.guided[metric].dropna()
    for name in (name for name in evidence.setups if name in distances):
        values = distances[name]
        best, ends = values.idxmin(), values.index[[0, -1]]
        place = "no scale below unguided" if values[best] >= unguided else "AT AN END" if best in ends else "inside"
        places[place].append(f"{evidence.setups[name].label} {best:g} of {ends[0]:g}–{ends[1]:g}")
    text = "; ".join(f"{place}: {', '.join(names)}" for place, names in places.items() if names)
    return f"{text} ({metric_label(metric)})", bool(places["inside"]) and not places["AT AN END"]


@claim(
    "Unguided SportBalls samples show every class.",
    f"each {percent(SHARES[0])} to {percent(SHARES[1])} by the judge",
    "sportballs",
)
def every_class(evidence: Evidence) -> tuple[str, bool]:
    rows = evidence.points[evidence.points["scale"].isna() & evidence.points["metric"].str.startswith("judge_share/")]
    if len(rows) != evidence.classes or rows["value"].isna().any():
        raise Absent(f"{rows['value'].notna().sum()} of {evidence.classes} shares of unguided samples")
    text = ", ".join(f"{m.partition('/')[2]} {percent(v)}" for m, v in zip(rows["metric"], rows["value"], strict=True))
    return text, bool(rows["value"].between(*SHARES).all())


def background(images: np.ndarray) -> np.ndarray:
    """Brightness on [0, 1] away from the ball, one value for each image of uint8 n×H×W×3; NOTES say how."""
    brightness = np.asarray(images).mean(axis=3) / 255
    darkness = 1 - brightness + 1e-9  # the centre of an all-white image is its middle
    total = darkness.sum(axis=(1, 2))
    rows, columns = (np.arange(size) for size in brightness.shape[1:])
    y, x = darkness.sum(axis=2) @ rows / total, darkness.sum(axis=1) @ columns / total
    squared = (rows[:, None] - y[:, None, None]) ** 2 + (columns - x[:, None, None]) ** 2
    away = squared > (AWAY * brightness.shape[2]) ** 2
    return (brightness * away).sum(axis=(1, 2)) / away.sum(axis=(1, 2))


@claim("Unguided SportBalls samples are on white.", f"mean background ≥ {BACKGROUND:g} on [0, 1]", "sportballs")
def on_white(evidence: Evidence) -> tuple[str, bool]:
    if not evidence.shards:
        raise Absent("no unguided samples")
    images = [Shard.open(path).images for path in evidence.shards]
    batches = [background(part[i : i + 256]) for part in images for i in range(0, len(part), 256)]  # 256 in memory
    values = np.concatenate(batches)
    text = f"{values.mean():.4f} over {len(values)} samples; darkest of them {values.min():.3f}"
    return text, values.mean() >= BACKGROUND
