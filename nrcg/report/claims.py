"""The checks of the claims in words.yaml, by function name: the measurement in words, and a verdict."""

import numpy as np
import pandas as pd

from nrcg.io.shards import Shard
from nrcg.plots.decay import decay_note
from nrcg.plots.forward import REASONS, RELATIVE, in_words, left_out, ranges
from nrcg.plots.setups import metric_label
from nrcg.report.measurements import LIMITS, Absent, Evidence, percent, said
from nrcg.report.verdicts import Number, Verdict, all_of, any_of, opposite, times

Checked = tuple[str, Verdict]


def _fall(evidence: Evidence, accuracy: pd.Series) -> int | None:
    """The first t at which the accuracy is at chance level."""
    return next(iter(accuracy.index[accuracy <= 1 / evidence.classes + LIMITS.guessing]), None)


def collapse(evidence: Evidence) -> Checked:
    curves, steps = evidence.forward("1", "nonrobust", "robust"), evidence.tables["1"]["t"].max()
    accuracy, guessing = curves["nonrobust"], 1 / evidence.classes + LIMITS.guessing
    early = (evidence.share_at("nonrobust", share, t) for t, share in accuracy.items() if t < steps / 4)
    falls, t = any_of(*(share.at_most(guessing) for share in early)), _fall(evidence, accuracy)
    if t is None:
        least = evidence.share_at("nonrobust", accuracy.min(), accuracy.idxmin())
        return f"never: lowest {said(least, 'accuracy')} at t = {accuracy.idxmin()} of {steps}", falls
    after = evidence.share_at("nonrobust", accuracy.loc[t:].mean(), t)  # same images at every t: interval as at one t
    text = f"{percent(accuracy.iloc[0])} at t = {accuracy.index[0]}, {percent(accuracy[t])} at t = {t} of {steps}, "
    text += f"{said(after, 'accuracy')} on average from then on; robust at t = {t}: {percent(curves['robust'][t])}"
    return text, all_of(falls, after.at_most(guessing))


def restored(evidence: Evidence) -> Checked:
    curves = evidence.forward("1", "nonrobust", "x0")
    t, accuracy = _fall(evidence, curves["nonrobust"]), curves["x0"]
    if t is None:
        return "nothing to restore: on x_t it never falls to chance level", False
    enough, found = LIMITS.restored * accuracy.iloc[0], evidence.share_at("x0", accuracy[t], t)
    below = accuracy.index[accuracy < enough]
    until = f"first below {percent(enough)} at t = {below[0]}" if len(below) else "above the threshold at every t"
    text = f"at t = {t}: x_t {percent(curves['nonrobust'][t])}, x̂₀ {said(found, 'accuracy')}; x̂₀ at "
    return f"{text}t = {accuracy.index[0]}: {percent(accuracy.iloc[0])}, {until}", found.at_least(enough)


def _measurable(
    evidence: Evidence, figure: str, *roles: str, until: float = np.inf, metric: str = ""
) -> tuple[pd.DataFrame, str]:
    """The curves at all t up to `until` with positive values and meaningful gradients; and these t in words."""
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


def _ratio(evidence: Evidence, figure: str, curves: pd.DataFrame, above: str, below: str) -> Number:
    """The geometric mean over t of the ratio of two curves; errors at different t are of the same images."""
    errors = np.hypot(*(evidence.errors(figure, role).reindex(curves.index) for role in (above, below)))
    return times(_mean_ratio(curves, above, below), float(errors.mean()))


def _relative(evidence: Evidence, figure: str, above: str, below: str, until: float = np.inf) -> float:
    return _mean_ratio(_measurable(evidence, figure, above, below, until=until, metric=RELATIVE)[0], above, below)


def _mean_ratio(curves: pd.DataFrame, above: str, below: str) -> float:
    return float(np.exp(np.log(curves[above] / curves[below]).mean()))


def compare(evidence: Evidence, figure: str, above: str, below: str, who: str, least: float = 0.0) -> Checked:
    """Whether the curve `above` exceeds `below` by the factor `least`; with `least` 0, whether it is lower."""
    curves, words = _measurable(evidence, figure, above, below)
    ratio, higher = _ratio(evidence, figure, curves, above, below), int((curves[above] > curves[below]).sum())
    text = f"ratio {_factor(ratio)} {words}; {who} at {higher} of {len(curves)} t"
    if figure == "3":  # of gradients
        text += f"; relative sensitivity: ratio {_relative(evidence, figure, above, below):.3g}"
    return text, ratio.at_least(least) if least else all_of(ratio.at_most(1), higher < len(curves) / 2)


