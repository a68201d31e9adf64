"""What small print says of a stabiliser's decay: the weights, summed one by one."""

import pytest

from nrcg.plots.decay import decay_note


@pytest.mark.parametrize(("beta", "steps"), [(0.99, 50), (0.99, 100), (0.9, 3)])
def test_the_sum_of_the_weights_and_the_papers(beta, steps):
    ours, paper = (sum((1 - beta) * beta**k for k in range(n)) for n in (steps, 400))
    expected = f"EMA {beta} over {steps} steps: weights sum to {ours:.2f}; the paper's 400 steps: {paper:.2f}"
    assert decay_note(f"ema:{beta}", steps) == expected


def test_adam_has_two_sums_and_the_papers_steps_need_no_comparison():
    assert decay_note("adam:0.9:0.999:1e-4", 50) == (
        "ADAM over 50 steps: weights sum to 0.99 (gradients) and 0.05 (squares); "
        "the paper's 400 steps: 1.00 (gradients) and 0.33 (squares)"
    )
    assert decay_note("ema:0.9", 100) == "EMA 0.9 over 100 steps: weights sum to 1.00, as over the paper's 400"
    assert decay_note("ema:0.99", 400) == "EMA 0.99 over 400 steps: weights sum to 0.98"
    assert decay_note("none", 400) == ""
