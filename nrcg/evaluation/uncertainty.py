"""Uncertainty: intervals of shares and distances, marks for small samples, and their explanations."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from nrcg.evaluation.comparison import Pair

Z95 = 1.959964  # half-width of the central 95 % of a standard normal distribution
PER_FEATURE = 10  # fewer samples per feature than this are marked as a small sample
TIMES, KEPT = 20, 0.8  # number of resamplings, and the share of samples in each
T95 = 2.093024  # as Z95, for Student's distribution with TIMES − 1 degrees of freedom

NOTE_INTERVAL = "95 % intervals: Wilson for shares, resampling for distances"
NOTE_SINGULAR = "† n ≤ number of features: the covariance is singular; compare the distance only at equal n."
NOTE_SMALL = f"‡ Small sample: with fewer than {PER_FEATURE} samples per feature the distance is biased upwards."


def wilson(share: ArrayLike, n: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % score interval for shares (0…1) of n samples: lower and upper end within 0…1; NaN if n is."""
    share, n = np.asarray(share, float), np.asarray(n, float)
    spread = Z95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)  # corrects rounding


class Resampled(NamedTuple):
    """Resampling error and bias of a metric."""

    error: float  # standard error
    shift: float  # mean of the metric over resamplings of four fifths of the samples, minus that of all samples

    @property
    def half(self) -> float:
        """Half-width of a 95 % interval."""
        return self.error * T95

    @property
    def limit(self) -> tuple[float, float]:
        """The correction to infinitely many samples, for a bias proportional to 1 / n, and its interval's half-width.

        Chong & Forsyth (2020) fit a line through several n; this line goes through n and 4/5 n.
        """
        lever = KEPT / (1 - KEPT)
        return -self.shift * lever, self.half * np.sqrt(1 + lever / TIMES)


def resampled(measure: Callable[[Pair], float], pair: Pair, n: int) -> Resampled:
    """The error of a metric of n samples, estimated from the samples in `pair` (the first ones, or all).

    The delete-d jackknife (Shao & Wu 1989): the metric of four fifths of the samples, drawn twenty times without
    replacement, with fixed rows. A bootstrap (with replacement) contains duplicates, which distort covariances and
    nearest neighbours. Real images are not resampled.
    """
    had = len(pair.rows)
    kept = max(2, round(KEPT * had))
    if kept >= had:
        return Resampled(np.nan, np.nan)
    values = np.array([measure(pair.part(rows)) for rows in _rows(had, kept)])
    error = np.std(values, ddof=1) * np.sqrt(kept / (had - kept)) * np.sqrt(had / n)
    whole = measure(pair.part(np.arange(had)))
    return Resampled(float(error), float(values.mean() - whole) * had / n)


@cache
def _rows(n: int, kept: int) -> list[np.ndarray]:
    generator = np.random.default_rng([*b"resampling", n, kept])
    return [np.sort(generator.permutation(n)[:kept]) for _ in range(TIMES)]


def effective(share: float, error: float, n: int) -> float:
    """The effective number of samples for a share with this error, at most n; used for its Wilson interval."""
    nearer = (share * n + 2) / (n + 4)  # shrunk towards ½, since at 0 and 1 the number would be 0
    return min(n, nearer * (1 - nearer) / error**2) if error > 0 else n


def mark(row: pd.Series, metric: str) -> str:
    """† for a Fréchet distance with a singular covariance, ‡ for one of a small sample, "" for other metrics."""
    features = row.get("features", np.nan)
    if np.isnan(features) or "_infinity" in metric or not metric.removeprefix("c").startswith(("fid", "fd_")):
        return ""
    if row["n"] <= features:
        return " †"
    return " ‡" if row["n"] < PER_FEATURE * features else ""


def mark_notes(*rows: Iterable[str]) -> list[str]:
    """The explanations of the marks that occur in the rows' texts."""
    text = "".join(text for row in rows for text in row)
    return [note for note in (NOTE_SINGULAR, NOTE_SMALL) if note[0] in text]
