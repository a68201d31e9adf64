"""What small print says of a stabiliser's decay: the weights, summed one by one."""

import subprocess
import sys

import pytest

from nrcg.plots.decay import decay_note


@pytest.mark.parametrize(("beta", "steps"), [(0.99, 50), (0.99, 100), (0.9, 3)])
def test_the_sum_of_the_weights_and_the_papers(beta, steps):
    ours, paper = (sum((1 - beta) * beta**k for k in range(n)) for n in (steps, 400))
    expected = f"EMA {beta} over {steps} steps: weights sum to {ours:.2f}; the paper's 400 steps: {paper:.2f}"
    assert decay_note({"ema": {"beta": beta}}, steps) == expected


def test_adam_has_two_sums_and_the_papers_steps_need_no_comparison():
    assert decay_note({"adam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-4}}, 50) == (
        "ADAM over 50 steps: weights sum to 0.99 (gradients) and 0.05 (squares); "
        "the paper's 400 steps: 1.00 (gradients) and 0.33 (squares)"
    )
    assert decay_note({"ema": {"beta": 0.9}}, 100) == (
        "EMA 0.9 over 100 steps: weights sum to 1.00, as over the paper's 400"
    )
    assert decay_note({"ema": {"beta": 0.99}}, 400) == "EMA 0.99 over 400 steps: weights sum to 0.98"


@pytest.mark.parametrize("section", [None, "sign", {"sign": None}, {"clip": {"limit": 2.0}}])
def test_without_a_decay_there_is_nothing_to_say(section):
    assert decay_note(section, 400) == ""


def test_a_decay_meant_for_a_number_of_steps_is_told_as_it_was_used():
    beta = 0.99**8
    total = sum((1 - beta) * beta**k for k in range(50))
    assert decay_note({"ema": {"beta": 0.99, "steps": 400}}, 50) == (
        f"EMA {beta:.4f} over 50 steps: weights sum to {total:.2f}, as over the paper's 400"
    )
    assert decay_note({"mine": {"beta": 0.5, "beta_far": 0.9, "steps": 2}}, 7) == (
        "MINE over 7 steps: weights sum to 0.75 (beta) and 0.19 (beta_far), as over the paper's 400"
    )


def test_no_torch_is_needed():
    code = "import sys, nrcg.plots.decay; assert not {'torch', 'nrcg.guidance'} & {*sys.modules}"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
