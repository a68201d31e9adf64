"""Streaming statistics of features, and the Fréchet distance between two of them."""

import numpy as np

from nrcg.errors import NrcgError

GATHERED = 2048  # feature vectors per merge (34 MB for Inception); a merge costs D² even for a few


class FeatureStatistics:
    """Count, mean and covariance of feature vectors with D = `dim` features.

    The float64 sums are centred on the mean, so that features far from zero lose no digits, and merged as in Chan,
    Golub & LeVeque (1983): any split into batches gives the same result up to rounding.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._sums = 0, np.zeros(dim), np.zeros((dim, dim))
        self._waiting: list[np.ndarray] = []

    def update(self, features: np.ndarray) -> None:
        """Add N×D features."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise NrcgError(f"features {features.shape}: expected N×{self.dim}; correct the extractor or its `dim`")
        if bad := np.count_nonzero(~np.isfinite(features).all(axis=1)):
            raise NrcgError(f"features of {bad} of {len(features)} images are not finite; check the weights")
        self._waiting.append(features)
        if sum(map(len, self._waiting)) >= GATHERED:
            self.merged()

    def merged(self) -> tuple[int, np.ndarray, np.ndarray]:
        """Count N, mean (float64 D) and scatter Σ (f − mean)(f − mean)ᵀ (float64 D×D) of all features so far."""
        if n := sum(map(len, self._waiting)):
            before, mean, scatter = self._sums
            features = np.concatenate(self._waiting).astype(np.float64, copy=False)
            centred = features - (new := features.mean(axis=0))
            shift, total = new - mean, before + n
            scatter += centred.T @ centred
            scatter += np.outer(shift, shift * (before * n / total))
            mean += shift * (n / total)
            self._sums, self._waiting = (total, mean, scatter), []
        return self._sums

    def gaussian(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean, and covariance with divisor N − 1 as in `np.cov`; of rank at most N − 1, so singular for N ≤ D."""
        n, mean, scatter = self.merged()
        if n < 2 or not np.isfinite(scatter).all():
            raise NrcgError(f"features of {n} images: a covariance needs at least 2, and features that do not overflow")
        return mean, scatter / (n - 1)

    def root(self) -> np.ndarray:
        """The symmetric square root of the covariance, float64 D×D."""
        values, vectors = np.linalg.eigh(self.gaussian()[1])
        return vectors * np.sqrt(values.clip(min=0)) @ vectors.T

    @classmethod
    def of(cls, n: int, mean: np.ndarray, scatter: np.ndarray) -> "FeatureStatistics":
        """Statistics from the result of `merged`."""
        found = cls(len(mean))
        found._sums = n, mean, scatter
        return found


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics, root: np.ndarray | None = None) -> float:
    """Fréchet distance between the Gaussians with these means and covariances.

        d² = ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½)        (Heusel et al. 2017, eq. 6)

    The eigenvalues of Σ_a Σ_b are those of the symmetric Σ_b^½ Σ_a Σ_b^½, which are real and at least 0. With fewer
    samples than features the covariances are singular; the distance is still exact, but biased upwards. `root` is
    Σ_b^½, if known.
    """
    if a.dim != b.dim:
        raise NrcgError(f"statistics of {a.dim} and {b.dim} features: not from the same extractor")
    (mean_a, cov_a), (mean_b, cov_b) = a.gaussian(), b.gaussian()
    root = b.root() if root is None else root
    eigenvalues = np.linalg.eigvalsh(root @ cov_a @ root).clip(min=0)
    shift = mean_a - mean_b
    return float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(eigenvalues).sum())
