"""Inception statistics of shards and of training images against pytorch-fid's own for the same images as PNG files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid import fid_score
from pytorch_fid import inception as fid_inception

from nrcg.datasets.imageset import write_image_set
from nrcg.evaluation.extractors import extractors
from nrcg.evaluation.features import look, reference
from nrcg.evaluation.frechet import FeatureStatistics, frechet_distance
from nrcg.evaluation.metrics import statistics
from nrcg.io.shards import open_shards

CLASSES = ["plain", "striped"]


def pictures(seed, n):
    """Noise around a colour, every other one striped."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 200, (n, 1, 1, 3)) + rng.integers(-40, 40, (n, 24, 24, 3))
    images[1::2, ::3] = 255 - images[1::2, ::3]
    return images.clip(0, 255).astype(np.uint8)


def write_files(folder, images):
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return str(folder)


def write_shards(folder, images, size):
    paths = []
    for start in range(0, len(images), size):
        stop = min(start + size, len(images))
        paths.append(folder / f"shard_{start}.npy")
        np.save(paths[-1], images[start:stop])
        paths[-1].with_suffix(".json").write_text(json.dumps({"seeds": [start, stop], "diverged": []}))
    return paths


def first(features, mean, cov):
    """A part of a Gaussian, few enough features that the covariances of so few images are regular."""
    return mean[:features], cov[:features, :features]


def striped(images):
    """A classifier's logits; features alone are of interest here."""
    return images.mean((2, 3))[:, :2]


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_statistics_of_shards_and_their_distance_are_pytorch_fids(inception_weights, tmp_path, monkeypatch):
    training, samples = pictures(1, 40), pictures(2, 33)
    labels = np.arange(len(training)) % 2
    split = np.where(np.arange(len(training)) < 36, 0, 1)  # the last four are for validation: not in the reference
    data = tmp_path / "data"
    write_image_set(data, training, labels, split, name="pictures", classes=CLASSES, seed=None, parameters={})
    extractor, classifier = extractors["inception"](inception_weights, "cpu"), (striped, {"classes": CLASSES})
    real = reference(data, extractor, target=1, batch_size=16)
    ours = {"all": real.all.statistics, "target": real.target.statistics}
    shards = open_shards(write_shards(tmp_path, samples, 8))
    look(shards, guiding=classifier, judge=classifier, extractors={"inception": extractor}, out=tmp_path / "features")
    ours["samples"] = statistics(np.load(tmp_path / "features/inception.npy"))

    monkeypatch.setattr(fid_inception, "load_state_dict_from_url", lambda *_, **__: torch.load(inception_weights))
    network = fid_inception.InceptionV3([fid_inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
    images = {"all": training[:36], "target": training[1:36:2], "samples": samples}
    theirs = {
        name: fid_score.compute_statistics_of_path(write_files(tmp_path / name, part), network, 50, 2048, "cpu", 0)
        for name, part in images.items()
    }
    for name, gaussian in theirs.items():
        assert ours[name].merged()[0] == len(images[name])
        for found, expected in zip(ours[name].gaussian(), gaussian, strict=True):
            assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)
    for name in ("all", "target"):
        parts = [first(12, *ours[key].gaussian()) for key in ("samples", name)]
        parts = [FeatureStatistics.of(40, mean, covariance * 39) for mean, covariance in parts]
        expected = fid_score.calculate_frechet_distance(*first(12, *theirs["samples"]), *first(12, *theirs[name]))
        assert frechet_distance(*parts) == pytest.approx(expected, rel=1e-4)
