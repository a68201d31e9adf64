"""Statistics of features that merge over batches and shards, and the Fréchet distance between two of them."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nrcg.errors import NrcgError
from nrcg.io.arrays import UNREADABLE
from nrcg.io.files import atomic

GATHERED = 4096  # feature vectors, 34 MB of Inception's


@dataclass
class FeatureStatistics:
    """Count, mean and scatter of features, all that a Fréchet distance needs; memory does not grow with the count.

    n        number of feature vectors seen
    mean     float64 D
    scatter  float64 D×D, Σ (f − mean)(f − mean)ᵀ

    The sums are kept about the mean, not about zero, so that features far from zero lose no digits, and merged by
    Chan, Golub & LeVeque (1983): any split into batches and shards gives the same result up to rounding.
    """

    n: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def empty(cls, dim: int) -> "FeatureStatistics":
        """Statistics of nothing, to be updated."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    def update(self, features: np.ndarray) -> None:
        """Take in N×D features, in place. Raises ValueError for another D, NrcgError for values that are not finite."""
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ValueError(f"features {features.shape}: expected N×{len(self.mean)}")
        if len(features) == 0:
            return
        bad = np.count_nonzero(~np.isfinite(features).all(axis=1))
        if bad:
            raise NrcgError(
                f"features of {bad} of {len(features)} images are not finite; look for damaged images, and for damaged "
                "weights of the network that computes them"
            )
        features = features.astype(np.float64, copy=False)
        mean = features.mean(axis=0)
        centred = features - mean
        self._merge(len(features), mean, centred.T @ centred)

    def __add__(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """Statistics of both; neither is changed."""
        if len(self.mean) != len(other.mean):
            raise ValueError(f"statistics of {len(self.mean)} and of {len(other.mean)} features do not merge")
        merged = FeatureStatistics(self.n, self.mean.copy(), self.scatter.copy())
        if other.n:
            merged._merge(other.n, other.mean, other.scatter)
        return merged

    def _merge(self, n: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        total = self.n + n
        shift = mean - self.mean
        self.scatter += scatter
        self.scatter += np.outer(shift, shift * (self.n * n / total))
        self.mean += shift * (n / total)
        self.n = total

    @property
    def cov(self) -> np.ndarray:
        """Covariance D×D by N − 1, as `np.cov`. Of rank N − 1 at most: singular for N ≤ D."""
        if self.n < 2:
            raise NrcgError(f"features of {self.n} images: a covariance needs at least 2")
        return self.scatter / (self.n - 1)

    def save(self, path: str | Path) -> None:
        """Write as .npz, atomically."""
        with atomic(path) as file:
            np.savez(file, n=self.n, mean=self.mean, scatter=self.scatter)

    @classmethod
    def load(cls, path: str | Path) -> "FeatureStatistics":
        """Read what `save` wrote; raises NrcgError naming a file that is missing, truncated or something else."""
        try:
            with np.load(path, allow_pickle=False) as arrays:  # its format has a checksum for each array
                n, mean, scatter = int(arrays["n"]), arrays["mean"], arrays["scatter"]
        except FileNotFoundError:
            raise NrcgError(f"{path}: no such file") from None
        except (*UNREADABLE, OSError, LookupError, AttributeError, NotImplementedError, zlib.error) as error:
            raise NrcgError(f"{path}: not complete feature statistics ({error}); delete it and make it again") from None
        fits = n >= 0 and mean.ndim == 1 and scatter.shape == 2 * mean.shape
        if not (fits and all(a.dtype == np.float64 and np.isfinite(a).all() for a in (mean, scatter))):
            raise NrcgError(f"{path}: not feature statistics of finite numbers; delete it and make it again")
        return cls(n, mean, scatter)


class GatheredStatistics:
    """Feature statistics of many small batches. A merge costs D² however small the batch, so they wait."""

    def __init__(self, dim: int) -> None:
        self._merged, self._waiting = FeatureStatistics.empty(dim), []

    def update(self, features: np.ndarray) -> None:
        """Take in N×D features. Raises the errors of `FeatureStatistics.update`, sooner or later."""
        self._waiting.append(features)
        if sum(map(len, self._waiting)) >= GATHERED:
            self._merge_waiting()

    def result(self) -> FeatureStatistics:
        """The statistics of all that was taken in."""
        self._merge_waiting()
        return self._merged

    def _merge_waiting(self) -> None:
        if self._waiting:
            self._merged.update(np.concatenate(self._waiting))
            self._waiting.clear()


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Fréchet distance between the Gaussians with these means and covariances.

        d² = ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½)        (Heusel et al. 2017, eq. 6)

    The eigenvalues of Σ_a Σ_b are those of the symmetric Σ_a^½ Σ_b Σ_a^½, which are real and at least 0. With fewer
    samples than features the covariances are singular; the number is then still exact, but biased upwards. Raises
    NrcgError when the dimensions differ, for fewer than 2 samples, and for statistics that are not finite.
    """
    if len(a.mean) != len(b.mean):
        raise NrcgError(f"statistics of {len(a.mean)} and of {len(b.mean)} features: not of the same extractor")
    if not all(np.isfinite(array).all() for array in (a.mean, b.mean, a.cov, b.cov)):
        raise NrcgError(
            "Fréchet distance: the statistics are not finite; look for damaged weights of the network that computes "
            "the features, and compute them again"
        )
    values, vectors = np.linalg.eigh(a.cov)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ b.cov @ root).clip(min=0)
    shift = a.mean - b.mean
    return float(shift @ shift + np.trace(a.cov) + np.trace(b.cov) - 2 * np.sqrt(eigenvalues).sum())