def _factor(number: Number) -> str:
    ends = "" if np.isnan(number.low) else f" [{number.low:.3g}, {number.high:.3g}]"
    return f"{number.value:.3g}{ends}"


def ema_reaches_robust(evidence: Evidence) -> Checked:
    steps, half = len(evidence.forward("4", "ema")), evidence.tables["4"]["t"].max() / 2
    curves, words = _measurable(evidence, "4", "ema", "x0", "robust", until=half)
    ratio, relative = _ratio(evidence, "4", curves, "ema", "robust"), _relative(evidence, "4", "ema", "robust", half)
    without = _ratio(evidence, "4", curves, "x0", "robust").value
    text = f"eq. 4: ratio {_factor(ratio)} (x̂₀ without EMA: {without:.3g}) {words}; "
    text += f"relative: {relative:.3g} (without EMA: {_relative(evidence, '4', 'x0', 'robust', half):.3g})"
    decay = decay_note(evidence.setup("ema").stabilizer, steps)
    return "; ".join(filter(None, [text, decay])), all_of(ratio.at_most(LIMITS.level), relative <= LIMITS.level)


def adam_gets_worse(evidence: Evidence) -> Checked:
    curves, words = _measurable(evidence, "4", "adam", "x0")
    low, high = curves.index.min(), curves.index.max()
    first, last = curves.index <= low + (high - low) / 4, curves.index > high - (high - low) / 4
    growth = {}
    for role in ("adam", "x0"):
        logs, errors = np.log(curves[role]), evidence.errors("4", role).reindex(curves.index)
        grown = float(np.exp(logs[last].mean() - logs[first].mean()))
        growth[role] = grown, float(np.hypot(errors[last].mean(), errors[first].mean()))
    (adam, error), (without, other) = growth["adam"], growth["x0"]
    growing, more = times(adam, error), times(adam / without, np.hypot(error, other))
    text = f"ratio of t ≥ {curves.index[last].min()} to t ≤ {curves.index[first].max()}: {_factor(growing)} "
    return f"{text}with ADAM, {without:.3g} without, {words}", all_of(growing.at_least(1), more.at_least(1))


def _steers(evidence: Evidence, row: pd.Series) -> Verdict:
    """Whether the judge's share is reached and the samples are closer to the target class than unguided ones."""
    metric = evidence.criterion()
    return all_of(row["accuracy_judge"].at_least(LIMITS.reached), row[metric].below(evidence.unguided(metric)))


def steers(evidence: Evidence, role: str) -> Checked:
    metric = evidence.criterion()
    rows, best = evidence.scales(role, "accuracy_judge", metric), evidence.chosen(role, "accuracy_judge", metric)
    try:
        by_own, free = evidence.chosen(role, "accuracy")["accuracy"], evidence.unguided_by(role)
        own = f"{percent(by_own.value)} by its own classifier (unguided {percent(free.value)})"
    except Absent:
        own = "not measured by its own classifier"
    names = ("accuracy_judge", metric)
    share, distance = ([said(each, name) for each in (best[name], evidence.unguided(name))] for name in names)
    text = f"at s = {best.name:g}: {share[0]} {evidence.target} by the judge (unguided {share[1]}), "
    text += f"{metric_label(metric)} {distance[0]} (unguided {distance[1]}), {own}; {_diverged(rows)}"
    return text, _steers(evidence, best)


def reaches(evidence: Evidence, role: str) -> Checked:
    best, unguided = evidence.chosen(role, "accuracy"), evidence.unguided_by(role)
    share = best["accuracy"]
    text = f"{said(share, 'accuracy')} {evidence.target} at s = {best.name:g} (unguided {percent(unguided.value)}); "
    return text + evidence.clean(role), all_of(share.at_least(LIMITS.reached), unguided.below(share))


def _diverged(rows: pd.DataFrame) -> str:
    worst = rows.loc[rows["n_diverged"].astype(float).idxmax()]
    if worst["n_diverged"] == 0:
        return "no sample diverged"
    return f"up to {worst['n_diverged']:.0f} of {worst['n']:.0f} samples diverged (s = {worst.name:g})"


