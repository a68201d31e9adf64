"""Fréchet distance of 2 048 features: ours against pytorch-fid's functions; statistics, then the distance."""

from collections.abc import Iterator

import numpy as np
import torch
from pytorch_fid.fid_score import calculate_frechet_distance

from benchmarks.measure import OURS, PLAIN, Way, Work
from nrcg.evaluation.frechet import FeatureStatistics, frechet_distance

N, FEATURES, BATCH = 16_384, 2048, 64
NO_SLOWER = "0.95 ×"  # 5 % is what equal ways may differ by


def our_statistics(features: np.ndarray) -> FeatureStatistics:
    """As scoring takes them in, batch by batch."""
    statistics = FeatureStatistics(features.shape[1])
    for start in range(0, len(features), BATCH):
        statistics.update(features[start : start + BATCH])
    statistics.merged()
    return statistics


def their_statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.mean(features, axis=0), np.cov(features, rowvar=False)


def works(size: str, device: torch.device) -> Iterator[Work]:
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=(N, FEATURES)) * rng.uniform(0.1, 2, FEATURES) for _ in range(2))
    ways: dict[str, Way] = {PLAIN: lambda: their_statistics(one), OURS: lambda: our_statistics(one)}
    floor: dict[str, Way] = {"floor: a matrix product": lambda: one.T @ one}
    yield Work(f"statistics of {N} × {FEATURES} features", ways | floor, NO_SLOWER)
    ours, theirs = [our_statistics(part) for part in (one, two)], (*their_statistics(one), *their_statistics(two))
    ways = {PLAIN: lambda: calculate_frechet_distance(*theirs), OURS: lambda: frechet_distance(*ours)}
    floor = {"floor: eigenvectors of one covariance": lambda: np.linalg.eigh(theirs[1])}
    yield Work(f"Fréchet distance, {FEATURES} features", ways | floor, NO_SLOWER, 2)
