"""A short search for the guidance scale of a new setup, on samples that are not reported."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import isfinite, isnan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import yaml
from tqdm import tqdm

from nrcg.evaluation.extractors import Extractor
from nrcg.evaluation.frechet import FeatureStatistics, frechet_distance
from nrcg.evaluation.reference import Reference
from nrcg.evaluation.uncertainty import wilson
from nrcg.guidance import ClassifierGuidance
from nrcg.io.images import to_float, to_rgb, to_uint8
from nrcg.io.tables import read_table
from nrcg.models.classifier import load_classifier, predictions
from nrcg.pipeline import GuidedPipeline
from nrcg.rng import keyed_generator

TUNING = 1_000_000  # number of the first sample for choosing scales; points have fewer samples
FACTOR = 4.0  # from one scale to the next, before the best is refined
WORSE = 1.5  # a distance this many times the best is past the turning point
ALIKE = 1.1  # at most this many times the distance of unguided samples: a scale without effect


class Trial(NamedTuple):
    """The judge's share of the target class and the distance to it, for n samples at a scale (None: unguided)."""

    scale: float | None
    share: float
    distance: float
    n: int


def find_scale(measure: Callable[[float | None], Trial], start: float = 1.0, most: int = 12) -> list[Trial]:
    """Bracket the scale of the smallest distance, from scales without effect to harmful ones.

    From `start`, scales rise by factors of 4 until the distance is 1.5 times the best, and in turns fall until samples
    look unguided (at most 1.1 times the distance, and a judge's share within the 95 % interval of unguided samples).
    Finally one scale is tried between the best one and each neighbour.

    Args:
        measure: function of a scale, or of None for unguided samples; a distance may be infinite.
        start: first scale, above 0.
        most: maximum number of guided trials.

    Returns:
        The trials, the unguided one first, then by ascending scale. `best` selects one.
    """
    unguided = measure(None)
    far = unguided.distance
    low, high = (float(end) for end in wilson(unguided.share, unguided.n))
    tried: dict[int, Trial] = {}  # by twice the exponent of FACTOR

    def at(k: int) -> Trial:
        if k not in tried:
            tried[k] = measure(rounded(start * FACTOR ** (k / 2)))
        return tried[k]

    def distance(k: int) -> float:
        return at(k).distance if isfinite(at(k).distance) else float("inf")

    top = bottom = 0
    at(0)
    up = down = True
    while len(tried) < most - 2 and (up or down):
        if up := distance(top) <= WORSE * min(far, *map(distance, list(tried))):
            top += 2
            at(top)
        if len(tried) < most - 2 and (
            down := not (low <= at(bottom).share <= high and distance(bottom) <= ALIKE * far)
        ):
            bottom -= 2
            at(bottom)
    centre = min(tried, key=distance)
    for k in (centre - 1, centre + 1):
        at(k)
    return [unguided, *(tried[k] for k in sorted(tried))]


def best(trials: list[Trial]) -> Trial:
    """The guided trial with the smallest distance; among equal ones that with the smallest scale."""
    return min((each for each in trials if each.scale is not None), key=lambda each: (each.distance, each.scale))


def grid(trials: list[Trial]) -> list[float]:
    """Scales for a sweep: ¼, ½, 1, 2 and 4 times the best."""
    scale = best(trials).scale or 1.0
    return [rounded(scale * factor) for factor in (0.25, 0.5, 1, 2, 4)]


def rounded(scale: float) -> float:
    """The scale rounded to two significant digits."""
    return float(f"{scale:.2g}")


