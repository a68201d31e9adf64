"""Verdicts of classifiers about samples, and features of samples and real images."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from nrcg.checks import shown_size, sides
from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError
from nrcg.evaluation.comparison import SUBSET, Real, kernel, mean_of_others, nearest, pool_radii, products
from nrcg.evaluation.extractors import Extractor
from nrcg.evaluation.frechet import FeatureStatistics
from nrcg.evaluation.reference import PARTS, Reference
from nrcg.io.arrays import read_array, write_array_batches
from nrcg.io.images import to_float
from nrcg.io.shards import Shard
from nrcg.io.tables import VERDICTS
from nrcg.models.classifier import predictions
from nrcg.rng import keyed_generator
from nrcg.runtime.memory import BatchLimit

HELD_OUT = 1000  # validation images, at most, for the distribution of distances to training images
NORMAL = 0.99  # share of these images within `reach`
Classifier = tuple[nn.Module, dict[str, Any]]  # the module in eval mode, and its card


def look(
    samples: Sequence[Shard],
    *,
    guiding: Classifier,
    judge: Classifier,
    extractors: Mapping[str, Extractor],
    out: str | Path,
    also: Mapping[str, Classifier] | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Classify samples and extract features, `batch_size` at a time; memory does not grow with their number.

    Args:
        samples: in the order of their seeds.
        guiding: the guiding classifier; for unguided samples, the classifier of the paper's accuracy.
        judge: an independent classifier, since guided samples can fool the guiding one.
        extractors: extractors by name.
        out: folder for one NAME.npy per extractor, float32 N×D.
        also: further classifiers by name.

    Returns:
        One row per sample, by ascending seed: VERDICTS and `also`, as class names; blank for diverged samples.

    Raises:
        NrcgError: for classifiers with different classes, or for another image size.
    """
    classifiers, classes = {"guiding": guiding, "judge": judge, **(also or {})}, judge[1]["classes"]
    if taken := (also or {}).keys() & set(VERDICTS):
        raise NrcgError(f"also: {taken.pop()!r} is already a column of the verdicts; choose another name")
    size = samples[0].images.shape[1:3]
    for name, (_, card) in classifiers.items():
        if card["classes"] != classes:
            raise NrcgError(f"classes {card['classes']} of the {name} classifier, {classes} of the judge")
        if "size" in card and sides(card["size"]) != size:
            own, given = shown_size(card["size"]), shown_size(size)
            raise NrcgError(f"{samples[0].path}: images of {given} pixels; the {name} classifier was trained on {own}")
    found: dict[str, list[np.ndarray]] = {name: [] for name in classifiers}
    n, limit = sum(len(shard.seeds) for shard in samples), BatchLimit("scoring", batch_size)

    @torch.inference_mode()
    def judged(images: np.ndarray) -> dict[str, np.ndarray]:
        inputs = to_float(images, device)
        found = {name: predictions(model(inputs)) for name, (model, _) in classifiers.items()}
        return {name: classes.cpu().numpy() for name, classes in found.items()}  # once all are under way on a GPU

    for _, predicted in _batches(judged, samples, limit, "classes"):
        for name, indices in predicted.items():
            found[name].append(np.array(classes)[indices])
    for name, extractor in extractors.items():

        def features(extractor: Extractor = extractor, name: str = name) -> Iterator[np.ndarray]:
            for _, vectors in _batches(extractor, samples, limit, f"features, {name}"):
                if vectors.shape[1:] != (extractor.dim,):
                    raise NrcgError(
                        f"extractor {name}: features {vectors.shape}, not N×{extractor.dim}; correct its `dim`"
                    )
                if bad := np.count_nonzero(~np.isfinite(vectors).all(axis=1)):
                    raise NrcgError(f"extractor {name}: features of {bad} of {len(vectors)} images are not finite")
                yield vectors.astype(np.float32)

        write_array_batches(Path(out, f"{name}.npy"), features(), (n, extractor.dim), np.float32)
    diverged = np.concatenate([shard.diverged for shard in samples])
    verdicts = pd.DataFrame({"seed": [seed for shard in samples for seed in shard.seeds], "diverged": diverged})
    for name, batches in found.items():
        verdicts[name] = np.where(diverged, "", np.concatenate(batches))
    return verdicts


def _batches(work: Any, samples: Sequence[Shard], limit: BatchLimit, what: str) -> Iterator[tuple[np.ndarray, Any]]:
    """(images, work(images)) of all samples in order."""
    with tqdm(total=sum(len(shard.seeds) for shard in samples), desc=what, unit="image") as bar:
        for shard in samples:
            images = read_array(shard.path) if shard.path.suffix == ".npy" else shard.images
            for batch, result in limit.each(work, images):  # from a separate memory map, freed after each shard
                yield batch, result
                bar.update(len(batch))


def held_out(folder: str | Path, n: int, target: int) -> Shard:
    """The first n validation images of a class as if they were samples with seeds 0 to n − 1: an upper bound."""
    image_set = ImageSet.open(folder)
    chosen = image_set.indices("valid", target)[:n]
    if not len(chosen):
        raise NrcgError(f"{folder}: no validation images of class {target} to compare samples with")
    return Shard(Path(folder), image_set.images[chosen], range(len(chosen)), np.zeros(len(chosen), bool))


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
        reals.append(Real(statistics[i], pools[i], pool_radii(pools[i]), float(reach), statistics[i].root(), alike))
    return Reference(*reals)


def _shuffled(image_set: ImageSet, split: str) -> np.ndarray:
    """The positions of a split's images in a random order that depends only on their number."""
    indices = image_set.indices(split)
    return indices[torch.randperm(len(indices), generator=keyed_generator(f"reference: {split}")).numpy()]
