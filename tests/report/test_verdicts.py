"""What can be decided of numbers with intervals: yes, no or neither."""

from itertools import product
from math import exp, log, nan, sqrt

import numpy as np
import pytest
from scipy.stats import binomtest

from nrcg.report.verdicts import Number, all_of, any_of, opposite, times

UNSURE = Number(0.5, nan, nan)


@pytest.mark.parametrize(("limit", "least", "most"), [(0.39, True, False), (0.4, True, None), (0.5, None, None),
                                                      (0.6, None, True), (0.61, False, True)])  # fmt: skip
def test_a_limit_decides_outside_the_interval_or_at_its_end(limit, least, most):
    number = Number(0.5, 0.4, 0.6)
    assert number.at_least(limit) is least and number.at_most(limit) is most


def test_one_of_two_is_below_where_they_do_not_overlap():
    low, middle, high = Number(1, 0.5, 1.5), Number(1.6, 1.5, 1.7), Number(3, 2, 4)
    assert low.below(high) is True and high.below(low) is False
    assert low.below(middle) is None and middle.below(low) is None  # they touch


def test_without_an_interval_nothing_is_decided():
    sure = Number(9.0, 8.0, 10.0)
    for limit in (-1.0, 0.5, 2.0):
        assert UNSURE.at_least(limit) is None and UNSURE.at_most(limit) is None
    assert UNSURE.below(sure) is None and sure.below(UNSURE) is None
    for difference in (UNSURE.less(sure), sure.less(UNSURE)):
        assert abs(difference.value) == 8.5 and difference.at_least(-99.0) is None
    assert times(2.0, nan).at_least(0.0) is None


@pytest.mark.parametrize(("a", "m", "b", "n"), [(56, 70, 48, 80), (9, 10, 3, 10), (10, 10, 0, 10), (0, 17, 3, 40)])
def test_a_difference_of_shares_is_newcombes_tenth_method(a, m, b, n):
    def number(k, n):
        ends = binomtest(k, n).proportion_ci(method="wilson")
        return Number(k / n, ends.low, ends.high)

    def score(p, n):  # the roots of (p̂ − p)² = z² p (1 − p) / n
        z = 1.959964
        return np.sort(np.roots([1 + z**2 / n, -(2 * p + z**2 / n), p**2]))

    found, (p, q) = number(a, m).less(number(b, n)), (a / m, b / n)
    (l1, u1), (l2, u2) = score(p, m), score(q, n)
    expected = (p - q, p - q - sqrt((p - l1) ** 2 + (u2 - q) ** 2), p - q + sqrt((u1 - p) ** 2 + (q - l2) ** 2))
    assert found == pytest.approx(expected, abs=1e-5)


def test_newcombes_own_example():
    """His table II, contrast (a): 56/70 − 48/80."""
    ends = [binomtest(k, n).proportion_ci(method="wilson") for k, n in ((56, 70), (48, 80))]
    a, b = (Number(share, end.low, end.high) for share, end in zip((0.8, 0.6), ends, strict=True))
    assert [round(float(end), 4) for end in a.less(b)] == [0.2, 0.0524, 0.3339]


def test_times_is_symmetric_on_a_log_axis():
    number = times(3.0, 0.1)
    assert number.value == 3.0 and log(number.high / 3) == pytest.approx(log(3 / number.low)) == pytest.approx(0.196)
    assert number.high == pytest.approx(3 * exp(0.196))


def test_words_about_several_verdicts():
    """Undecided is what may yet be either: a compound is decided where each way gives the same."""
    for verdicts in product((True, False, None), repeat=3):
        ways = list(product(*([each] if each is not None else [True, False] for each in verdicts)))
        for found, whole in ((all_of(*verdicts), all), (any_of(*verdicts), any)):
            outcomes = {whole(way) for way in ways}
            assert found is (outcomes.pop() if len(outcomes) == 1 else None)
    assert all_of() is True and any_of() is False
    assert [opposite(each) for each in (True, False, None)] == [False, True, None]
