"""Claims about a classifier along the forward process, figures 1 to 4: what was measured, and whether it is seen."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from nrcg.plots.evidence import Absent, Evidence, Finding, claim, percent

NONROBUST, X0, ADAM, EMA = "nonrobust", "nonrobust_x0", "nonrobust_x0_adam", "nonrobust_x0_ema0.99"

GUESSING = 0.1  # accuracy above chance that still counts as guessing
RESTORED = 0.9  # of the accuracy at the least t
FAR = 2.0  # ratio of sensitivities that counts as far above
LEVEL = 1.5  # ratio of sensitivities that counts as the same level


def _fall(evidence: Evidence, accuracy: pd.Series) -> int | None:
    """The first t at which the accuracy is that of guessing."""
    low = accuracy.index[accuracy <= 1 / evidence.n_classes + GUESSING]
    return int(low[0]) if len(low) else None


@claim(
    "The non-robust classifier falls to guessing before a quarter of the diffusion steps.",
    f"accuracy ≤ 1/classes + {GUESSING:g} at some t < T/4, and on average from there on",
)
def collapse(evidence: Evidence) -> tuple[str, bool]:
    curves = evidence.forward(1, NONROBUST, "robust")
    accuracy, steps = curves[NONROBUST], evidence.steps(1)
    t = _fall(evidence, accuracy)
    if t is None:
        return f"never: lowest {percent(accuracy.min())} at t = {accuracy.idxmin()} of {steps}", False
    after = accuracy.loc[t:].mean()
    text = f"{percent(accuracy.iloc[0])} at t = {accuracy.index[0]}, {percent(accuracy[t])} at t = {t} of {steps}, "
    text += f"{percent(after)} on average from there on; robust at t = {t}: {percent(curves['robust'][t])}"
    return text, t < steps / 4 and after <= 1 / evidence.n_classes + GUESSING


@claim(
    "The one-step prediction x̂₀ restores its accuracy.",
    f"where the accuracy on x_t first is that of guessing, on x̂₀ ≥ {RESTORED:g} of that at the least t",
)
def restored(evidence: Evidence) -> tuple[str, bool]:
    curves = evidence.forward(1, NONROBUST, X0)
    t, accuracy = _fall(evidence, curves[NONROBUST]), curves[X0]
    if t is None:
        return "nothing to restore: on x_t it never falls to guessing", False
    enough = RESTORED * accuracy.iloc[0]
    text = f"at t = {t}: x_t {percent(curves[NONROBUST][t])}, x̂₀ {percent(accuracy[t])}; x̂₀ at "
    below = accuracy.index[accuracy < enough]
    until = f"first below {percent(enough)} at t = {below[0]}" if len(below) else "above the threshold at every t"
    return f"{text}t = {accuracy.index[0]}: {percent(accuracy.iloc[0])}, {until}", accuracy[t] >= enough


def _logs(curves: pd.DataFrame) -> pd.DataFrame:
    """Logarithms at the t where every curve is positive and finite."""
    return np.log(curves[((curves > 0) & np.isfinite(curves)).all(axis=1)])


def _ratio(curves: pd.DataFrame, above: str, below: str) -> tuple[float, str]:
    """The geometric mean over t of one curve over the other, and in words."""
    logs = _logs(curves[[above, below]])
    if logs.empty:
        raise Absent("no t at which both curves are positive and finite")
    difference = logs[above] - logs[below]
    ratio = float(np.exp(difference.mean()))
    return ratio, f"ratio {ratio:.3g}, above 1 at {(difference > 0).sum()} of {len(logs)} t"


def _far_above(figure: int, name: str) -> Callable[[Evidence], Finding]:
    @claim(
        f"On x_t the non-robust classifier's {name} sensitivity lies far above the robust one's.",
        f"mean ratio over all t: ≥ {FAR:g}",
    )
    def far_above(evidence: Evidence) -> tuple[str, bool]:
        ratio, text = _ratio(evidence.forward(figure, NONROBUST, "robust"), NONROBUST, "robust")
        return text, ratio >= FAR

    return far_above


def _lowered(figure: int, name: str) -> Callable[[Evidence], Finding]:
    @claim(f"x̂₀ lowers the non-robust classifier's {name} sensitivity.", "mean ratio of x̂₀ to x_t over all t: < 1")
    def lowered(evidence: Evidence) -> tuple[str, bool]:
        ratio, text = _ratio(evidence.forward(figure, X0, NONROBUST), X0, NONROBUST)
        return text, ratio < 1

    return lowered


@claim(
    "x̂₀ + EMA 0.99 reaches the robust classifier's gradient sensitivity in the first half of the process.",
    f"mean ratio to the robust one over all t ≤ T/2: ≤ {LEVEL:g}",
)
def ema_reaches_robust(evidence: Evidence) -> tuple[str, bool]:
    curves = evidence.forward(4, EMA, X0, "robust")
    half = curves[curves.index <= evidence.steps(4) / 2]
    ratio, text = _ratio(half, EMA, "robust")
    return f"{text}; x̂₀ without EMA: {_ratio(half, X0, 'robust')[0]:.3g}", ratio <= LEVEL


@claim(
    "x̂₀ + ADAM gets worse as t grows.",
    "mean gradient sensitivity in the last quarter of t over that in the first: > 1, and more than without ADAM",
)
def adam_gets_worse(evidence: Evidence) -> tuple[str, bool]:
    curves = evidence.forward(4, ADAM, X0)
    steps, logs = evidence.steps(4), _logs(curves)
    first, last = logs[logs.index <= steps / 4], logs[logs.index > 3 * steps / 4]
    if first.empty or last.empty:
        raise Absent("no t in the first or in the last quarter")
    growth = np.exp(last.mean() - first.mean())
    return f"with ADAM {growth[ADAM]:.3g} times, without {growth[X0]:.3g} times", growth[ADAM] > max(1.0, growth[X0])


CLAIMS = (
    collapse,
    restored,
    *(check(figure, name) for figure, name in ((2, "logit"), (3, "gradient")) for check in (_far_above, _lowered)),
    ema_reaches_robust,
    adam_gets_worse,
)