def search(
    pipeline: GuidedPipeline,
    guidance: ClassifierGuidance,
    *,
    judge: Path,
    extractor: Extractor,
    reference: Path,
    seed: int,
    n: int,
    batch_size: int,
    start: float = 1.0,
    **run: Any,
) -> list[Trial]:
    """`find_scale` with samples: the judge's share, and the distance of features to the target class.

    Args:
        pipeline: the pipeline; the judge uses its device.
        guidance: guidance with any scale.
        judge: folder of an independent classifier.
        extractor: features of the distance. A judge's own can be fooled like the judge: blank images, for example.
        reference: the same features of the images, from `nrcg measure reference`.
        seed: seed of the run; samples from number `TUNING` on are drawn.
        n: samples per trial.
        batch_size: samples per batch.
        start: first scale.
        **run: further arguments of the pipeline, such as `num_inference_steps`.
    """
    network, _ = load_classifier(judge, pipeline.device)
    how: dict[str, Any] = {"judge": network, "extractor": extractor, "target": int(guidance.value.target)}
    how |= {"reference": Reference.load(reference).target.statistics, "seed": seed, "n": n, "batch_size": batch_size}

    def measure(scale: float | None) -> Trial:
        found = trial(pipeline, None if scale is None else replace(guidance, scale=scale), scale, **how, **run)
        bar.update()
        bar.set_postfix_str(f"scale {scale}: {found.share:.0%}, distance {found.distance:.4g}")
        return found

    pipeline.set_progress_bar_config(desc="trial", leave=False, unit="step")
    with tqdm(desc="search for a scale", unit="trial") as bar:
        return find_scale(measure, start)


def table(trials: list[Trial]) -> pd.DataFrame:
    """The trials as a table: scale (blank: unguided), judge, low, high, distance, n, first_sample, best."""
    found = pd.DataFrame(trials).rename(columns={"share": "judge"})
    found.insert(2, "low", wilson(found["judge"], found["n"])[0])
    found.insert(3, "high", wilson(found["judge"], found["n"])[1])
    return found.assign(first_sample=TUNING, best=found["scale"] == best(trials).scale)


def overlay(tables: Mapping[tuple[str, str], str | Path], sweep: bool = True) -> str:
    """YAML with a config's `scales` and `scales_note`, from the tables by (data set, setup).

    The scales are those of `grid`, or, without `sweep`, the best one alone.
    """
    found: dict[str, dict[str, Any]] = {}
    for (dataset, setup), path in tables.items():
        rows = read_table(path, numbers=["scale", "judge", "distance", "n", "first_sample"])
        trials = [Trial(*each) for each in rows[["scale", "judge", "distance", "n"]].itertuples(index=False)]
        first, n = int(rows["first_sample"][0]), int(rows["n"][0])
        section = found.setdefault(dataset, {"scales": {}, "scales_note": None})
        guided = [each for each in trials if each.scale is not None and not isnan(each.scale)]
        section["scales"][setup] = grid(guided) if sweep else [best(guided).scale]
        section["scales_note"] = f"Scales were found on samples {first} to {first + n - 1}, which are not reported."
    return yaml.safe_dump({"datasets": found}, sort_keys=False, allow_unicode=True)


def trial(
    pipeline: GuidedPipeline,
    guidance: Any,
    scale: float | None,
    *,
    target: int,
    judge: torch.nn.Module,
    extractor: Extractor,
    reference: FeatureStatistics,
    seed: int,
    n: int,
    batch_size: int,
    **run: Any,
) -> Trial:
    """Draw n tuning samples and measure them; a diverged sample makes the distance infinite."""
    statistics, hits, diverged = FeatureStatistics(extractor.dim), 0, False
    for pictures, lost in drawn(pipeline, guidance, range(TUNING, TUNING + n), seed, batch_size, **run):
        with torch.inference_mode():
            hits += int((predictions(judge(to_float(pictures, extractor.device))) == target).sum())
        statistics.update(extractor(pictures))
        diverged |= bool(lost.any())
    return Trial(scale, hits / n, float("inf") if diverged else frechet_distance(statistics, reference), n)


def drawn(
    pipeline: GuidedPipeline, guidance: Any, samples: range, seed: int, batch_size: int, **run: Any
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """The samples with these numbers, as in `nrcg sample`, in batches: uint8 N×H×W×3, and which of them diverged."""
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        generators = [keyed_generator("sampling", seed, i) for i in batch]
        how = {"generator": generators, "guidance": guidance, "output_type": "pt", "return_dict": False}
        images, lost = pipeline(len(batch), **how, **run)
        yield to_uint8(to_rgb(images * 2 - 1)), lost
