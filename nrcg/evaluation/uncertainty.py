"""How sure a number is: intervals of shares, marks of distances from few samples, and the notes that explain them."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

Z95 = 1.959964  # standard deviations of a normal distribution that hold 95 %
PER_FEATURE = 10  # fewer samples per feature than this are called a small sample

NOTE_INTERVAL = "95 % Wilson intervals"
NOTE_SINGULAR = "† n ≤ number of features: the covariance is singular; compare the distance only at equal n."
NOTE_SMALL = f"‡ Small sample: fewer than {PER_FEATURE} samples per feature bias the distance upwards."


def wilson(share: ArrayLike, n: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % score interval of shares 0…1 of n samples: lower and upper ends, within 0…1; NaN where n is."""
    share, n = np.asarray(share, float), np.asarray(n, float)
    spread = Z95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)  # no end beyond by rounding


def mark(row: pd.Series) -> str:
    """† for a singular covariance, ‡ for a small sample, nothing for a share."""
    features = row.get("features", np.nan)
    if np.isnan(features):
        return ""
    if row["n"] <= features:
        return " †"
    return " ‡" if row["n"] < PER_FEATURE * features else ""


def mark_notes(*rows: Iterable[str]) -> list[str]:
    """The explanation of each mark that occurs in the rows' texts."""
    text = "".join(text for row in rows for text in row)
    return [note for note in (NOTE_SINGULAR, NOTE_SMALL) if note[0] in text]
