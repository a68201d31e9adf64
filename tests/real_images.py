"""Features that stand for real images, as `nrcg measure reference` would leave them."""

import numpy as np

from nrcg.evaluation.comparison import SUBSET, Real, kernel, mean_of_others, nearest, pool_radii, products
from nrcg.evaluation.frechet import FeatureStatistics


def real_of(features: np.ndarray, held_out: np.ndarray | None = None) -> Real:
    """Real images of N×D features; `held_out` ones say how far from them is normal."""
    statistics = FeatureStatistics(features.shape[1])
    statistics.update(features)
    pool = features[:SUBSET].astype(np.float32)
    reach = np.nan if held_out is None else float(np.quantile(nearest(held_out, pool), 0.99))
    alike = mean_of_others(kernel(products(pool, pool), pool.shape[1]))
    return Real(statistics, pool, pool_radii(pool), reach, statistics.root(), alike)
