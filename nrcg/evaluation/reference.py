"""Reference features: the training images of a data set as seen by an extractor, for comparison with samples."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError
from nrcg.evaluation.comparison import SUBSET, Real, kernel, mean_of_others, nearest, products
from nrcg.evaluation.extractors import Extractor
from nrcg.evaluation.frechet import FeatureStatistics
from nrcg.io.arrays import UNREADABLE
from nrcg.io.files import atomic
from nrcg.rng import keyed_generator
from nrcg.runtime.memory import BatchLimit

HELD_OUT = 1000  # validation images, at most, for the distribution of distances to training images
NORMAL = 0.99  # share of these images within `reach`
PARTS = ("all", "target")
KEYS = {"n": np.int64, "mean": np.float64, "scatter": np.float64, "pool": np.float32, "reach": np.float64,
        "root": np.float64, "alike": np.float64}  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """Real images of all classes and of the target class."""

    all: Real
    target: Real

    def save(self, path: str | Path) -> None:
        arrays = {}
        for part, real in zip(PARTS, (self.all, self.target), strict=True):
            values = (*real.statistics.merged(), real.pool, real.reach, real.root, real.alike)
            arrays |= {f"{part}_{key}": np.asarray(value, KEYS[key]) for key, value in zip(KEYS, values, strict=True)}
        with atomic(path) as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Reference":
        """Read a file of `save`."""
        try:
            with np.load(path, allow_pickle=False) as arrays:  # the format has one checksum per array
                parts = [{key: arrays[f"{part}_{key}"] for key in KEYS} for part in PARTS]
        except FileNotFoundError:
            raise NrcgError(f"{path}: no such file") from None
        except (*UNREADABLE, OSError, LookupError, AttributeError, NotImplementedError, zlib.error) as error:
            raise NrcgError(f"{path}: not a complete reference ({error}); delete it and make it again") from None
        for found in parts:
            dim = found["mean"].shape
            fits = len(dim) == 1 and found["scatter"].shape == 2 * dim and found["pool"].shape[1:] == dim
            fits = fits and found["root"].shape == 2 * dim
            if not fits or any(found[key].dtype != t or not np.isfinite(found[key]).all() for key, t in KEYS.items()):
                raise NrcgError(f"{path}: not a reference of finite numbers; delete it and make it again")
        return cls(*map(_real, parts))


def _real(found: dict[str, np.ndarray]) -> Real:
    statistics = FeatureStatistics.of(int(found["n"]), found["mean"], found["scatter"])
    return Real(statistics, found["pool"], float(found["reach"]), found["root"], float(found["alike"]))


def reference(
    folder: str | Path, extractor: Extractor, *, target: int, images: int = 0, batch_size: int = 64
) -> Reference:
    """Reference features of the training images of an image set.

    Args:
        folder: folder of the image set.
        target: index of the target class.
        images: maximum number of training images, chosen at random; 0 means all.
        batch_size: images per batch.

    Raises:
        NrcgError: if the target class has fewer than two training images or no validation image.
    """
    image_set = ImageSet.open(folder)
    train, valid = (_shuffled(image_set, split) for split in ("train", "valid"))
    train = train[: images or None]
    for name, found, least in (("training", train, 2), ("validation", valid, 1)):
        if (n := (image_set.labels[found] == target).sum()) < least:
            raise NrcgError(f"{folder}: {n} {name} images of class {target}; a distance needs at least {least}")
    statistics, pools = (
        [FeatureStatistics(extractor.dim) for _ in PARTS],
        [np.zeros((0, extractor.dim), np.float32)] * 2,
    )
    limit = BatchLimit("reference features", batch_size)
    with tqdm(total=len(train), desc=limit.what, unit="image") as bar:
        for batch, found in limit.each(lambda batch: extractor(image_set.images[batch]), train):
            for i, features in enumerate((found, found[image_set.labels[batch] == target])):
                statistics[i].update(features)
                pools[i] = np.concatenate([pools[i], features[: SUBSET - len(pools[i])].astype(np.float32)])
            bar.update(len(batch))
    reals = []
    for i, chosen in enumerate((valid, valid[image_set.labels[valid] == target])):
        held_out = [found for _, found in limit.each(lambda b: extractor(image_set.images[b]), chosen[:HELD_OUT])]
        reach = np.quantile(nearest(np.concatenate(held_out).astype(np.float32), pools[i]), NORMAL)
        alike = mean_of_others(kernel(products(pools[i], pools[i]), extractor.dim))
        reals.append(Real(statistics[i], pools[i], float(reach), statistics[i].root(), alike))
    return Reference(*reals)


def _shuffled(image_set: ImageSet, split: str) -> np.ndarray:
    """The positions of a split's images in a random order that depends only on their number."""
    indices = image_set.indices(split)
    return indices[torch.randperm(len(indices), generator=keyed_generator(f"reference: {split}")).numpy()]
