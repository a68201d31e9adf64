"""Claims about guided and unguided samples, figures 5 to 9: what was measured, and whether it is seen."""

import numpy as np
import pandas as pd

from nrcg.io.shards import Shard
from nrcg.plots.setups import metric_label
from nrcg.report.measurements import LIMITS, Absent, Evidence, percent


def steers(evidence: Evidence, role: str) -> tuple[str, bool]:
    """The best point in words: nearest to the target class where the target share is reached, else of largest share."""
    rows, unguided = evidence.scales(role, "accuracy_judge", "cfd_judge"), evidence.unguided("cfd_judge")
    good = rows[(rows["accuracy_judge"] >= LIMITS.reached) & (rows["cfd_judge"] < unguided)]
    best = rows.loc[rows["accuracy_judge"].idxmax() if good.empty else good["cfd_judge"].idxmin()]
    try:
        share, free = evidence.scales(role, "accuracy").loc[best.name, "accuracy"], evidence.unguided_by(role)
        own = f"{percent(share)} by its own classifier (unguided {percent(free)})"
    except (Absent, KeyError):
        own = "not measured by its own classifier"
    text = f"at best {percent(best['accuracy_judge'])} {evidence.target} by the judge and FD {best['cfd_judge']:.4g} "
    text += f"(unguided {percent(evidence.unguided('accuracy_judge'))} and {unguided:.4g}) at s = {best.name:g}, "
    return f"{text}{own}; steers at {len(good)} of {len(rows)} scales; {_diverged(rows)}", not good.empty


def reaches(evidence: Evidence, role: str) -> tuple[str, bool]:
    shares, unguided = evidence.scales(role, "accuracy")["accuracy"], evidence.unguided_by(role)
    best = shares.idxmax()
    text = f"at best {percent(shares[best])} {evidence.target} at s = {best:g} (unguided {percent(unguided)}); "
    return text + evidence.clean(role), shares[best] >= LIMITS.reached and shares[best] > unguided


def _diverged(rows: pd.DataFrame) -> str:
    worst = rows.loc[rows["n_diverged"].idxmax()]
    if worst["n_diverged"] == 0:
        return "no sample diverged"
    return f"up to {worst['n_diverged']:.0f} of {worst['n']:.0f} samples diverged (s = {worst.name:g})"


def _satisfied(role: str, metric: str, evidence: Evidence) -> tuple[pd.DataFrame, str]:
    """The points with accuracy and `metric` that satisfy the own classifier; in words, where there are none."""
    rows = evidence.scales(role, "accuracy", metric)
    never = f"its own classifier never reaches {percent(LIMITS.reached)} (at best {percent(rows['accuracy'].max())})"
    return rows[rows["accuracy"] >= LIMITS.reached], never


def unstabilised_fails(evidence: Evidence) -> tuple[str, bool]:
    (text, steered), (rows, own) = steers(evidence, "nonrobust"), _satisfied("nonrobust", "cfd_judge", evidence)
    if len(rows):
        times = rows["cfd_judge"] / evidence.unguided("cfd_judge")
        reached = ", ".join(f"{scale:g}" for scale in rows.index)
        own = f"its own classifier reaches {percent(LIMITS.reached)} at s = {reached}: FD there "
        own += f"{times.min():.3g} to {times.max():.3g} times the unguided one"
    try:
        other = f" {evidence.label('ema')}: {steers(evidence, 'ema')[0]}"
    except Absent as absent:
        other = f": {absent}"
    return f"{text}; {own}. For comparison{other}", not steered


def none_survives(evidence: Evidence) -> tuple[str, bool]:
    rows = evidence.scales("nonrobust", "accuracy")
    return _diverged(rows), bool((rows["n_diverged"] == rows["n"]).any())


def _gap(role: str, evidence: Evidence) -> tuple[float, str]:
    """Own minus judge's share at the first scale that satisfies the own classifier, NaN if none does; in words."""
    rows, never = _satisfied(role, "accuracy_judge", evidence)
    if rows.empty:
        return np.nan, never
    first, gaps = rows.iloc[0], rows["accuracy"] - rows["accuracy_judge"]
    text = f"own {percent(first['accuracy'])}, judge {percent(first['accuracy_judge'])} at s = {first.name:g}; gap "
    text += f"{100 * gaps.min():.1f} to {100 * gaps.max():.1f} points over the {len(gaps)} such scales"
    return gaps.iloc[0], text


