"""Streamed statistics against NumPy's, and the Fréchet distance of two of them against pytorch-fid's."""

import numpy as np
import pytest
from pytorch_fid import fid_score

from nrcg.errors import NrcgError
from nrcg.evaluation import frechet
from nrcg.evaluation.frechet import FeatureStatistics, frechet_distance


def statistics_of(features, batch=37):
    statistics = FeatureStatistics(features.shape[1])
    for start in range(0, len(features), batch):
        statistics.update(features[start : start + batch])
    return statistics


def correlated(seed, n, dim=24, offset=0.0):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, dim)) @ random.normal(size=(dim, dim)) + offset


@pytest.mark.parametrize("gathered", [4096, 100])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_streamed_sums_are_the_mean_and_covariance(offset, gathered, monkeypatch):
    monkeypatch.setattr(frechet, "GATHERED", gathered)
    features = correlated(0, 500, offset=offset)
    statistics = statistics_of(features)
    assert statistics.merged()[0] == 500 and statistics.merged() is statistics.merged()
    mean, cov = statistics.gaussian()
    exact = features - offset  # far from zero, only what the float64 features themselves still hold can be expected
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(exact, rowvar=False), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(statistics.root() @ statistics.root(), cov, atol=1e-9)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # pytorch-fid's call of SciPy
def test_distance_is_pytorch_fids_and_the_eigenvalue_formulas():
    a, b = correlated(3, 300), correlated(4, 200, offset=0.5)
    ours = frechet_distance(statistics_of(a), statistics_of(b))
    covs = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    theirs = fid_score.calculate_frechet_distance(a.mean(0), covs[0], b.mean(0), covs[1])
    overlap = np.sqrt(np.linalg.eigvals(covs[0] @ covs[1]).real).sum()
    by_hand = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covs[0]) + np.trace(covs[1]) - 2 * overlap
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert ours == pytest.approx(by_hand, rel=1e-6)


def test_distance_of_few_or_equal_samples_is_computed_quietly(capsys, recwarn):
    few, constant = statistics_of(correlated(5, 6)), statistics_of(np.ones((9, 24)))
    mean, cov = few.gaussian()
    expected = ((mean - 1) ** 2).sum() + np.trace(cov)  # a constant has no spread to overlap with
    assert frechet_distance(few, constant) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-3)
    assert not recwarn.list and capsys.readouterr().out == ""


def test_what_has_no_distance_is_refused():
    with pytest.raises(NrcgError, match="24 and 3 features"):
        frechet_distance(statistics_of(correlated(7, 50)), statistics_of(np.ones((5, 3))))
    with pytest.raises(NrcgError, match="1 images"):
        frechet_distance(statistics_of(correlated(7, 1)), statistics_of(correlated(7, 50)))
    with np.errstate(all="ignore"), pytest.raises(NrcgError, match="do not overflow"):
        frechet_distance(statistics_of(correlated(7, 50) * 1e200), statistics_of(correlated(7, 50)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_named(value):
    features = np.random.default_rng(0).normal(size=(500, 8))
    features[3, 2] = value
    with pytest.raises(NrcgError, match=r"1 of 500 images are not finite; check the weights"):
        FeatureStatistics(8).update(features)


def test_features_of_another_shape_are_named():
    for shape in ((5, 7), (5,), (5, 8, 1)):
        with pytest.raises(NrcgError, match=r"expected N×8; correct the extractor"):
            FeatureStatistics(8).update(np.zeros(shape))
