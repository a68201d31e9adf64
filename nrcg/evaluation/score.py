"""The scores of one point (data set, setup, scale): accuracies and Fréchet distances of its sample shards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError
from nrcg.evaluation.collect import SCORE_COLUMNS
from nrcg.evaluation.extractors import Extractor
from nrcg.evaluation.frechet import FeatureStatistics, GatheredStatistics, frechet_distance
from nrcg.io.images import to_float
from nrcg.io.shards import open_shards, read_batches, verify
from nrcg.models.classifier import predictions
from nrcg.runtime.memory import BatchLimit

# Distance to all training images, and to those of the target class. Only Inception's are an FID.
DISTANCES = {"inception": ("fid", "cfid"), "judge": ("fd_judge", "cfd_judge")}

VERDICTS = ("seed", "diverged", "guiding", "judge")  # columns that verdicts always have

Classifier = tuple[nn.Module, dict[str, Any]]  # the module in eval mode, and its card
Reference = tuple[Extractor, FeatureStatistics, FeatureStatistics]  # of all training images, of the target class


def reference_statistics(
    folder: str | Path, extractor: Extractor, *, target: int | None = None, batch_size: int = 64
) -> FeatureStatistics:
    """Statistics of the training images of an image set: of all (target None) or of class `target` alone.

    Images are read `batch_size` at a time, or fewer where the device's memory does not hold them. Raises NrcgError when
    there are fewer than two.
    """
    image_set = ImageSet.open(folder)
    indices = image_set.indices("train", target)
    if len(indices) < 2:
        of_class = "" if target is None else f" of class {target}"
        raise NrcgError(f"{folder}: {len(indices)} training images{of_class}; a Fréchet distance needs at least 2")
    gathered = GatheredStatistics(extractor.dim)
    limit = BatchLimit(f"{extractor.name} features", batch_size)
    with tqdm(total=len(indices), desc=limit.what, unit="image") as bar:
        for batch, found in limit.each(lambda batch: extractor(image_set.images[batch]), indices):
            gathered.update(found)
            bar.update(len(batch))
    return gathered.result()


@dataclass(frozen=True)
class Scores:
    """What `score` found.

    metrics   one row per metric: metric, value, stderr, n, n_diverged, features
    verdicts  one row per sample, upwards by seed: seed, diverged, and the class names that `guiding`, `judge` and the
              classifiers in `also` give it, blank for one that diverged
    """

    metrics: pd.DataFrame
    verdicts: pd.DataFrame


def score(
    shards: Sequence[str | Path],  # sample shards NAME.npy, each with its NAME.json
    *,
    target: int,  # class that the guidance aimed at
    guiding: Classifier,  # whose verdict is the paper's accuracy
    judge: Classifier,  # an independent one: a guided sample can fool the classifier it was guided by
    references: Mapping[str, Reference],  # by extractor name, see DISTANCES
    also: Mapping[str, Classifier] | None = None,  # further classifiers by name, whose accuracy is `accuracy/NAME`
    batch_size: int = 64,
    device: torch.device | str = "cpu",  # where all classifiers are
) -> Scores:
    """Score the samples of a point. The metrics are

    accuracy             share of samples that `guiding` assigns to the target class
    accuracy/NAME        the same by the classifier NAME of `also`: samples without guidance are compared with guided
                         ones of several classifiers, each by its own
    accuracy_judge       the same by `judge`
    judge_share/CLASS    share that `judge` assigns to CLASS, for every class
    fid, cfid            Fréchet distance of Inception features to all training images, to the target class's
    fd_judge, cfd_judge  the same of the judge's features

    Every share is of all n samples, the diverged ones included. These belong to no class, whatever a classifier
    makes of their mid-grey: they count as misses, and the judge's shares sum to 1 − n_diverged / n. Distances take
    in every image as it is, mid-grey too. `stderr` is the binomial √(p(1 − p)/n), missing for distances. `features`
    is the number of features of a distance, missing for shares; where n ≤ features the covariance is singular.

    The shards are compared with their cards (`verify`), then read once, `batch_size` images at a time or fewer where
    the device's memory does not hold them. Raises NrcgError for a shard or card that is missing, empty or does not fit,
    for one that is damaged, which is removed, for seeds that occur twice, for classifiers of different classes and for
    a NAME that is taken.
    """
    also = dict(also or {})
    if taken := also.keys() & set(VERDICTS):
        raise NrcgError(f"also: {taken.pop()!r} is a column of the verdicts already; choose another name")
    classifiers = {"guiding": guiding, "judge": judge, **also}
    classes = _check_classes(target, {name: card for name, (_, card) in classifiers.items()})
    verify(shards)
    opened = open_shards(shards)
    for name, (_, card) in classifiers.items():
        height = opened[0].images.shape[1]
        if card.get("size", height) != height:
            raise NrcgError(
                f"{opened[0].path}: images of {height} pixels, but the {name} classifier was trained on {card['size']}"
            )
    found: dict[str, list[np.ndarray]] = {name: [] for name in classifiers}
    gathered = {name: GatheredStatistics(extractor.dim) for name, (extractor, *_) in references.items()}

    def evaluate(images: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        inputs = to_float(images, device)
        verdicts = {name: _predict(model, inputs) for name, (model, _) in classifiers.items()}
        return verdicts, {name: extractor(images) for name, (extractor, *_) in references.items()}

    limit = BatchLimit("scoring", batch_size)
    for images, _ in read_batches(opened, batch_size, "scoring"):
        for _, (predicted, features) in limit.each(evaluate, images):
            for name, indices in predicted.items():
                found[name].append(np.array(classes)[indices])
            for name, vectors in features.items():
                gathered[name].update(vectors)
    diverged = np.concatenate([shard.diverged for shard in opened])
    verdicts = pd.DataFrame(
        {
            "seed": [seed for shard in opened for seed in shard.seeds],
            "diverged": diverged,
            **{name: np.where(diverged, "", np.concatenate(batches)) for name, batches in found.items()},
        }
    )
    n, n_diverged = len(verdicts), int(verdicts["diverged"].sum())
    names = {"guiding": "accuracy", **{name: f"accuracy/{name}" for name in also}, "judge": "accuracy_judge"}
    shares = {metric: (verdicts[name] == classes[target]).mean() for name, metric in names.items()}
    shares |= {f"judge_share/{name}": (verdicts["judge"] == name).mean() for name in classes}
    rows = [(metric, p, np.sqrt(p * (1 - p) / n), n, n_diverged, None) for metric, p in shares.items()]
    statistics = {name: each.result() for name, each in gathered.items()}
    for metric, ours, reference in tqdm(_pairs(statistics, references), desc="Fréchet distances"):
        distance = frechet_distance(ours, reference)
        rows.append((metric, distance, np.nan, n, n_diverged, len(ours.mean)))
    return Scores(pd.DataFrame(rows, columns=SCORE_COLUMNS).astype({"features": "Int64"}), verdicts)


def _check_classes(target: int, cards: Mapping[str, dict[str, Any]]) -> list[str]:
    classes = cards["judge"]["classes"]
    for name, card in cards.items():
        if card["classes"] != classes:
            raise NrcgError(f"classes {card['classes']} of the {name} classifier, {classes} of the judge")
    if not 0 <= target < len(classes):
        raise NrcgError(f"target {target}: the classifiers know classes 0 to {len(classes) - 1}")
    return classes


@torch.inference_mode()
def _predict(model: nn.Module, inputs: torch.Tensor) -> np.ndarray:
    """Class indices, int64 N, of float images N×3×H×W in [−1, 1]."""
    return predictions(model(inputs)).cpu().numpy()


def _pairs(
    statistics: Mapping[str, FeatureStatistics], references: Mapping[str, Reference]
) -> list[tuple[str, FeatureStatistics, FeatureStatistics]]:
    return [
        (metric, statistics[name], reference)
        for name, (_, *both) in references.items()
        for metric, reference in zip(DISTANCES[name], both, strict=True)
    ]