def _satisfied(role: str, metric: str, evidence: Evidence) -> tuple[pd.DataFrame, str, Verdict]:
    """Points with accuracy and `metric` that satisfy the guiding classifier; a text if there are none; the verdict."""
    rows = evidence.scales(role, "accuracy", metric)
    values = rows["accuracy"].map(lambda number: number.value)
    never = f"its own classifier never reaches {percent(LIMITS.reached)} (best: {percent(values.max())})"
    found = rows[values >= LIMITS.reached]
    return found, never, len(found) > 0 or any_of(*(number.at_least(LIMITS.reached) for number in rows["accuracy"]))


def unstabilised_fails(evidence: Evidence) -> Checked:
    metric = evidence.criterion()
    rows = evidence.scales("nonrobust", "accuracy_judge", metric)
    satisfied, own, _ = _satisfied("nonrobust", metric, evidence)
    if len(satisfied):
        against = satisfied[metric].map(lambda number: number.value) / evidence.unguided(metric).value
        reached = ", ".join(f"{scale:g}" for scale in satisfied.index)
        own = f"its own classifier reaches {percent(LIMITS.reached)} at s = {reached}: distance there "
        own += f"{against.min():.3g} to {against.max():.3g} times the unguided one"
    try:
        other = f" {evidence.label('ema')}: {steers(evidence, 'ema')[0]}"
    except Absent as absent:
        other = f": {absent}"
    text = f"{steers(evidence, 'nonrobust')[0]}; {own}. For comparison{other}"
    return text, opposite(any_of(*(_steers(evidence, row) for _, row in rows.iterrows())))


def none_survives(evidence: Evidence) -> Checked:
    rows = evidence.scales("nonrobust", "accuracy")
    return _diverged(rows), bool((rows["n_diverged"] == rows["n"]).any())


def _gap(role: str, evidence: Evidence) -> tuple[Number, str, Verdict]:
    """Guiding classifier's minus judge's share at the first scale that satisfies the former; in words; the verdict."""
    rows, never, reached = _satisfied(role, "accuracy_judge", evidence)
    if rows.empty:
        return Number(np.nan, np.nan, np.nan), never, reached
    gaps = [row["accuracy"].less(row["accuracy_judge"]) for _, row in rows.iterrows()]
    first, gap = rows.iloc[0], gaps[0]
    own, judge = (percent(first[metric].value) for metric in ("accuracy", "accuracy_judge"))
    ends = "" if np.isnan(gap.low) else f" [{_points(gap.low)}, {_points(gap.high)}]"
    text = f"own {own}, judge {judge} at s = {first.name:g}, a gap of {_points(gap.value)}{ends} points; "
    largest = _points(max(gap.value for gap in gaps))
    return gap, f"{text}up to {largest} over the {len(gaps)} such scales", reached


def _points(share: float) -> str:
    return f"{100 * share:.1f}".replace("-", "−")


def log_prob_fools(evidence: Evidence) -> Checked:
    gap, text, reached = _gap("log_prob", evidence)
    return text, all_of(reached, gap.at_least(LIMITS.gap_points / 100))


def logit_does_not(evidence: Evidence) -> Checked:
    (gap, text, reached), (fooled, contrast, too) = _gap("ema", evidence), _gap("log_prob", evidence)
    holds = all_of(reached, too, gap.at_most(LIMITS.gap_points / 100), gap.below(fooled))
    return f"{text}; with log_prob: {contrast}", holds


def adam_scales(evidence: Evidence) -> Checked:
    metric, chosen, possible = evidence.criterion(), {}, {}
    for role in ("adam", "x0", "ema_low", "ema"):
        values = evidence.scales(role, metric)[metric]
        chosen[role] = evidence.chosen(role, metric).name
        ceiling = min(number.high for number in values)  # a scale with an interval below this may be the best
        possible[role] = [scale for scale, number in values.items() if not number.low > ceiling]
    text = ", ".join(f"{evidence.label(role)}: {scale:g}" for role, scale in chosen.items())
    adam, holds = possible.pop("adam"), []
    for scales in possible.values():
        low, high = (end(scales) / LIMITS.much_smaller for end in (min, max))
        holds.append(True if max(adam) <= low else False if min(adam) > high else None)
    return f"{text} (by {metric_label(metric)})", all_of(*holds)


