"""Verdicts and features against direct predictions, whatever the batches and the order of the shards."""

import json
import tracemalloc

import numpy as np
import pytest
import torch

from nrcg.datasets.imageset import write_image_set
from nrcg.errors import NrcgError
from nrcg.evaluation.extractors import Extractor
from nrcg.evaluation.features import held_out, look
from nrcg.io.files import sha256
from nrcg.io.shards import open_shards

CLASSES = ["red", "green", "blue"]
DIVERGED = [103, 115]
COLOUR = Extractor(3, lambda inputs: (inputs.double().mean((2, 3)) + 1) * 127.5)


class Brightest(torch.nn.Module):
    """Logits of the three colours; with `shift` that of the colour after."""

    def __init__(self, shift=0):
        super().__init__()
        self.shift = shift

    def forward(self, images):
        return images.mean((2, 3)).roll(self.shift, dims=1)


@pytest.fixture
def shards(tmp_path):
    """20 random images as seeds 100…119, the later shard first."""
    images = np.random.default_rng(3).integers(0, 256, size=(20, 4, 4, 3), dtype=np.uint8)
    images[[seed - 100 for seed in DIVERGED]] = 128
    paths = [tmp_path / "late.npy", tmp_path / "early.npy"]
    for path, (start, stop) in zip(paths, [(113, 120), (100, 113)], strict=True):
        np.save(path, images[start - 100 : stop - 100])
        card = {"seeds": [start, stop], "diverged": [seed for seed in DIVERGED if start <= seed < stop]}
        path.with_suffix(".json").write_text(json.dumps({**card, "sha256": sha256(path)}))
    return paths, images


def colours(images):
    return images.reshape(len(images), -1, 3).mean(axis=1)


def seen(shards, out, shifts=(1, 0), **how):
    guiding, judge = ((Brightest(shift), {"classes": CLASSES}) for shift in shifts)
    return look(open_shards(shards), **{"guiding": guiding, "judge": judge, "extractors": {}, "out": out} | how)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_verdicts_are_the_largest_logits_by_seed(shards, tmp_path, batch_size):
    paths, images = shards
    table = seen(paths, tmp_path, extractors={"colour": COLOUR, "twice": COLOUR}, batch_size=batch_size)
    assert list(table.columns) == ["seed", "diverged", "guiding", "judge"]
    assert table["seed"].tolist() == list(range(100, 120))
    assert table["seed"][table["diverged"]].tolist() == DIVERGED
    brightest = colours(images).argmax(axis=1)
    for row in table.itertuples():
        colour = brightest[row.seed - 100]
        expected = (CLASSES[(colour + 1) % 3], CLASSES[colour])
        assert (row.guiding, row.judge) == (("", "") if row.seed in DIVERGED else expected)
    assert set(CLASSES) <= set(table["judge"])
    for name in ("colour", "twice"):  # in the order of the seeds, diverged ones too
        found = np.load(tmp_path / f"{name}.npy")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, colours(images), rtol=1e-5)


def test_other_classifiers_see_the_samples_too(shards, tmp_path):
    paths, images = shards
    robust = Brightest(2), {"classes": CLASSES}
    table = seen(paths, tmp_path, also={"robust": robust})
    assert list(table.columns) == ["seed", "diverged", "guiding", "judge", "robust"]
    brightest = colours(images).argmax(axis=1)
    for row in table[~table["diverged"]].itertuples():
        assert row.robust == CLASSES[(brightest[row.seed - 100] + 2) % 3]
    assert not table["robust"][table["diverged"]].any()
    assert seen(paths, tmp_path).equals(table.drop(columns="robust"))


def test_a_name_that_is_taken_or_other_classes_or_sizes_are_refused(shards, tmp_path):
    one = Brightest(), {"classes": CLASSES}
    for how, message in (
        ({"also": {"judge": one}}, "'judge' is already a column"),
        ({"also": {"robust": (Brightest(), {"classes": CLASSES[::-1]})}}, "of the robust classifier"),
        ({"judge": (Brightest(), {"classes": ["x", "y", "z"]})}, "of the judge"),
        ({"judge": (Brightest(), {"classes": CLASSES, "size": 32})}, r"early\.npy: images of 4×4 .* on 32×32"),
    ):
        with pytest.raises(NrcgError, match=message):
            seen(shards[0], tmp_path / "features", **how)
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda inputs: inputs.mean((2, 3)) / 0, r"extractor x: features of 5 of 5 images are not finite"),
        (lambda inputs: inputs.mean((2, 3))[:, :2], r"extractor x: features \(5, 2\), not N×3; correct its `dim`"),
        (lambda inputs: inputs.mean((1, 2, 3)), r"extractor x: features \(5,\), not N×3"),
    ],
)
def test_features_that_do_not_fit_are_refused_and_leave_no_file(shards, tmp_path, network, message):
    with pytest.raises(NrcgError, match=message):
        seen(shards[0], tmp_path / "features", extractors={"x": Extractor(3, network)}, batch_size=5)
    assert not list((tmp_path / "features").iterdir())


def test_held_out_images_of_the_target_class_are_seen_as_samples_are(tmp_path):
    random = np.random.default_rng(4)
    images, labels = random.integers(0, 256, (40, 4, 4, 3), dtype=np.uint8), np.arange(40) % 3
    split = (np.arange(40) >= 10).astype(np.uint8)
    write_image_set(tmp_path / "set", images, labels, split, name="s", classes=CLASSES, seed=0, parameters={})
    shard, chosen = held_out(tmp_path / "set", 6, 1), np.flatnonzero((labels == 1) & (split == 1))[:6]
    np.testing.assert_array_equal(shard.images, images[chosen])
    one = Brightest(), {"classes": CLASSES}
    table = look([shard], guiding=one, judge=one, extractors={"colour": COLOUR}, out=tmp_path, batch_size=4)
    assert table["seed"].tolist() == list(range(6)) and not table["diverged"].any()
    np.testing.assert_allclose(np.load(tmp_path / "colour.npy"), colours(images[chosen]), rtol=1e-5)
    assert len(held_out(tmp_path / "set", 1000, 1).images) == 10
    write_image_set(tmp_path / "set", images, labels * 0, split, name="s", classes=CLASSES, seed=0, parameters={})
    with pytest.raises(NrcgError, match=r"set: no validation images of class 1 to compare"):
        held_out(tmp_path / "set", 6, 1)


def test_memory_does_not_grow_with_the_samples(tmp_path):
    class Pixels:  # in NumPy's memory, which is traced; torch's is not
        dim = 512

        def __call__(self, images):
            return images.reshape(len(images), -1)[:, :512].astype(float)

    images, peaks = np.random.default_rng(0).integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8), []
    for n in (200, 2000):
        path = tmp_path / f"{n}.npy"
        np.save(path, images[:n])
        path.with_suffix(".json").write_text(json.dumps({"seeds": [0, n], "diverged": []}))
        tracemalloc.start()
        seen([path], tmp_path, extractors={"pixels": Pixels()})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1800 * 1000  # pixels are 3 072 bytes an image, features 4 096; seeds and verdicts stay
