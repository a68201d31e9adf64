"""Features of samples compared with those of real images: the basis of all metrics."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from nrcg.evaluation.frechet import FeatureStatistics

SUBSET = 5000  # samples (the first) and real images for pairwise comparison; statistics use all
CHUNK = 500  # features at a time in float64
K = 5  # a radius is the distance to the fifth neighbour, as in Naeem et al.; Kynkäänniemi et al. use 3


@dataclass(frozen=True, eq=False)
class Real:
    """D features per real image, of all classes or of the target class."""

    statistics: FeatureStatistics  # of all of them
    pool: np.ndarray  # float32 M×D, features of M ≤ SUBSET random images
    radii: np.ndarray  # float32 M, the distance of each to its K-th nearest neighbour in the pool
    reach: float  # 99 % of held-out images lie at most this far from the nearest of the pool
    root: np.ndarray  # the symmetric square root of the covariance, float64 D×D
    alike: float  # mean kernel of two different images of the pool

    @cached_property
    def lengths(self) -> np.ndarray:
        """Squared lengths of the pool, float64 M."""
        return (self.pool.astype(np.float64) ** 2).sum(axis=1)

    @lru_cache(maxsize=2)  # noqa: B019 - only a few instances, which live as long as the process
    def radii_among(self, n: int) -> np.ndarray:
        """The distance of each of the first n images of the pool to its K-th nearest neighbour among them."""
        return self.radii if n == len(self.pool) else pool_radii(self.pool[:n])


@dataclass(frozen=True, eq=False)
class Table:
    """Pairwise comparison of the first n of N samples with M real images; n is at most SUBSET and at most M."""

    distances: np.ndarray  # from each sample to each of the M real images, float32 n×M
    own: np.ndarray  # from each sample to each other, float32 n×n
    alike: np.ndarray  # kernel of each pair of samples, float32 n×n
    cross: np.ndarray  # mean kernel of each sample with all M real images, float64 n
    rotated: np.ndarray  # features of the samples times the root of the real images' covariance, float64 n×D

    @classmethod
    def of(cls, samples: np.ndarray, real: Real) -> "Table":
        """Compare N×D features with real images."""
        some = np.asarray(samples[: len(real.pool)])
        n, dim = some.shape
        lengths = (some.astype(np.float64) ** 2).sum(axis=1)
        away = np.empty((n, len(real.pool)), np.float32)
        own, alike = (np.empty((n, n), np.float32) for _ in range(2))
        cross, rotated = np.empty(n), np.empty((n, dim))
        for start, part in zip(range(0, n, CHUNK), chunks(some), strict=True):
            rows = slice(start, start + len(part))
            with_real, with_own = products(part, real.pool), products(part, some)
            away[rows] = distances(with_real, lengths[rows], real.lengths)
            cross[rows] = kernel(with_real, dim).mean(axis=1)
            own[rows], alike[rows] = distances(with_own, lengths[rows], lengths), kernel(with_own, dim)
            rotated[rows] = part @ real.root
        return cls(away, own, alike, cross, rotated)


@dataclass(frozen=True, eq=False)
class Pair:
    """N samples and real images."""

    samples: np.ndarray  # float32 N×D, perhaps a memory map
    real: Real
    table: Table
    rows: np.ndarray  # the samples' rows in the table

    @classmethod
    def of(cls, samples: np.ndarray, real: Real) -> "Pair":
        """Compare N×D features with real images."""
        table = Table.of(samples, real)
        return cls(samples, real, table, np.arange(len(table.own)))

    def part(self, rows: np.ndarray) -> "Pair":
        """A subset of the samples in the table, with the same real images."""
        return Pair(self.samples[rows], self.real, self.table, rows)

    @property
    def distances(self) -> np.ndarray:
        """Distances of each sample in the table to each real image, float32."""
        return self.table.distances[self.rows]

    @property
    def own(self) -> np.ndarray:
        """Distances between the samples in the table."""
        return self.table.own[np.ix_(self.rows, self.rows)]

    @property
    def alike(self) -> np.ndarray:
        """Kernel of each pair of samples in the table."""
        return self.table.alike[np.ix_(self.rows, self.rows)]

    @property
    def equal(self) -> tuple[np.ndarray, np.ndarray]:
        """`distances` to as many real images as there are samples in the table, and the radii among these images."""
        n = len(self.table.own)
        return self.distances[:, :n], self.real.radii_among(n)


def radii(own: np.ndarray) -> np.ndarray:
    """From distances n×n, that of each item to its K-th nearest neighbour; to the last one if n ≤ K."""
    k = min(K, len(own) - 1)
    away = own.copy()
    np.fill_diagonal(away, 0)  # the item itself sorts first
    return np.partition(away, k, axis=1)[:, k]


def pool_radii(pool: np.ndarray) -> np.ndarray:
    """The distance of each of M×D features to its K-th nearest neighbour, float32."""
    lengths = (pool.astype(np.float64) ** 2).sum(axis=1)
    return radii(distances(products(pool, pool), lengths, lengths).astype(np.float32))


def nearest(some: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """The distance of each of n×D features to the nearest of M×D."""
    lengths = (pool.astype(np.float64) ** 2).sum(axis=1)
    return distances(products(some, pool), (some.astype(np.float64) ** 2).sum(axis=1), lengths).min(axis=1)


def products(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Inner products n×M of features n×D and M×D, float64: distances are small differences of them."""
    return some.astype(np.float64) @ others.T.astype(np.float64)


def kernel(between: np.ndarray, dim: int) -> np.ndarray:
    """The polynomial kernel (a·b / D + 1)³ from inner products."""
    return (between / dim + 1) ** 3


def mean_of_others(square: np.ndarray) -> float:
    """The mean of a square matrix without its diagonal."""
    n = len(square)
    return float((square.sum(dtype=np.float64) - np.trace(square, dtype=np.float64)) / (n * (n - 1)))


def chunks(samples: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of an array as float64, CHUNK at a time."""
    for start in range(0, len(samples), CHUNK):
        yield np.asarray(samples[start : start + CHUNK], np.float64)


def distances(between: np.ndarray, lengths: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean distances from inner products, n×m, and squared lengths, n and m."""
    return np.sqrt((lengths[:, None] + others - 2 * between).clip(min=0))
