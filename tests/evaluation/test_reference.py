"""References against the features of the same images, computed at once; files of them that are damaged."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from nrcg.datasets.imageset import write_image_set
from nrcg.errors import NrcgError
from nrcg.evaluation import features as references
from nrcg.evaluation.extractors import Extractor
from nrcg.evaluation.features import reference
from nrcg.evaluation.reference import Reference

CLASSES = ["red", "green", "blue"]
# the "network" gets floats in [−1, 1] and answers in 0…1, so that `colours` of the bytes is the expected feature
COLOUR = Extractor(3, lambda inputs: (inputs.double().mean((2, 3)) + 1) / 2)


def colours(images):
    return images.reshape(len(images), -1, 3).mean(axis=1) / 255


@pytest.fixture
def image_set(tmp_path):
    """Training, validation and test images of three classes."""
    random = np.random.default_rng(2)
    images = random.integers(0, 256, size=(90, 4, 4, 3), dtype=np.uint8)
    labels, split = random.integers(0, 3, size=90), np.arange(90) % 3
    write_image_set(tmp_path / "set", images, labels, split, name="s", classes=CLASSES, seed=0, parameters={})
    return tmp_path / "set", images, labels, split


def as_set(features):
    return {tuple(np.round(row, 5)) for row in features.tolist()}


@pytest.mark.parametrize("target", [0, 1])
def test_references_are_those_of_all_features_at_once(image_set, target):
    folder, images, labels, split = image_set
    found = reference(folder, COLOUR, target=target, batch_size=7)
    for real, chosen in ((found.all, labels >= 0), (found.target, labels == target)):
        train, valid = (colours(images[(split == part) & chosen]) for part in (0, 1))
        n, mean, _ = real.statistics.merged()
        assert n == len(train) and np.allclose(mean, train.mean(0))
        covariance = np.cov(train, rowvar=False)
        np.testing.assert_allclose(real.statistics.gaussian()[1], covariance, atol=1e-9)
        np.testing.assert_allclose(real.root @ real.root, covariance, atol=1e-9)
        assert real.pool.dtype == np.float32 and as_set(real.pool) == as_set(train)
        away = NearestNeighbors(n_neighbors=1).fit(train).kneighbors(valid)[0]
        assert real.reach == pytest.approx(np.quantile(away, 0.99), rel=1e-4)
        alike = [(a @ b / 3 + 1) ** 3 for i, a in enumerate(train) for j, b in enumerate(train) if i != j]
        assert real.alike == pytest.approx(np.mean(alike), rel=1e-5)


def test_pools_and_held_out_images_are_a_part_statistics_are_of_all(image_set, monkeypatch):
    folder, images, labels, split = image_set
    monkeypatch.setattr(references, "SUBSET", 5)
    monkeypatch.setattr(references, "HELD_OUT", 3)
    seen = []
    counting = Extractor(3, lambda inputs: seen.append(len(inputs)) or COLOUR.network(inputs))
    found = reference(folder, counting, target=1, batch_size=5)
    assert found.all.pool.shape == found.target.pool.shape == (5, 3)
    assert found.all.statistics.merged()[0] == 30 and found.target.statistics.merged()[0] > 5
    assert as_set(found.target.pool) < as_set(colours(images[(split == 0) & (labels == 1)]))
    assert sum(seen) == 30 + 3 + 3


def test_so_many_training_images_are_drawn_at_random_and_always_the_same(image_set):
    folder, images, labels, split = image_set
    few, again, more = (reference(folder, COLOUR, target=1, images=n, batch_size=n) for n in (15, 15, 20))
    chosen = as_set(few.all.pool)
    assert few.all.statistics.merged()[0] == 15 and chosen == as_set(again.all.pool) < as_set(more.all.pool)
    assert chosen != as_set(colours(images[split == 0][:15]))  # not the first ones, which may be of one kind
    assert as_set(few.target.pool) == chosen & as_set(colours(images[labels == 1]))


def test_saved_references_come_back(image_set, tmp_path):
    saved, path = reference(image_set[0], COLOUR, target=1), tmp_path / "r.npz"
    saved.save(path)
    loaded = Reference.load(path)
    for a, b in ((saved.all, loaded.all), (saved.target, loaded.target)):
        for x, y in zip(a.statistics.merged(), b.statistics.merged(), strict=True):
            np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(a.pool, b.pool)
        np.testing.assert_array_equal(a.root, b.root)
        assert (a.reach, a.alike) == (b.reach, b.alike) and b.pool.dtype == np.float32


def test_files_that_are_no_references_are_named(image_set, tmp_path):
    path = tmp_path / "r.npz"
    reference(image_set[0], COLOUR, target=1).save(path)
    whole, (middle, arrays) = path.read_bytes(), (len(path.read_bytes()) // 2, dict(np.load(path)))
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (whole[:middle], b"", b"text", flipped):
        path.write_bytes(damaged)
        with pytest.raises(NrcgError, match=r"r\.npz: not a complete reference \([^\n]*; delete it and make it again$"):
            Reference.load(path)
    for changed, message in (
        ({"all_pool": None}, "not a complete reference"),
        ({"target_mean": np.full(3, np.nan)}, "not a reference of finite numbers"),
        ({"target_reach": np.asarray(np.inf)}, "not a reference of finite numbers"),
        ({"all_pool": arrays["all_pool"][:, :2]}, "not a reference"),
        ({"all_root": np.eye(2)}, "not a reference"),
        ({"all_pool": arrays["all_pool"].astype(float)}, "not a reference"),
    ):
        np.savez(path, **{key: value for key, value in (arrays | changed).items() if value is not None})
        with pytest.raises(NrcgError, match=rf"r\.npz: {message}"):
            Reference.load(path)
    with pytest.raises(NrcgError, match=r"none\.npz: no such file"):
        Reference.load(tmp_path / "none.npz")


def test_a_class_without_images_is_named(image_set):
    folder, images, labels, split = image_set

    def refused(message, labels=labels, split=split, **how):
        write_image_set(folder, images, labels, split, name="s", classes=CLASSES, seed=0, parameters={})
        with pytest.raises(NrcgError, match=message):
            reference(folder, COLOUR, target=2, **how)

    refused("0 training images of class 2; a distance needs at least 2", labels=labels * 0)
    refused("0 validation images of class 2; a distance needs at least 1", split=split % 2 * 2)
    refused("training images of class 2", images=2)


def test_features_that_do_not_fit_are_named(image_set):
    for network, message in (
        (lambda inputs: inputs.mean((2, 3))[:, :2], r"features \(5, 2\): expected N×3; correct the extractor"),
        (lambda inputs: inputs.mean((1, 2, 3)), r"features \(5,\): expected N×3"),
        (lambda inputs: inputs.mean((2, 3)) / 0, "features of 5 of 5 images are not finite"),
    ):
        with pytest.raises(NrcgError, match=message):
            reference(image_set[0], Extractor(3, network), target=1, batch_size=5)