def log_prob_fools(evidence: Evidence) -> tuple[str, bool]:
    gap, text = _gap("log_prob", evidence)
    return text, gap >= LIMITS.gap_points / 100


def logit_does_not(evidence: Evidence) -> tuple[str, bool]:
    (gap, text), (fooled, contrast) = _gap("ema", evidence), _gap("log_prob", evidence)
    return f"{text}; with log_prob: {contrast}", gap < LIMITS.gap_points / 100 and gap < fooled


def adam_scales(evidence: Evidence) -> tuple[str, bool]:
    metric = evidence.criterion()
    best = {role: evidence.scales(role, metric)[metric].idxmin() for role in ("adam", "x0", "ema_low", "ema")}
    text = ", ".join(f"{evidence.label(role)}: {scale:g}" for role, scale in best.items())
    return f"{text} (by {metric_label(metric)})", best.pop("adam") <= min(best.values()) / LIMITS.much_smaller


def robust_turns(evidence: Evidence) -> tuple[str, bool]:
    metric = evidence.criterion()
    values = evidence.scales("robust", metric)[metric]
    low, end = values.idxmin(), values.index[-1]
    text = ", ".join(f"{values[scale]:.4g} at s = {scale:g}" for scale in (values.index[0], low, end))
    return f"{metric_label(metric)} {text}", low != values.index[0] and values[end] >= LIMITS.turn * values[low]


def celeba_stable(evidence: Evidence) -> tuple[str, bool]:
    metric, rows = evidence.criterion(), {}
    for role in ("ema_low", "ema"):
        near = evidence.scales(role, metric).loc[slice(*LIMITS.near_500)]
        if near.empty:
            raise Absent(f"no scale near 500 of {evidence.label(role)}")
        rows[evidence.label(role)] = near.loc[min(near.index, key=lambda scale: abs(scale - 500))]
    text, unguided = "", evidence.unguided(metric)
    for label, row in rows.items():
        text += f"{label}: {row[metric]:.4g} at s = {row.name:g}, {row['n_diverged']:.0f} diverged; "
    holds = all(row["n_diverged"] == 0 and row[metric] < unguided for row in rows.values())
    return f"{text}unguided {unguided:.4g} ({metric_label(metric)})", holds


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


def every_class(evidence: Evidence) -> tuple[str, bool]:
    rows = evidence.points[evidence.points["scale"].isna() & evidence.points["metric"].str.startswith("judge_share/")]
    if len(rows) != evidence.classes or rows["value"].isna().any():
        raise Absent(f"{rows['value'].notna().sum()} of {evidence.classes} shares of unguided samples")
    text = ", ".join(f"{m.partition('/')[2]} {percent(v)}" for m, v in zip(rows["metric"], rows["value"], strict=True))
    return text, bool(rows["value"].between(*LIMITS.shares).all())


def background(images: np.ndarray) -> np.ndarray:
    """Brightness on [0, 1] away from the ball, for each image of uint8 n×H×W×3; the page says how."""
    brightness = np.asarray(images).mean(axis=3) / 255
    darkness = 1 - brightness + 1e-9  # the centre of an all-white image is its middle
    total = darkness.sum(axis=(1, 2))
    rows, columns = (np.arange(size) for size in brightness.shape[1:])
    y, x = darkness.sum(axis=2) @ rows / total, darkness.sum(axis=1) @ columns / total
    squared = (rows[:, None] - y[:, None, None]) ** 2 + (columns - x[:, None, None]) ** 2
    away = squared > (LIMITS.away * brightness.shape[2]) ** 2
    return (brightness * away).sum(axis=(1, 2)) / away.sum(axis=(1, 2))


def on_white(evidence: Evidence) -> tuple[str, bool]:
    if not evidence.shards:
        raise Absent("no unguided samples")
    images = [Shard.open(path).images for path in evidence.shards]
    batches = [background(part[i : i + 256]) for part in images for i in range(0, len(part), 256)]  # 256 in memory
    values = np.concatenate(batches)
    text = f"{values.mean():.4f} over {len(values)} samples; darkest of them {values.min():.3f}"
    return text, values.mean() >= LIMITS.background
