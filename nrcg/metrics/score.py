"""The scores of one point (data set, setup, scale): accuracies and Fréchet distances of its sample shards."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError
from nrcg.files import read_array, read_json
from nrcg.images import to_float
from nrcg.metrics.features import Extractor
from nrcg.metrics.frechet import FeatureStatistics, frechet_distance
from nrcg.models.classifier import predictions

# Distance to all training images, and to those of the target class. Only Inception's are an FID.
DISTANCES = {"inception": ("fid", "cfid"), "judge": ("fd_judge", "cfd_judge")}
COLUMNS = ["metric", "value", "stderr", "n", "n_diverged", "features"]
POINT = ["dataset", "setup", "scale"]

Classifier = tuple[nn.Module, dict[str, Any]]  # the module in eval mode, and its card
Reference = tuple[Extractor, FeatureStatistics, FeatureStatistics]  # of all training images, of the target class


def reference_statistics(
    folder: str | Path, extractor: Extractor, *, target: int | None = None, batch_size: int = 64
) -> FeatureStatistics:
    """Statistics of the training images of an image set: of all (target None) or of class `target` alone.

    Images are read `batch_size` at a time. Raises NrcgError when there are fewer than two.
    """
    image_set = ImageSet.open(folder)
    indices = image_set.indices("train", target)
    if len(indices) < 2:
        of_class = "" if target is None else f" of class {target}"
        raise NrcgError(f"{folder}: {len(indices)} training images{of_class}; a Fréchet distance needs at least 2")
    statistics = FeatureStatistics.empty(extractor.dim)
    with tqdm(total=len(indices), desc=f"{extractor.name} features", unit="image") as bar:
        for start in range(0, len(indices), batch_size):
            batch = image_set.images[indices[start : start + batch_size]]
            statistics.update(extractor(batch))
            bar.update(len(batch))
    return statistics


def score(
    shards: Sequence[str | Path],  # sample shards NAME.npy, each with its NAME.json
    *,
    target: int,  # class that the guidance aimed at
    guiding: Classifier,  # whose verdict is the paper's accuracy
    judge: Classifier,  # an independent one: a guided sample can fool the classifier it was guided by
    references: Mapping[str, Reference],  # by extractor name, see DISTANCES
    batch_size: int = 64,
    device: torch.device | str = "cpu",  # where both classifiers are
) -> pd.DataFrame:
    """One row a metric: metric, value, stderr, n, n_diverged, features.

    accuracy             share of samples that `guiding` assigns to the target class
    accuracy_judge       the same by `judge`
    judge_share/CLASS    share that `judge` assigns to CLASS, for every class
    fid, cfid            Fréchet distance of Inception features to all training images, to the target class's
    fd_judge, cfd_judge  the same of the judge's features

    Every share is of all n samples, the diverged ones included. These belong to no class, whatever a classifier
    makes of their mid-grey: they count as misses, and the judge's shares sum to 1 − n_diverged / n. Distances take
    in every image as it is, mid-grey too. `stderr` is the binomial √(p(1 − p)/n), missing for distances. `features`
    is the number of features of a distance, missing for shares; where n ≤ features the covariance is singular.

    The shards are read once, `batch_size` images at a time. Raises NrcgError for a shard or card that is missing or
    does not fit, for seeds that occur twice, and for classifiers of different classes.
    """
    classes = _check_classes(target, guiding[1], judge[1])
    opened = _open_shards(shards)
    hits, judged = 0, np.zeros(len(classes), dtype=np.int64)
    statistics = {name: FeatureStatistics.empty(extractor.dim) for name, (extractor, *_) in references.items()}
    for images, diverged in _batches(opened, batch_size):
        inputs = to_float(images, device)
        hits += int((_predict(guiding[0], inputs)[~diverged] == target).sum())
        judged += np.bincount(_predict(judge[0], inputs)[~diverged], minlength=len(classes))
        for name, (extractor, *_) in references.items():
            statistics[name].update(extractor(images))
    n, n_diverged = sum(len(images) for images, _ in opened), sum(int(mask.sum()) for _, mask in opened)
    shares = {"accuracy": hits / n, "accuracy_judge": judged[target] / n}
    shares |= {f"judge_share/{name}": count / n for name, count in zip(classes, judged, strict=True)}
    rows = [(metric, p, np.sqrt(p * (1 - p) / n), n, n_diverged, None) for metric, p in shares.items()]
    for metric, ours, reference in tqdm(_pairs(statistics, references), desc="Fréchet distances"):
        distance = frechet_distance(ours, reference)
        rows.append((metric, distance, np.nan, n, n_diverged, len(ours.mean)))
    return pd.DataFrame(rows, columns=COLUMNS).astype({"features": "Int64"})


def collect(parts: Sequence[tuple[str, str, float | None, str | Path]]) -> pd.DataFrame:
    """Join scores of many points, sorted by data set, setup and scale; columns POINT + COLUMNS.

    parts   (dataset, setup, scale, CSV file of `score`'s rows); scale None where there is none, sorted first

    Raises NrcgError for a file that is missing or has other columns.
    """
    tables = [
        _read_scores(path).assign(dataset=dataset, setup=setup, scale=np.nan if scale is None else float(scale))
        for dataset, setup, scale, path in parts
    ]
    if not tables:
        return pd.DataFrame(columns=POINT + COLUMNS)
    table = pd.concat(tables, ignore_index=True)[POINT + COLUMNS]
    return table.sort_values(POINT, kind="stable", na_position="first", ignore_index=True)


def _read_scores(path: str | Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype={"features": "Int64"})
    except FileNotFoundError:
        raise NrcgError(f"{path}: no such file") from None
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise NrcgError(f"{path}: not a table of scores ({error}); delete it and score again") from None
    if list(table.columns) != COLUMNS:
        raise NrcgError(f"{path}: columns {list(table.columns)}, expected {COLUMNS}; delete it and score again")
    return table


def _check_classes(target: int, guiding: dict[str, Any], judge: dict[str, Any]) -> list[str]:
    if guiding["classes"] != judge["classes"]:
        raise NrcgError(f"classes {guiding['classes']} of the guiding classifier, {judge['classes']} of the judge")
    if not 0 <= target < len(judge["classes"]):
        raise NrcgError(f"target {target}: the classifiers know classes 0 to {len(judge['classes']) - 1}")
    return judge["classes"]


def _open_shards(paths: Sequence[str | Path]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each shard's images (memory map n×H×W×3) and which of them diverged (bool n)."""
    if not paths:
        raise NrcgError("no sample shards to score")
    opened, seen = [], set()
    for path in map(Path, paths):
        images, card = read_array(path), read_json(path.with_suffix(".json"))
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise NrcgError(f"{path}: {images.dtype} {images.shape}, expected uint8 n×H×W×3; sample it again")
        try:
            seeds, diverged = range(*card["seeds"]), card["diverged"]
        except (KeyError, TypeError):
            raise NrcgError(f"{path.with_suffix('.json')}: no list `seeds` or `diverged`; sample it again") from None
        if len(seeds) != len(images) or not set(diverged) <= set(seeds):
            raise NrcgError(f"{path}: {len(images)} images, its card says seeds {card['seeds']}; sample it again")
        if not seen.isdisjoint(seeds):
            raise NrcgError(f"{path}: seeds {card['seeds']} occur in another shard too; score each sample once")
        seen.update(seeds)
        opened.append((images, np.isin(seeds, diverged)))
    return opened


def _batches(
    opened: Sequence[tuple[np.ndarray, np.ndarray]], batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    with tqdm(total=sum(len(images) for images, _ in opened), desc="scoring", unit="image") as bar:
        for images, diverged in opened:
            for start in range(0, len(images), batch_size):
                batch = np.array(images[start : start + batch_size])  # a copy: torch warns of read-only memory maps
                yield batch, diverged[start : start + batch_size]
                bar.update(len(batch))


@torch.inference_mode()
def _predict(model: nn.Module, inputs: torch.Tensor) -> np.ndarray:
    return predictions(model(inputs)).cpu().numpy()


def _pairs(
    statistics: Mapping[str, FeatureStatistics], references: Mapping[str, Reference]
) -> list[tuple[str, FeatureStatistics, FeatureStatistics]]:
    return [
        (metric, statistics[name], reference)
        for name, (_, *both) in references.items()
        for metric, reference in zip(DISTANCES[name], both, strict=True)
    ]
