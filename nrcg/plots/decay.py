"""What a stabiliser's decay means over a number of steps: without bias correction, its weights sum to 1 − β^N."""

from collections.abc import Mapping
from typing import Any

PAPER_STEPS = 400  # reverse steps, and values of t, of the paper
OF = {"beta1": "gradients", "beta2": "squares"}


def decay_note(stabilizer: Mapping[str, Any] | str | None, steps: int) -> str:
    """Over how many steps a stabiliser ran, the sum of its weights, and that sum over the paper's 400 steps.

    After N steps, a moving average that starts at zero (eq. 7 and 8) weights the gradients by 1 − β^N in total: the
    same β is another method over fewer steps. With `steps` its β is β^(steps/N).

    Args:
        stabilizer: section of a config: None, a name, or {name: arguments}; each `beta…` in it is a decay.
        steps: gradients that it was given per trajectory, at least 1.

    Returns:
        One clause without a full stop; empty for a stabiliser without a decay.
    """
    ((name, arguments),) = stabilizer.items() if isinstance(stabilizer, Mapping) else [("", {})]
    decays = {key: value for key, value in (arguments or {}).items() if key.startswith("beta")}
    if not decays:
        return ""
    meant_for = arguments.get("steps")

    def sums(n: int) -> str:
        each = {key: f"{1 - beta ** (meant_for or n):.2f}" for key, beta in decays.items()}
        return " and ".join(f"{total} ({OF.get(key, key)})" if len(each) > 1 else total for key, total in each.items())

    values = [f"{beta ** (meant_for / steps):.4g}" if meant_for else str(beta) for beta in decays.values()]
    title = f"{name.upper()} {values[0]}" if len(values) == 1 else name.upper()
    text = f"{title} over {steps} steps: weights sum to {sums(steps)}"
    if steps == PAPER_STEPS:
        return text
    if sums(steps) == sums(PAPER_STEPS):
        return f"{text}, as over the paper's {PAPER_STEPS}"
    return f"{text}; the paper's {PAPER_STEPS} steps: {sums(PAPER_STEPS)}"
