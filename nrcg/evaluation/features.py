"""Verdicts of classifiers about samples, and features of extractors."""

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
from nrcg.evaluation.extractors import Extractor
from nrcg.io.arrays import read_array, write_array_batches
from nrcg.io.images import to_float
from nrcg.io.shards import Shard
from nrcg.io.tables import VERDICTS
from nrcg.models.classifier import predictions
from nrcg.runtime.memory import BatchLimit

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
        return {name: predictions(model(inputs)).cpu().numpy() for name, (model, _) in classifiers.items()}

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
