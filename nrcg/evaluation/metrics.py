"""Metrics that compare samples with real images, by name; each is a function from a `Pair` to a float.

Its scores are METRIC_EXTRACTOR (with all training images) and cMETRIC_EXTRACTOR (with those of the target class).
"""

import numpy as np

from nrcg.evaluation.comparison import K, Pair, chunks, mean_of_others, radii
from nrcg.evaluation.frechet import FeatureStatistics, frechet_distance
from nrcg.registry import Registry

metrics = Registry("metric")
SHARES = {"precision": "samples", "recall": "images", "coverage": "images", "off_manifold": "samples"}  # shares of …
EXTRAPOLATED = "fd"  # the metric that is also extrapolated to infinitely many samples


@metrics.register("fd")
def fd(pair: Pair) -> float:
    """Fréchet distance between Gaussians with the features' means and covariances (Heusel et al. 2017, eq. 6).

    Biased upwards for few samples; with fewer samples than features the bias dominates.
    """
    n, dim = pair.samples.shape
    if n > len(pair.rows):
        return frechet_distance(statistics(pair.samples), pair.real.statistics, pair.real.root)
    mean, covariance = pair.real.statistics.gaussian()
    samples, seen = np.asarray(pair.samples, np.float64), pair.table.rotated[pair.rows]
    shift = samples.mean(axis=0) - mean
    seen -= seen.mean(axis=0)  # the squares of its singular values are the eigenvalues of Σ_r^½ Σ Σ_r^½, times n − 1
    shared = np.linalg.eigvalsh((seen @ seen.T if n < dim else seen.T @ seen) / (n - 1))
    spread = samples.var(axis=0, ddof=1).sum() + np.trace(covariance)
    return float(shift @ shift + spread - 2 * np.sqrt(shared.clip(min=0)).sum())


@metrics.register("kid")
def kid(pair: Pair) -> float:
    """Kernel distance: the unbiased squared maximum mean discrepancy, kernel (a·b / D + 1)³ (Bińkowski et al. 2018).

    Unlike the Fréchet distance, its expectation does not depend on the number of samples; it can be below 0.
    """
    return mean_of_others(pair.alike) + pair.real.alike - 2 * float(pair.table.cross[pair.rows].mean())


@metrics.register("precision")
def precision(pair: Pair) -> float:
    """Share of samples within the radius of some real image (Kynkäänniemi et al. 2019).

    Among all real images of the reference, so that it does not depend on the number of samples. With fewer real images
    the radii are larger, and so is the share.
    """
    return float((pair.distances <= pair.real.radii).any(axis=1).mean())


@metrics.register("recall")
def recall(pair: Pair) -> float:
    """Share of real images, as many as samples, within the radius of some sample (Kynkäänniemi et al. 2019)."""
    return float((pair.equal[0] <= radii(pair.own)[:, None]).any(axis=0).mean())


@metrics.register("density")
def density(pair: Pair) -> float:
    """Mean number of real images whose radius contains a sample, divided by K (Naeem et al. 2020, eq. 3)."""
    return float((pair.distances <= pair.real.radii).sum(axis=1).mean() / K)


@metrics.register("coverage")
def coverage(pair: Pair) -> float:
    """Share of real images, as many as samples, with a sample within their radius (Naeem et al. 2020, eq. 4)."""
    away, real_radii = pair.equal
    return float((away.min(axis=0) <= real_radii).mean())


@metrics.register("off_manifold")
def off_manifold(pair: Pair) -> float:
    """Share of samples farther from the nearest real image than 99 % of held-out real images are."""
    return float((pair.distances.min(axis=1) > pair.real.reach).mean())


def statistics(samples: np.ndarray) -> FeatureStatistics:
    """Statistics of N×D features."""
    found = FeatureStatistics(samples.shape[1])
    for part in chunks(samples):
        found.update(part)
    return found
