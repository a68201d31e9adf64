"""How sure a number is: intervals of shares and of distances, marks of few samples, and the notes that explain them."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from nrcg.evaluation.comparison import Pair

Z95 = 1.959964  # standard deviations of a normal distribution that hold 95 %
PER_FEATURE = 10  # fewer samples per feature than this are called a small sample
TIMES, KEPT = 20, 0.8  # how often samples are drawn from those there are, and what share of them each time
T95 = 2.093024  # as Z95, of Student's distribution with TIMES − 1 degrees of freedom

NOTE_INTERVAL = "95 % intervals: Wilson's of shares, resampled ones of distances"
NOTE_SINGULAR = "† n ≤ number of features: the covariance is singular; compare the distance only at equal n."
NOTE_SMALL = f"‡ Small sample: fewer than {PER_FEATURE} samples per feature bias the distance upwards."


def wilson(share: ArrayLike, n: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % score interval of shares 0…1 of n samples: lower and upper ends, within 0…1; NaN where n is."""
    share, n = np.asarray(share, float), np.asarray(n, float)
    spread = Z95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)  # no end beyond by rounding


class Resampled(NamedTuple):
    """What a metric is of other samples of the same kind."""

    error: float  # standard error
    shift: float  # mean of the metric over parts of the samples, four fifths of them, less that of all

    @property
    def half(self) -> float:
        """Half of a 95 % interval."""
        return self.error * T95

    @property
    def limit(self) -> tuple[float, float]:
        """What to add for infinitely many samples, where the bias is as 1 / n, and half of that number's interval.

        Chong & Forsyth (2020) fit a line through several n; here it goes through n and 4/5 n.
        """
        lever = KEPT / (1 - KEPT)
        return -self.shift * lever, self.half * np.sqrt(1 + lever / TIMES)


def resampled(measure: Callable[[Pair], float], pair: Pair, n: int) -> Resampled:
    """The error of a metric of n samples, of which `pair` compares the first ones, all or some, with real images.

    The delete-d jackknife (Shao & Wu 1989): the metric of four fifths of the samples, drawn without replacement twenty
    times, always the same rows. With replacement, a bootstrap would have samples that occur twice, which no
    covariance and no nearest neighbour takes for new ones. Real images are taken as they are.
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
    """How many samples a share's error amounts to, n at most: what its Wilson interval is of."""
    nearer = (share * n + 2) / (n + 4)  # to a half, since at 0 and 1 an error would amount to no sample
    return min(n, nearer * (1 - nearer) / error**2) if error > 0 else n


def mark(row: pd.Series, metric: str) -> str:
    """† for the Fréchet distance of a singular covariance, ‡ for that of a small sample, nothing for other metrics."""
    features = row.get("features", np.nan)
    if np.isnan(features) or "_infinity" in metric or not metric.removeprefix("c").startswith(("fid", "fd_")):
        return ""
    if row["n"] <= features:
        return " †"
    return " ‡" if row["n"] < PER_FEATURE * features else ""


def mark_notes(*rows: Iterable[str]) -> list[str]:
    """The explanation of each mark that occurs in the rows' texts."""
    text = "".join(text for row in rows for text in row)
    return [note for note in (NOTE_SINGULAR, NOTE_SMALL) if note[0] in text]
