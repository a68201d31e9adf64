"""The check of each claim in words.yaml, a function of its name: what was measured in words, and whether it is seen."""

import numpy as np
import pandas as pd

from nrcg.io.shards import Shard
from nrcg.plots.decay import decay_note
from nrcg.plots.forward import REASONS, RELATIVE, in_words, left_out, ranges
from nrcg.plots.setups import metric_label
from nrcg.report.measurements import LIMITS, Absent, Evidence, percent


def _fall(evidence: Evidence, accuracy: pd.Series) -> int | None:
    """The first t at which the accuracy is that of guessing."""
    return next(iter(accuracy.index[accuracy <= 1 / evidence.classes + LIMITS.guessing]), None)


def collapse(evidence: Evidence) -> tuple[str, bool]:
    curves, steps = evidence.forward("1", "nonrobust", "robust"), evidence.tables["1"]["t"].max()
    accuracy = curves["nonrobust"]
    t = _fall(evidence, accuracy)
    if t is None:
        return f"never: lowest {percent(accuracy.min())} at t = {accuracy.idxmin()} of {steps}", False
    after = accuracy.loc[t:].mean()
    text = f"{percent(accuracy.iloc[0])} at t = {accuracy.index[0]}, {percent(accuracy[t])} at t = {t} of {steps}, "
    text += f"{percent(after)} on average from there on; robust at t = {t}: {percent(curves['robust'][t])}"
    return text, t < steps / 4 and after <= 1 / evidence.classes + LIMITS.guessing


def restored(evidence: Evidence) -> tuple[str, bool]:
    curves = evidence.forward("1", "nonrobust", "x0")
    t, accuracy = _fall(evidence, curves["nonrobust"]), curves["x0"]
    if t is None:
        return "nothing to restore: on x_t it never falls to guessing", False
    enough = LIMITS.restored * accuracy.iloc[0]
    below = accuracy.index[accuracy < enough]
    until = f"first below {percent(enough)} at t = {below[0]}" if len(below) else "above the threshold at every t"
    text = f"at t = {t}: x_t {percent(curves['nonrobust'][t])}, x̂₀ {percent(accuracy[t])}; x̂₀ at "
    return f"{text}t = {accuracy.index[0]}: {percent(accuracy.iloc[0])}, {until}", accuracy[t] >= enough


def _measurable(
    evidence: Evidence, figure: str, *roles: str, until: float = np.inf, metric: str = ""
) -> tuple[pd.DataFrame, str]:
    """The curves at the t up to `until` where all are positive and gradients mean something; and which t, in words."""
    curves = evidence.forward(figure, *roles, metric=metric)
    names = [evidence.setup(role).name for role in roles]
    reasons = pd.concat([left_out(evidence.tables[figure], name) for name in names], axis=1).sort_index().loc[:until]
    curves = curves.reindex(reasons.index[~reasons.isin(list(REASONS)).any(axis=1)])
    curves = curves[((curves > 0) & np.isfinite(curves)).all(axis=1)]
    words = f"on {len(curves)} of {len(reasons)} t"
    for reason, (name, _) in REASONS.items():
        if runs := ranges(reasons.index, (reasons == reason).any(axis=1)):
            words += f", without {in_words(runs)} ({name})"
    if curves.empty or len(curves) < LIMITS.enough * len(reasons):
        raise Absent(f"too few: {words}")
    return curves, words


def _ratio(curves: pd.DataFrame, above: str, below: str) -> float:
    """The geometric mean over t of one curve over the other."""
    return float(np.exp((np.log(curves[above]) - np.log(curves[below])).mean()))


def _relative(evidence: Evidence, figure: str, above: str, below: str, until: float = np.inf) -> float:
    return _ratio(_measurable(evidence, figure, above, below, until=until, metric=RELATIVE)[0], above, below)


def compare(evidence: Evidence, figure: str, above: str, below: str, who: str, least: float = 0.0) -> tuple[str, bool]:
    """Whether `above` lies by a factor of `least` above `below`; with `least` 0, whether it lies below it."""
    curves, words = _measurable(evidence, figure, above, below)
    ratio, times = _ratio(curves, above, below), int((curves[above] > curves[below]).sum())
    text = f"ratio {ratio:.3g} {words}; {who} at {times} of {len(curves)} t"
    if figure == "3":  # of gradients
        text += f"; relative sensitivity: ratio {_relative(evidence, figure, above, below):.3g}"
    return text, ratio >= least if least else ratio < 1 and times < len(curves) / 2


def ema_reaches_robust(evidence: Evidence) -> tuple[str, bool]:
    steps, half = len(evidence.forward("4", "ema")), evidence.tables["4"]["t"].max() / 2
    curves, words = _measurable(evidence, "4", "ema", "x0", "robust", until=half)
    ratio, relative = _ratio(curves, "ema", "robust"), _relative(evidence, "4", "ema", "robust", half)
    text = f"eq. 4: ratio {ratio:.3g} (x̂₀ without EMA: {_ratio(curves, 'x0', 'robust'):.3g}) {words}; "
    text += f"relative: {relative:.3g} (without EMA: {_relative(evidence, '4', 'x0', 'robust', half):.3g})"
    decay = decay_note(evidence.setup("ema").stabilizer, steps)
    return "; ".join(filter(None, [text, decay])), max(ratio, relative) <= LIMITS.level


def adam_gets_worse(evidence: Evidence) -> tuple[str, bool]:
    curves, words = _measurable(evidence, "4", "adam", "x0")
    logs, low, high = np.log(curves), curves.index.min(), curves.index.max()
    first, last = logs[logs.index <= low + (high - low) / 4], logs[logs.index > high - (high - low) / 4]
    growth = np.exp(last.mean() - first.mean())
    text = f"from t ≤ {first.index.max()} to t ≥ {last.index.min()}: times {growth['adam']:.3g} with ADAM, "
    return f"{text}{growth['x0']:.3g} without, {words}", growth["adam"] > max(1.0, growth["x0"])


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
    text, holds, unguided = "", True, evidence.unguided(metric)
    for label, row in rows.items():
        text += f"{label}: {row[metric]:.4g} at s = {row.name:g}, {row['n_diverged']:.0f} diverged; "
        holds &= row["n_diverged"] == 0 and row[metric] < unguided
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
