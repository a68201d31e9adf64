"""Samples beside real images, both as features: what every metric is computed from."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from nrcg.evaluation.frechet import FeatureStatistics

SUBSET = 5000  # samples, the first, and real images that are compared one by one; statistics take in all
CHUNK = 1000  # features at a time in float64


@dataclass(frozen=True, eq=False)
class Real:
    """Real images, of all classes or of the target class, as D features each."""

    statistics: FeatureStatistics  # of all of them
    pool: np.ndarray  # float32 M×D, of M ≤ SUBSET of them, drawn at random
    reach: float  # 99 % of held-out images lie at most this far from the nearest of the pool
    root: np.ndarray  # the symmetric square root of the covariance, float64 D×D
    alike: float  # mean kernel of two different ones of the pool

    @cached_property
    def lengths(self) -> np.ndarray:
        """Squared lengths of the pool, float64 M."""
        return (self.pool.astype(np.float64) ** 2).sum(axis=1)

    @lru_cache(maxsize=2)  # noqa: B019 - a handful of them live as long as the process
    def radii(self, m: int, k: int) -> np.ndarray:
        """Of the first m of the pool, the distance of each to its k-th nearest other one."""
        return radii(products(self.pool[:m], self.pool[:m]), k)


@dataclass(frozen=True, eq=False)
class Pair:
    """N samples beside real images; the first n of them are compared one by one, with M real ones at most.

    n is at most SUBSET and at most M. Neighbours are sought among as many real images as samples, `m`, so that those of
    both mean the same.
    """

    samples: np.ndarray  # float32 N×D, perhaps a memory map
    real: Real
    cross: np.ndarray  # inner products of the n samples with the pool, float64 n×M
    own: np.ndarray  # with each other, float64 n×n
    m: int

    @classmethod
    def of(cls, samples: np.ndarray, real: Real) -> "Pair":
        """Compare N×D features with real images."""
        some = np.asarray(samples[: len(real.pool)])
        return cls(samples, real, products(some, real.pool), products(some, some), len(some))

    def part(self, rows: np.ndarray) -> "Pair":
        """Some of the n samples beside the same real images."""
        return Pair(self.samples[rows], self.real, self.cross[rows], self.own[np.ix_(rows, rows)], self.m)

    @cached_property
    def distances(self) -> np.ndarray:
        """From each of the n samples to each of the first m of the pool, n×m."""
        return distances(self.cross[:, : self.m], np.diag(self.own), self.real.lengths[: self.m])

    @property
    def nearest(self) -> np.ndarray:
        """From each of the n samples to the nearest of the whole pool."""
        return distances(self.cross, np.diag(self.own), self.real.lengths).min(axis=1)


def radii(own: np.ndarray, k: int) -> np.ndarray:
    """From inner products n×n, the distance of each to its k-th nearest other one; of the last one where n ≤ k."""
    away = distances(own, np.diag(own), np.diag(own))
    np.fill_diagonal(away, 0)  # itself, first of all
    k = min(k, len(own) - 1)
    return np.partition(away, k, axis=1)[:, k]


def nearest(some: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """The distance of each of n×D features to the nearest of M×D."""
    lengths = (pool.astype(np.float64) ** 2).sum(axis=1)
    return distances(products(some, pool), (some.astype(np.float64) ** 2).sum(axis=1), lengths).min(axis=1)


def products(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Inner products n×M of features n×D and M×D, float64: distances are small differences of them."""
    return np.concatenate([part @ others.T.astype(np.float64) for part in chunks(some)])


def kernel(between: np.ndarray, dim: int) -> np.ndarray:
    """The polynomial kernel (a·b / D + 1)³ from inner products."""
    return (between / dim + 1) ** 3


def mean_of_others(square: np.ndarray) -> float:
    """The mean of a square matrix without its diagonal."""
    n = len(square)
    return float((square.sum() - np.trace(square)) / (n * (n - 1)))


def chunks(samples: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of an array as float64, CHUNK at a time."""
    for start in range(0, len(samples), CHUNK):
        yield np.asarray(samples[start : start + CHUNK], np.float64)


def distances(between: np.ndarray, lengths: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean distances from inner products, n×m, and squared lengths, n and m."""
    return np.sqrt((lengths[:, None] + others - 2 * between).clip(min=0))
