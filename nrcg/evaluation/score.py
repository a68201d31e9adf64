"""The scores of one point (data set, setup, scale): accuracies and distances of its sample shards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from nrcg.checks import NAME, check, maybe, shown_size, sides
from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError
from nrcg.evaluation.extractors import Extractor, extractors
from nrcg.evaluation.frechet import FeatureStatistics, metrics
from nrcg.io.arrays import read_array
from nrcg.io.images import to_float
from nrcg.io.shards import open_shards, verify
from nrcg.io.tables import SCORE_COLUMNS
from nrcg.models.classifier import predictions
from nrcg.registry import call
from nrcg.runtime.memory import BatchLimit

VERDICTS = ("seed", "diverged", "guiding", "judge")  # columns that verdicts always have

Classifier = tuple[nn.Module, dict[str, Any]]  # the module in eval mode, and its card
Reference = tuple[Extractor, FeatureStatistics, FeatureStatistics]  # of all training images, of the target class


def reference_statistics(
    folder: str | Path, extractor: Extractor, *, target: int | None = None, batch_size: int = 64
) -> FeatureStatistics:
    """Statistics of the training images of an image set: of all (target None) or of class `target` alone."""
    image_set = ImageSet.open(folder)
    indices = image_set.indices("train", target)
    if len(indices) < 2:
        of_class = "" if target is None else f" of class {target}"
        raise NrcgError(f"{folder}: {len(indices)} training images{of_class}; a Fréchet distance needs at least 2")
    statistics = FeatureStatistics(extractor.dim)
    limit = BatchLimit("reference features", batch_size)
    with tqdm(total=len(indices), desc=limit.what, unit="image") as bar:
        for batch, found in limit.each(lambda batch: extractor(image_set.images[batch]), indices):
            statistics.update(found)
            bar.update(len(batch))
    return statistics


def load_reference(name: str, section: Any, device: torch.device | str) -> Reference:
    """The reference of an extractor from a section.

    It has `all` and `target` (.npz files), `weights` (a path, or None), and `extractor`, where it is not the name.
    """
    where = f"--references: {name}"
    check(where, section, {"all": NAME, "target": NAME, "weights": maybe(NAME), "extractor": NAME})

    def load(all: str, target: str, weights: str | None = None, extractor: str = name) -> Reference:
        loaded = extractors[extractor](weights and Path(weights), device)
        return loaded, FeatureStatistics.load(all), FeatureStatistics.load(target)

    return call(load, where, section)


class Scores(NamedTuple):
    metrics: pd.DataFrame  # SCORE_COLUMNS, a row a metric
    verdicts: pd.DataFrame  # a row a sample, upwards by seed: VERDICTS and `also`, class names, blank for one diverged


def score(
    shards: Sequence[str | Path],
    *,
    target: int,
    guiding: Classifier,
    judge: Classifier,
    references: Mapping[str, Reference],
    also: Mapping[str, Classifier] | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> Scores:
    """Score the samples of a point. The rows are

        accuracy             share of samples that `guiding` assigns to the target class
        accuracy/NAME        the same by the classifier NAME of `also`
        accuracy_judge       the same by `judge`
        judge_share/CLASS    share that `judge` assigns to CLASS, for every class
        METRIC_EXTRACTOR     distance of features to those of all training images: `fd_judge`, and `fid` of Inception
        cMETRIC_EXTRACTOR    to those of the target class

    `judge` is an independent classifier, since a guided sample can fool the one it was guided by. Every share is of all
    n samples. Diverged ones belong to no class: they count as misses, and the judge's shares sum to 1 − n_diverged / n.
    Distances take in their mid-grey too. `stderr` is the binomial √(p(1 − p)/n), missing for distances; `features` is
    missing for shares.
    """
    also = also or {}
    classifiers, classes = {"guiding": guiding, "judge": judge, **also}, judge[1]["classes"]
    if taken := also.keys() & set(VERDICTS):
        raise NrcgError(f"also: {taken.pop()!r} is a column of the verdicts already; choose another name")
    verify(shards)
    opened = open_shards(shards)
    size = opened[0].images.shape[1:3]
    for name, (_, card) in classifiers.items():
        if card["classes"] != classes:
            raise NrcgError(f"classes {card['classes']} of the {name} classifier, {classes} of the judge")
        if "size" in card and sides(card["size"]) != size:
            own, given = shown_size(card["size"]), shown_size(size)
            raise NrcgError(f"{opened[0].path}: images of {given} pixels; the {name} classifier was trained on {own}")
    found: dict[str, list[np.ndarray]] = {name: [] for name in classifiers}
    statistics = {name: FeatureStatistics(extractor.dim) for name, (extractor, *_) in references.items()}

    @torch.inference_mode()
    def evaluate(images: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        inputs = to_float(images, device)
        verdicts = {name: predictions(model(inputs)).cpu().numpy() for name, (model, _) in classifiers.items()}
        return verdicts, {name: extractor(images) for name, (extractor, *_) in references.items()}

    limit = BatchLimit("scoring", batch_size)
    with tqdm(total=sum(len(shard.seeds) for shard in opened), desc=limit.what, unit="image") as bar:
        for shard in opened:
            images = read_array(shard.path)  # a map of its own, so that its pages leave memory with it
            for batch, (predicted, features) in limit.each(evaluate, images):
                for name, indices in predicted.items():
                    found[name].append(np.array(classes)[indices])
                for name, vectors in features.items():
                    statistics[name].update(vectors)
                bar.update(len(batch))
    diverged = np.concatenate([shard.diverged for shard in opened])
    verdicts = pd.DataFrame({"seed": [seed for shard in opened for seed in shard.seeds], "diverged": diverged})
    for name, batches in found.items():
        verdicts[name] = np.where(diverged, "", np.concatenate(batches))
    n, n_diverged = len(diverged), int(diverged.sum())
    names = {"guiding": "accuracy", **{name: f"accuracy/{name}" for name in also}, "judge": "accuracy_judge"}
    shares = {metric: (verdicts[name] == classes[target]).mean() for name, metric in names.items()}
    shares |= {f"judge_share/{name}": (verdicts["judge"] == name).mean() for name in classes}
    rows = [(metric, p, np.sqrt(p * (1 - p) / n), n, n_diverged, np.nan) for metric, p in shares.items()]
    for name, (_, everything, of_target) in tqdm(references.items(), desc="distances", unit="extractor"):
        for metric, distance in metrics.items():
            row = "fid" if (metric, name) == ("fd", "inception") else f"{metric}_{name}"  # only Inception's is a FID
            for prefix, reference in {"": everything, "c": of_target}.items():
                value = distance(statistics[name], reference)
                rows.append((prefix + row, value, np.nan, n, n_diverged, statistics[name].dim))
    return Scores(pd.DataFrame(rows, columns=SCORE_COLUMNS), verdicts)
