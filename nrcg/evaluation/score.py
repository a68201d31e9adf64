"""The scores of one point (data set, setup, scale): class shares and metrics of features, with intervals."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from nrcg.errors import NrcgError
from nrcg.evaluation.comparison import Pair
from nrcg.evaluation.metrics import EXTRAPOLATED, SHARES, metrics
from nrcg.evaluation.reference import Reference
from nrcg.evaluation.uncertainty import effective, resampled, wilson
from nrcg.io.arrays import read_array
from nrcg.io.files import read_card
from nrcg.io.tables import SCORE_COLUMNS, VERDICTS, read_verdicts

FEWEST = 2  # samples that have a distance
ENOUGH = 4  # samples per feature needed to extrapolate `fd`; for pairwise comparison, half as many


class Point(NamedTuple):
    """Verdicts and features of the samples of a point."""

    verdicts: pd.DataFrame  # from `nrcg.evaluation.features.look`
    features: dict[str, np.ndarray]  # float32 N×D by extractor, in the order of the verdicts
    evaluations: float | None = None  # U-Net evaluations per sample


def read_point(verdicts: str | Path, features: Mapping[str, str | Path], card: str | Path | None = None) -> Point:
    """Open files of `nrcg measure features` and a card of the samples; NrcgError if they do not agree."""
    evaluations = None if card is None else read_card(Path(card)).get("unet_evaluations")
    table = read_verdicts(verdicts)
    arrays = {name: read_array(path) for name, path in features.items()}
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.ndim != 2 or len(array) != len(table):
            found = f"{array.dtype} {array.shape}"
            raise NrcgError(f"{features[name]}: {found}, but {verdicts} has {len(table)} samples; make both again")
    return Point(table, arrays, evaluations)


def accepted(point: Point, target: str) -> Point:
    """The samples that the guiding classifier assigns to the target class; their cost includes that of all others."""
    kept = (point.verdicts["guiding"] == target).to_numpy()
    cost = None if point.evaluations is None or not kept.any() else point.evaluations / kept.mean()
    verdicts = point.verdicts.loc[kept, list(VERDICTS)]  # other classifiers score only the point itself
    return Point(verdicts, {name: each[kept] for name, each in point.features.items()}, cost)


def score(
    point: Point,
    *,
    target: str,
    classes: Sequence[str],
    references: Mapping[str, Reference],
    chosen: Sequence[str],
    tuning: int = 0,
) -> pd.DataFrame:
    """Score the samples of a point; columns SCORE_COLUMNS. The metrics are

        accuracy             share of samples that the guiding classifier assigns to the target class
        accuracy/NAME        the same for another classifier, a further column of the verdicts
        accuracy_judge       the same for the judge
        judge_share/CLASS    share that the judge assigns to CLASS, for every class
        unet_evaluations     U-Net evaluations per sample; a backward pass counts as one
        METRIC_EXTRACTOR     a metric of features compared with all training images: `fd_judge`, or `fid` for Inception
        cMETRIC_EXTRACTOR    the same compared with the target class

    Shares are of all n samples. Diverged samples belong to no class: they count as misses, and the judge's shares sum
    to 1 − n_diverged / n. Metrics of features include their mid-grey images. `low` and `high` are 95 % intervals of the
    sampling error. `fd_infinity` is added to `fd` if there are several times as many samples as features.

    Args:
        target: name of the target class.
        classes: names of all classes.
        references: references by extractor.
        chosen: names of metrics.
        tuning: samples with seeds below this are for choosing a scale: their rows have `seeds` "tuning", and metrics of
            features have no intervals. Other rows have "reported".
    """
    for name in chosen:
        metrics[name]  # raises NrcgError if unknown
    for name, reference in references.items():
        if name not in point.features:
            raise NrcgError(f"no features of extractor {name!r}; extract them first")
        if (given := point.features[name].shape[1]) != (dim := reference.all.statistics.dim):
            raise NrcgError(f"extractor {name}: {given} features per sample, but {dim} per real image")
    rows, seeds = [], point.verdicts["seed"]
    for part, taken in {"tuning": seeds < tuning, "reported": seeds >= tuning}.items():
        if not taken.any():
            continue
        verdicts, sure = point.verdicts[taken], part == "reported"
        n, n_diverged = len(verdicts), int(verdicts["diverged"].sum())
        found = [*_shares(verdicts, target, classes)]
        if point.evaluations is not None:
            found.append(("unet_evaluations", point.evaluations, np.nan, np.nan, n, np.nan))
        if n >= FEWEST:
            where = slice(*np.flatnonzero(taken)[[0, -1]] + (0, 1))  # seeds are ascending, so a part is contiguous
            found += distances_of(
                {name: each[where] for name, each in point.features.items()}, references, chosen, sure
            )
        rows += [(part, *row[:5], n_diverged, row[5]) for row in found]
    if not rows:
        rows.append(("reported", "accuracy", np.nan, np.nan, np.nan, 0, 0, np.nan))  # no sample: no value
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


Row = tuple[Any, ...]  # metric, value, low, high, n, features


def _shares(verdicts: pd.DataFrame, target: str, classes: Sequence[str]) -> Iterator[Row]:
    n = len(verdicts)
    others = [name for name in verdicts if name not in ("seed", "diverged", "guiding", "judge")]
    names = {"guiding": "accuracy", **{name: f"accuracy/{name}" for name in others}, "judge": "accuracy_judge"}
    shares = {metric: (verdicts[name] == target).mean() for name, metric in names.items()}
    shares |= {f"judge_share/{name}": (verdicts["judge"] == name).mean() for name in classes}
    for metric, share in shares.items():
        yield metric, share, *wilson(share, n), n, np.nan


def distances_of(
    features: Mapping[str, np.ndarray], references: Mapping[str, Reference], chosen: Sequence[str], sure: bool
) -> Iterator[Row]:
    """The metrics of each extractor's features, compared with all images and with the target class."""
    beside = [(name, prefix) for name in references for prefix in ("", "c")]
    for extractor, prefix in tqdm(beside, desc="metrics", unit="comparison", leave=False):
        real = references[extractor].target if prefix else references[extractor].all
        yield from _beside(Pair.of(features[extractor], real), extractor, prefix, chosen, sure)


