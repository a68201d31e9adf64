"""Intervals hold what they are of as often as they say: 95 of 100 times, of samples whose distribution is known.

The real images stay the same and the samples are drawn again and again, since intervals are for the error of sampling.
"""

import numpy as np
import pytest
from pytorch_fid.fid_score import calculate_frechet_distance
from real_images import real_of
from scipy import stats

from nrcg.evaluation.comparison import Pair
from nrcg.evaluation.metrics import SHARES, metrics
from nrcg.evaluation.uncertainty import effective, resampled, wilson

TIMES = 150  # 95 % of so many have a standard error of 1.8 %, and 0.90 is three of them away


class World:
    """M real images, Gaussian of D features whose variances fall off; samples are of a mixture that is off."""

    def __init__(self, dim, images=300, seed=0):
        self.random = np.random.default_rng([seed, dim])
        self.axes = np.exp(-2 * np.arange(dim) / dim)
        self.real = real_of(self.random.normal(size=(images, dim)) * self.axes)

    def samples(self, n):
        """Half of them are elsewhere."""
        values = self.random.normal(size=(n, len(self.axes)))
        off = self.random.random((n, 1)) < 0.5
        return (np.where(off, 1.2 * values + 0.8, 0.9 * values) * self.axes).astype(np.float32)

    def mean(self, name, n, times=300):
        return np.mean([metrics[name](Pair.of(self.samples(n), self.real)) for _ in range(times)])


def interval(name, pair, n):
    """As `nrcg measure score` writes it."""
    value, again = metrics[name](pair), resampled(metrics[name], pair, n)
    if name in SHARES:
        return wilson(value, effective(value, again.error, n))
    return value - again.half, value + again.half


@pytest.mark.parametrize(("n", "dim"), [(48, 64), (256, 16)])
@pytest.mark.parametrize("name", ["fd", "kid", "density", "coverage", "recall"])
def test_intervals_hold_the_mean_of_other_samples(name, n, dim):
    world = World(dim)
    expected = world.mean(name, n)
    ends = [interval(name, Pair.of(world.samples(n), world.real), n) for _ in range(TIMES)]
    held = np.mean([low <= expected <= high for low, high in ends])
    assert 0.90 <= held <= 1


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # pytorch-fid's call of SciPy
@pytest.mark.parametrize(("n", "compared"), [(64, 64), (256, 256), (1024, 128)])
def test_fd_of_infinitely_many_samples_is_that_of_their_distribution(n, compared):
    """Also where n samples are more than are compared one by one."""
    dim = 16
    random, axes = np.random.default_rng(n), np.exp(-2 * np.arange(dim) / dim)
    images = random.normal(size=(compared, dim)) * axes
    real, mean, spread = real_of(images), 0.2 * axes, 1.2 * axes
    expected = calculate_frechet_distance(mean, np.diag(spread**2), images.mean(0), np.cov(images, rowvar=False))
    found, halves = [], []
    for _ in range(TIMES):
        pair = Pair.of((mean + random.normal(size=(n, dim)) * spread).astype(np.float32), real)
        value, (added, half) = metrics["fd"](pair), resampled(metrics["fd"], pair, n).limit
        found.append(value + added - expected)
        halves.append(half)
    assert 0.90 <= np.mean(np.abs(found) <= halves) <= 1
    assert abs(np.mean(found)) < 3.5 * np.std(found) / np.sqrt(TIMES)


def test_an_interval_of_a_mean_is_that_of_its_standard_error():
    """The jackknife of a mean is exact but for its twenty draws, and that of more samples is smaller by √n."""
    random, real = np.random.default_rng(1), real_of(np.random.default_rng(2).normal(size=(60, 3)))

    def mean(pair):
        return float(pair.samples[:, 0].mean())

    ratios, times = [], []
    for _ in range(300):
        pair = Pair.of(random.exponential(size=(60, 3)).astype(np.float32), real)
        error = resampled(mean, pair, 60).error
        ratios.append(error**2 / (pair.samples[:, 0].var(ddof=1) / 60))
        times.append(error / resampled(mean, pair, 240).error)
    assert np.mean(ratios) == pytest.approx(1, abs=0.06) and np.allclose(times, 2)


def test_two_samples_have_no_interval():
    pair = Pair.of(np.eye(2, 3, dtype=np.float32), real_of(np.random.default_rng(3).normal(size=(9, 3))))
    assert np.isnan(resampled(metrics["kid"], pair, 2)).all()


@pytest.mark.parametrize("n", [10, 48, 256])
def test_wilsons_interval_is_scipys_and_holds_95_percent(n):
    hits = np.arange(n + 1)
    low, high = wilson(hits / n, n)
    theirs = [stats.binomtest(int(k), n).proportion_ci(method="wilson") for k in hits]
    np.testing.assert_allclose(np.stack([low, high], 1), theirs, atol=1e-7)
    shares = np.linspace(0.1, 0.9, 161)
    inside = (low <= shares[:, None]) & (shares[:, None] <= high)
    held = (stats.binom.pmf(hits, n, shares[:, None]) * inside).sum(1)
    assert held.mean() == pytest.approx(0.95, abs=0.006) and held.min() > 0.90


def test_a_share_with_a_larger_error_counts_as_fewer_samples():
    assert effective(0.5, 0.1, 100) == pytest.approx(25)  # √(0.25 / 25) = 0.1
    low, high = wilson(0.5, effective(0.5, 0.04, 1000))
    assert high - low == pytest.approx(2 * 1.96 * 0.04, rel=0.02)
    assert effective(0.5, 0.01, 100) == 100 and effective(0.3, 0.0, 100) == 100 and effective(0.3, np.nan, 100) == 100
    for share in (0.0, 1.0):
        assert 1 < effective(share, 0.05, 100) < 100
