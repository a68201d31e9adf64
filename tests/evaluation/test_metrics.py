"""Each metric against an implementation of others, and its expectation where samples are as real images are."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from pytorch_fid.fid_score import calculate_frechet_distance
from real_images import real_of
from sklearn.neighbors import NearestNeighbors
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from nrcg.errors import NrcgError
from nrcg.evaluation import comparison
from nrcg.evaluation.comparison import K, Pair
from nrcg.evaluation.metrics import metrics

disp = pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # pytorch-fid's call of SciPy


def drawn(seed, n, dim, offset=0.0, spread=1.0):
    """float32 features, correlated the same way whatever the seed."""
    mixing = np.random.default_rng(dim).normal(size=(dim, dim)) / np.sqrt(dim)
    return (spread * np.random.default_rng(seed).normal(size=(n, dim)) @ mixing + offset).astype(np.float32)


def measured(name, samples, real):
    return metrics[name](Pair.of(samples, real))


@disp
@pytest.mark.filterwarnings("ignore:Matrix is singular")
@pytest.mark.parametrize(("n", "dim"), [(200, 12), (13, 12), (12, 12), (20, 48), (2, 48)])
def test_fd_is_pytorch_fids(n, dim):
    """Of n > D by the statistics, of n ≤ D by the inner products."""
    samples, images = drawn(1, n, dim, offset=0.2, spread=1.3), drawn(2, 500, dim)
    gaussians = [(each.mean(0), np.cov(each, rowvar=False)) for each in (samples.astype(float), images.astype(float))]
    expected = calculate_frechet_distance(*gaussians[0], *gaussians[1])
    assert measured("fd", samples, real_of(images)) == pytest.approx(expected, rel=1e-4)


def uncorrelated(seed, n, dim):
    """Features whose covariance is diagonal; beside them their means and standard deviations."""
    random, rank = np.random.default_rng(seed), min(n - 1, dim)
    values = random.normal(size=(n, rank))
    axes = np.linalg.qr(values - values.mean(0))[0]  # orthonormal, and still of mean 0
    means, deviations = random.normal(size=dim), np.append(random.uniform(1, 3, rank), np.zeros(dim - rank))
    return np.pad(axes, ((0, 0), (0, dim - rank))) * deviations * np.sqrt(n - 1) + means, means, deviations


@pytest.mark.parametrize("n", [20, 40, 300])
def test_fd_of_axes_that_are_not_correlated_is_a_sum_over_them(n):
    """The closed form of Gaussians with diagonal covariances: |μ − ν|² + Σ (σ_i − τ_i)²."""
    (samples, mu, sigma), (images, nu, tau) = uncorrelated(3, n, 40), uncorrelated(4, 500, 40)
    expected = ((mu - nu) ** 2).sum() + ((sigma - tau) ** 2).sum()
    assert measured("fd", samples.astype(np.float32), real_of(images)) == pytest.approx(expected, rel=1e-5)


def test_fd_of_a_file_is_that_of_its_features_however_they_are_streamed(tmp_path, monkeypatch):
    samples, real = drawn(4, 1234, 16, offset=0.1), real_of(drawn(5, 300, 16))
    np.save(tmp_path / "f.npy", samples)
    whole = measured("fd", samples, real)
    for chunk in (1, 7, 2000):
        monkeypatch.setattr(comparison, "CHUNK", chunk)
        assert measured("fd", np.load(tmp_path / "f.npy", mmap_mode="r"), real) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (40, 90)])
def test_kid_is_torch_fidelitys_of_one_subset_of_all(n, m):
    samples, images = drawn(6, n, 24, offset=0.3), drawn(7, m, 24)
    ours = measured("kid", samples, real_of(images))
    if n == m:
        tensors = [torch.from_numpy(each.astype(float)) for each in (samples, images)]
        theirs = kid_features_to_metric(*tensors, kid_subsets=1, kid_subset_size=n, verbose=False)
        assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)

    def mean(a, b, same=False):
        return np.mean([(x @ y / 24 + 1) ** 3 for i, x in enumerate(a) for j, y in enumerate(b) if not same or i != j])

    a, b = samples.astype(float), images.astype(float)
    assert ours == pytest.approx(mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b), rel=1e-6)


def test_kid_of_two_samples_of_one_distribution_is_zero_on_average():
    values = [measured("kid", drawn(1000 + i, 30, 8), real_of(drawn(5000 + i, 60, 8))) for i in range(400)]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3.5 * error and min(values) < -10 * error


@pytest.mark.parametrize(("offset", "spread"), [(0.0, 1.0), (0.4, 0.7), (0.0, 1.5), (3.0, 1.0)])
def test_neighbours_are_counted_as_torch_fidelity_and_prdc_do(offset, spread):
    n, dim = 80, 10
    samples, images = drawn(9, n, dim, offset, spread), drawn(10, n + 50, dim)
    real = real_of(images)
    ours = {name: measured(name, samples, real) for name in ("precision", "recall", "density", "coverage")}
    generated = samples.astype(float)
    of_all, of_equal = (compute_prdc(some.astype(float), generated, nearest_k=K) for some in (images, images[:n]))
    of_samples = {name: of_all[name] for name in ("precision", "density")}
    of_images = {name: of_equal[name] for name in ("recall", "coverage")}  # as many real images as samples
    assert ours == pytest.approx(of_samples | of_images)
    for some, name in ((images, "precision"), (images[:n], "recall")):
        tensors = torch.from_numpy(generated), torch.from_numpy(some.astype(float))
        fidelity = prc_features_to_metric(*tensors, prc_neighborhood=K, verbose=False)
        assert ours[name] == pytest.approx(fidelity[name])


def test_precision_does_not_depend_on_the_number_of_samples():
    samples, real = drawn(22, 2000, 10, 0.1, 1.2), real_of(drawn(23, 1000, 10))
    found = [np.mean([measured("precision", some, real) for some in np.split(samples, parts)]) for parts in (1, 40)]
    assert found[0] == pytest.approx(found[1], abs=0.02) and 0.4 < found[0] < 0.9


def test_a_part_of_the_samples_is_compared_with_the_same_real_images():
    """As `resampled` does: no other number of real images, no other radii."""
    samples, real = drawn(11, 60, 10, offset=0.2), real_of(drawn(12, 200, 10))
    rows = np.arange(0, 60, 2)
    part = Pair.of(samples, real).part(rows)

    def near(images):
        radii = NearestNeighbors(n_neighbors=K + 1).fit(images).kneighbors(images)[0][:, -1]
        return np.linalg.norm(samples[rows].astype(float)[:, None] - images, axis=2) <= radii

    images = real.pool.astype(float)
    assert metrics["density"](part) == pytest.approx(near(images).sum(1).mean() / K)
    assert metrics["coverage"](part) == pytest.approx(near(images[:60]).any(0).mean())


def test_off_manifold_is_the_share_beyond_what_is_normal_of_held_out_images():
    images, held_out = drawn(13, 400, 10), drawn(14, 300, 10)
    samples = np.concatenate([drawn(15, 50, 10), drawn(16, 30, 10, offset=1.5)])
    search = NearestNeighbors(n_neighbors=1).fit(images.astype(float))
    reach = np.quantile(search.kneighbors(held_out.astype(float))[0], 0.99)
    expected = (search.kneighbors(samples.astype(float))[0][:, 0] > reach).mean()
    real = real_of(images, held_out)
    assert measured("off_manifold", samples, real) == pytest.approx(expected) and 0.2 < expected < 0.6
    assert measured("off_manifold", held_out, real) == pytest.approx(0.01, abs=0.004)


@pytest.mark.parametrize("dim", [2, 8])
def test_samples_as_real_images_are_have_the_best_numbers(dim):
    """Coverage is 1 − 2^−K, since each of an image's neighbours is as likely a sample as a real one."""
    found = {name: [] for name in metrics}
    for i in range(40):
        real = real_of(drawn(100 + i, 200, dim), drawn(200 + i, 1000, dim))
        for name, values in found.items():
            values.append(measured(name, drawn(300 + i, 200, dim), real))
    mean = {name: np.mean(values) for name, values in found.items()}
    assert mean["precision"] > 0.9 and mean["recall"] > 0.9
    assert mean["coverage"] == pytest.approx(1 - 2**-K, abs=0.005)
    assert mean["density"] == pytest.approx(1, abs=0.03) and mean["off_manifold"] == pytest.approx(0.01, abs=0.004)


def test_copies_of_one_image_are_precise_and_cover_nothing():
    images = drawn(17, 100, 10)
    real, copies = real_of(images, drawn(18, 100, 10)), np.repeat(images[:1], 50, axis=0)
    found = {name: measured(name, copies, real) for name in metrics}
    assert found["precision"] == 1 and found["off_manifold"] == 0
    assert found["recall"] <= 0.02 and found["coverage"] < 0.3 and found["fd"] > 3 and found["kid"] > 0.3


def test_two_samples_have_all_metrics_and_an_unknown_one_is_refused():
    real = real_of(drawn(19, 50, 10), drawn(20, 50, 10))
    assert all(np.isfinite(measured(name, drawn(21, 2, 10), real)) for name in metrics)
    with pytest.raises(NrcgError, match="metric 'is': unknown; use one of fd, kid"):
        metrics["is"]