def _beside(pair: Pair, extractor: str, prefix: str, chosen: Sequence[str], sure: bool) -> list[Row]:
    """The metrics of samples compared with one set of real images."""
    rows = []
    for metric in chosen:
        name, limit = (prefix + score_name(each, extractor) for each in (metric, f"{metric}_infinity"))
        rows += _measured(metric, name, limit, pair, sure)
    return rows


def _measured(metric: str, name: str, limit: str, pair: Pair, sure: bool) -> Iterator[Row]:
    measure, dim = metrics[metric], pair.samples.shape[1]
    value = measure(pair)
    n = len(pair.samples) if metric == EXTRAPOLATED else len(pair.rows)
    if not sure:
        yield name, value, np.nan, np.nan, n, dim
        return
    if SHARES.get(metric) == "samples":
        yield name, value, *wilson(value, n), n, dim
        return
    again = resampled(measure, pair, n)
    if metric in SHARES:
        yield name, value, *wilson(value, effective(value, again.error, n)), n, dim
        return
    least = 0 if metric == EXTRAPOLATED else -np.inf
    yield name, value, np.maximum(least, value - again.half), value + again.half, n, dim  # NaN for two samples
    if metric == EXTRAPOLATED and n >= ENOUGH * dim and len(pair.rows) >= ENOUGH * dim / 2:
        far, half = value + again.limit[0], again.limit[1]
        yield limit, far, max(min(0, far), far - half), far + half, n, dim


def score_name(metric: str, extractor: str) -> str:
    """METRIC_EXTRACTOR; only the Fréchet distance of Inception's features is called FID."""
    if extractor == "inception" and metric in ("fd", "fd_infinity"):
        return metric.replace("fd", "fid")
    return f"{metric}_{extractor}"
