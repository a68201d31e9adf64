"""Numbers with intervals, and verdicts about them: True, False, or None if undecided."""

from typing import NamedTuple

import numpy as np

Verdict = bool | None


class Number(NamedTuple):
    """A number and its 95 % interval; with unknown ends (NaN) all verdicts are undecided."""

    value: float
    low: float
    high: float

    def at_least(self, limit: float) -> Verdict:
        return True if self.low >= limit else False if self.high < limit else None

    def at_most(self, limit: float) -> Verdict:
        return True if self.high <= limit else False if self.low > limit else None

    def below(self, other: "Number") -> Verdict:
        return True if self.high < other.low else False if self.low > other.high else None

    def scaled(self, factor: float) -> "Number":
        return Number(*(factor * each for each in self))

    def less(self, other: "Number") -> "Number":
        """The difference of two numbers (Newcombe 1998, method 10); conservative for numbers of the same samples."""
        value = self.value - other.value
        down = np.hypot(self.value - self.low, other.high - other.value)
        return Number(value, value - down, value + np.hypot(self.high - self.value, other.value - other.low))


def times(value: float, error: float) -> Number:
    """A positive number with this standard error of its logarithm."""
    return Number(value, value * np.exp(-1.96 * error), value * np.exp(1.96 * error))


def all_of(*verdicts: Verdict) -> Verdict:
    """Whether all hold: False if any is False, else None if any is None."""
    return False if False in verdicts else None if None in verdicts else True


def any_of(*verdicts: Verdict) -> Verdict:
    """Whether any holds: True if any is True, else None if any is None."""
    return opposite(all_of(*map(opposite, verdicts)))


def opposite(verdict: Verdict) -> Verdict:
    return None if verdict is None else not verdict
