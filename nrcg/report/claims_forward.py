"""Claims about a classifier along the forward process, figures 1 to 4: what was measured, and whether it is seen."""

import numpy as np
import pandas as pd

from nrcg.plots.decay import decay_note
from nrcg.plots.forward import REASONS, RELATIVE, in_words, left_out, ranges
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
