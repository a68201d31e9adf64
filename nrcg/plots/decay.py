"""What a stabiliser's decay means over a number of steps: without bias correction, its weights sum to 1 − β^N."""

PAPER_STEPS = 400  # reverse steps, and values of t, of the paper


def decay_note(stabilizer: str, steps: int) -> str:
    """Over how many steps a stabiliser ran, the sum of its weights, and that sum over the paper's 400 steps.

    After N steps, a moving average that starts at zero (eq. 7 and 8) weights the gradients by 1 − β^N in total: the
    same β is another method over fewer steps.

    Args:
        stabilizer: as in the setups table: `none`, `ema:BETA` or `adam:BETA1:BETA2:EPS`.
        steps: gradients that it was given per trajectory, at least 1.

    Returns:
        One clause without a full stop; empty for a stabiliser without a memory.
    """
    kind, *constants = stabilizer.split(":")
    if kind == "ema":
        name, decays = f"EMA {constants[0]}", [float(constants[0])]
    elif kind == "adam":
        name, decays = "ADAM", [float(constants[0]), float(constants[1])]
    else:
        return ""
    ours, papers = _sums(decays, steps), _sums(decays, PAPER_STEPS)
    text = f"{name} over {steps} steps: weights sum to {ours}"
    if steps == PAPER_STEPS:
        return text
    if ours == papers:
        return f"{text}, as over the paper's {PAPER_STEPS}"
    return f"{text}; the paper's {PAPER_STEPS} steps: {papers}"


def _sums(decays: list[float], steps: int) -> str:
    """1 − β^N of each; of ADAM's two, the first is of the gradients and the second of their squares."""
    sums = [f"{1 - decay**steps:.2f}" for decay in decays]
    return sums[0] if len(sums) == 1 else f"{sums[0]} (gradients) and {sums[1]} (squares)"