def robust_turns(evidence: Evidence) -> Checked:
    metric = evidence.criterion()
    values = evidence.scales("robust", metric)[metric]
    low, first, end = min(values.index, key=lambda scale: values[scale].value), values.index[0], values.index[-1]
    text = ", ".join(f"{said(values[scale], metric)} at s = {scale:g}" for scale in dict.fromkeys((first, low, end)))
    within = values.iloc[1:-1]
    turns = (all_of(each.below(values[first]), each.scaled(LIMITS.turn).below(values[end])) for each in within)
    return f"{metric_label(metric)} {text}", any_of(*turns)


def celeba_stable(evidence: Evidence) -> Checked:
    metric, rows = evidence.criterion(), {}
    for role in ("ema_low", "ema"):
        near = evidence.scales(role, metric).loc[slice(*LIMITS.near_500)]
        if near.empty:
            raise Absent(f"no scale near 500 of {evidence.label(role)}")
        rows[evidence.label(role)] = near.loc[min(near.index, key=lambda scale: abs(scale - 500))]
    unguided, text = evidence.unguided(metric), ""
    for label, row in rows.items():
        text += f"{label}: {said(row[metric], metric)} at s = {row.name:g}, {row['n_diverged']:.0f} diverged; "
    text += f"unguided {said(unguided, metric)} ({metric_label(metric)})"
    return text, all_of(*(v for row in rows.values() for v in (row["n_diverged"] == 0, row[metric].below(unguided))))


def best_inside(evidence: Evidence) -> Checked:
    metric = evidence.criterion()
    unguided, places = evidence.unguided(metric).value, {"inside": [], "AT AN END": [], "no scale below unguided": []}
    distances = evidence.guided["value", metric].dropna()
    for name, best in evidence.scores.best.items():
        values = distances.get(name, pd.Series())
        if best not in values.index:
            continue
        ends = sorted(values.index)[:: max(1, len(values) - 1)]
        place = "no scale below unguided" if values[best] >= unguided else "AT AN END" if best in ends else "inside"
        places[place].append(f"{evidence.setups[name].label} {best:g} of {ends[0]:g}–{ends[-1]:g}")
    text = "; ".join(f"{place}: {', '.join(names)}" for place, names in places.items() if names)
    return f"{text} ({metric_label(metric)})", bool(places["inside"]) and not places["AT AN END"]


def every_class(evidence: Evidence) -> Checked:
    rows = evidence.points[evidence.points["scale"].isna() & evidence.points["metric"].str.startswith("judge_share/")]
    if len(rows) != evidence.classes or rows["value"].isna().any():
        raise Absent(f"{rows['value'].notna().sum()} of {evidence.classes} shares of unguided samples")
    shares = {row["metric"].partition("/")[2]: Number(*row[list(Number._fields)]) for _, row in rows.iterrows()}
    text = ", ".join(f"{name} {said(share, 'accuracy')}" for name, share in shares.items())
    low, high = LIMITS.shares
    return text, all_of(*(v for share in shares.values() for v in (share.at_least(low), share.at_most(high))))


def background(images: np.ndarray) -> np.ndarray:
    """Brightness on [0, 1] outside the ball, per image of uint8 n×H×W×3; defined in the notes of words.yaml."""
    brightness = np.asarray(images).mean(axis=3) / 255
    darkness = 1 - brightness + 1e-9  # an all-white image is centred
    total = darkness.sum(axis=(1, 2))
    rows, columns = (np.arange(size) for size in brightness.shape[1:])
    y, x = darkness.sum(axis=2) @ rows / total, darkness.sum(axis=1) @ columns / total
    squared = (rows[:, None] - y[:, None, None]) ** 2 + (columns - x[:, None, None]) ** 2
    away = squared > (LIMITS.away * brightness.shape[2]) ** 2
    return (brightness * away).sum(axis=(1, 2)) / away.sum(axis=(1, 2))


def on_white(evidence: Evidence) -> Checked:
    if not evidence.shards:
        raise Absent("no unguided samples")
    images = [Shard.open(path).images for path in evidence.shards]  # 256 of them in memory at a time
    values = np.concatenate([background(part[i : i + 256]) for part in images for i in range(0, len(part), 256)])
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
    mean = Number(values.mean(), values.mean() - half, values.mean() + half)
    text = f"{mean.value:.4f} ± {half:.4f} over {len(values)} samples; darkest {values.min():.3f}"
    return text, mean.at_least(LIMITS.background)
