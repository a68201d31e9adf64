"""The effect of a stabiliser's decay over N steps: without bias correction, its weights sum to 1 − β^N."""

from collections.abc import Mapping
from typing import Any

PAPER_STEPS = 400  # the paper's number of reverse steps and of values of t
OF = {"beta1": "gradients", "beta2": "squares"}


def decay_note(stabilizer: Mapping[str, Any] | str | None, steps: int) -> str:
    """The sum 1 − β^N of a stabiliser's weights over N steps and over the paper's 400; empty without a decay.

    `stabilizer` is a section of a config. Its `steps` turn β into β^(steps/N) (eq. 7 and 8).
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
