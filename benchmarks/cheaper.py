"""Cheaper guidance on the demo: what each saving of `ClassifierGuidance` costs in quality, and what it gains in time.

The full method, x̂_0 + EMA 0.99 + logit, against guidance without the U-Net's Jacobian, with a gradient at every
k-th step, and at some time steps only. Needs classifiers, images and DDPM of a finished demo with large balls, whose
scales these are (`--configfile config/demo.yaml config/large_balls.yaml`). One thread throughout; a time is CPU time of
that thread, measured in turns with the full method's before any sampling.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from benchmarks.cheaper_report import SHEET, gradients, gradients_table, plot_points, plot_samples, points_table
from benchmarks.measure import Seconds, alternate
from nrcg import EMA, ClassifierGuidance, GuidedDDPMPipeline
from nrcg.datasets.imageset import ImageSet
from nrcg.evaluation.extractors import Extractor, load_extractor
from nrcg.evaluation.frechet import FeatureStatistics, frechet_distance
from nrcg.evaluation.score import reference_statistics
from nrcg.guidance.stabilizers import Identity, Stabilizer
from nrcg.io.files import write_text
from nrcg.io.images import to_float, to_uint8
from nrcg.models.classifier import load_classifier, predictions
from nrcg.models.ddpm import load_ddpm
from nrcg.rng import keyed_generator

STEPS, BATCH, SEED, TARGET = 50, 48, 7, "baseball"
STABILIZER = EMA(0.99)
TIMED_BATCH, TIMED_ROUNDS = 16, 5
BETA = 3.0  # of the softplus that takes a ReLU's place


@dataclass(frozen=True)
class Variant:
    """A row of the study; all guide by the logit of x̂_0."""

    name: str
    family: str  # colour and marker in the plot
    scales: tuple[float, ...]
    stabilizer: Stabilizer | None = STABILIZER
    jacobian: bool = True
    every: int = 1
    interval: tuple[int, int] | None = None
    unit_slope: bool = False  # without the Jacobian: take 1 for ∂x̂_0/∂x_t, not 1/√ᾱ_t
    smooth: bool = False  # the gradient is of a copy of the classifier with smooth activations
    target: str = TARGET

    @property
    def work(self) -> tuple:
        """What decides how long an image takes."""
        return self.scales == (0,), self.jacobian, self.every, self.interval, self.smooth


FULL, NO_EMA, EVERY, INTERVAL = "full method", "full, no stabiliser", "every k-th step", "an interval"
STEEP, UNIT = "no Jacobian, slope 1/√ᾱ", "no Jacobian, slope 1"
OFF: dict[str, Any] = {"jacobian": False}
ONE: dict[str, Any] = {"jacobian": False, "unit_slope": True}
VARIANTS = [
    Variant("full method", FULL, (20, 60, 200)),
    Variant("full, no stabiliser", NO_EMA, (2,), None),
    Variant("every 2nd step", EVERY, (60,), every=2),
    Variant("every 4th step", EVERY, (60, 200), every=4),
    Variant("every 8th step", EVERY, (60,), every=8),
    Variant("t ≤ 60", INTERVAL, (60,), interval=(0, 60)),
    Variant("t ≥ 40", INTERVAL, (60,), interval=(40, 99)),
    Variant("20 ≤ t ≤ 60", INTERVAL, (60,), interval=(20, 60)),
    Variant("1/√ᾱ, EMA 0.99", STEEP, (0.01, 0.1, 0.3, 1, 10), **OFF),
    Variant("1/√ᾱ, EMA 0.99, t ≤ 60", STEEP, (3, 10, 20), interval=(0, 60), **OFF),
    Variant("1/√ᾱ, EMA 0.99, smooth", STEEP, (0.1, 1), smooth=True, **OFF),
    Variant("1/√ᾱ, none", STEEP, (0.1, 1, 4), None, **OFF),
    Variant("1/√ᾱ, none, t ≤ 60", STEEP, (3,), None, interval=(0, 60), **OFF),
    Variant("1, EMA 0.99", UNIT, (5, 25, 100), **ONE),
    Variant("1, none", UNIT, (0.5, 2, 8, 30), None, **ONE),
    Variant("1, none, t ≥ 20", UNIT, (8,), None, interval=(20, 99), **ONE),
    Variant("1, none, smooth", UNIT, (8,), None, smooth=True, **ONE),
]
OTHER_TARGETS = [
    Variant(name, family, (scale,), target=target, **options)
    for target in ("basketball", "soccer")
    for name, family, scale, options in (
        ("full method", FULL, 60, {}),
        ("1, none, t ≥ 20", UNIT, 8, {"stabilizer": None, "interval": (20, 99), **ONE}),
    )
]
UNGUIDED = Variant("unguided", "unguided", (0,))
EVERY_VARIANT = [*VARIANTS, UNGUIDED, *OTHER_TARGETS]


@dataclass(frozen=True)
class Slope:
    """A stabiliser that multiplies the gradient by `factors` of the guided steps, in order, before `inner` has it."""

    factors: tuple[float, ...]
    inner: Stabilizer

    def init(self, gradient_like: torch.Tensor) -> tuple[int, Any]:
        return 0, self.inner.init(gradient_like)

    def update(self, gradient: torch.Tensor, state: tuple[int, Any]) -> tuple[torch.Tensor, tuple[int, Any]]:
        step, inner = state
        direction, inner = self.inner.update(gradient * self.factors[step], inner)
        return direction, (step + 1, inner)


def smoothed(classifier: nn.Module) -> nn.Module:
    """A copy with softplus for ReLU, SiLU for hardswish and the sigmoid for its piecewise linear stand-in."""
    found = copy.deepcopy(classifier)
    for module in list(found.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Softplus(BETA))
            elif isinstance(child, nn.Hardswish):
                setattr(module, name, nn.SiLU())
            elif isinstance(child, nn.Hardsigmoid):
                setattr(module, name, nn.Sigmoid())
    return found.eval()


@dataclass(frozen=True)
class Demo:
    """What a finished demo left."""

    pipeline: GuidedDDPMPipeline
    guiding: nn.Module
    smooth: nn.Module  # the guiding classifier with smooth activations
    judge: nn.Module
    classes: list[str]
    extractor: Extractor
    data: Path

    @classmethod
    def open(cls, run: Path, ddpm: Path) -> "Demo":
        """Raises NrcgError naming the file that is missing."""
        folder = run / "sportballs"
        unet, scheduler = load_ddpm(ddpm)
        pipeline = GuidedDDPMPipeline(unet=unet, scheduler=scheduler)
        pipeline.set_progress_bar_config(disable=True)
        guiding, card = load_classifier(folder / "classifiers/nonrobust")
        judge, _ = load_classifier(folder / "classifiers/judge")
        extractor = load_extractor("judge", weights=folder / "classifiers/judge")
        return cls(pipeline, guiding, smoothed(guiding), judge, card["classes"], extractor, folder / "data")

    def guidance(self, variant: Variant, scale: float) -> ClassifierGuidance:
        guidance = ClassifierGuidance(
            self.smooth if variant.smooth else self.guiding,
            self.classes.index(variant.target),
            scale,
            on="x0",
            objective="logit",
            stabilizer=variant.stabilizer,
            jacobian=variant.jacobian,
            every=variant.every,
            interval=variant.interval,
        )
        if not variant.unit_slope:
            return guidance
        factors = tuple(self.signal(t) for t in self.timesteps() if guidance.covers(t))
        return replace(guidance, stabilizer=Slope(factors, variant.stabilizer or Identity()))

    def timesteps(self) -> list[int]:
        self.pipeline.scheduler.set_timesteps(STEPS)
        return self.pipeline.scheduler.timesteps.tolist()

    def signal(self, t: int) -> float:
        """√ᾱ_t."""
        return float(self.pipeline.scheduler.alphas_cumprod[t]) ** 0.5

    def draw(self, guidance: ClassifierGuidance | None, seeds: range) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images n×H×W×3, and n flags of those that diverged."""
        generators = [keyed_generator("sampling", SEED, i) for i in seeds]
        result = self.pipeline(len(seeds), generators, STEPS, "pt", guidance=guidance)
        return to_uint8(result.images * 2 - 1), result.diverged.numpy()

    @torch.inference_mode()
    def judged(self, images: np.ndarray, lost: np.ndarray, target: str, reference: FeatureStatistics) -> dict[str, Any]:
        """Shares of the target by both classifiers, one that diverged belonging to no class; distance; grain.

        grain   grey levels (of 255) between neighbours in a row: their median over an image, whose background is more
                than half of it, and the mean of that over the images; the judge's features hardly see such noise
        """
        inputs, label = to_float(images), self.classes.index(target)
        shares = [
            float(((predictions(model(inputs)) == label).numpy() & ~lost).mean())
            for model in (self.guiding, self.judge)
        ]
        statistics = FeatureStatistics.empty(self.extractor.dim)
        statistics.update(self.extractor(images))
        steps = np.abs(np.diff(images.astype(np.int16), axis=2))
        return {
            "n": len(images),
            "n_diverged": int(lost.sum()),
            "accuracy": shares[0],
            "accuracy_judge": shares[1],
            "cfd_judge": frechet_distance(statistics, reference),
            "grain": float(np.median(steps, axis=(1, 2, 3)).mean()),
        }


def cpu_seconds(demo: Demo) -> dict[Variant, list[float]]:
    """CPU seconds an image of each variant, in turns; those that differ in what takes no time are measured once."""

    def timed(variant: Variant) -> Callable[[], Seconds]:
        guidance = demo.guidance(variant, variant.scales[0])

        def way() -> Seconds:
            started = time.process_time()  # one thread: a pause, or another's load, is not in it
            demo.draw(guidance, range(TIMED_BATCH))
            return Seconds((time.process_time() - started) / TIMED_BATCH)

        return way

    ways: dict[tuple, Callable[[], Seconds]] = {}
    for variant in EVERY_VARIANT:
        ways.setdefault(variant.work, timed(variant))
    ways[VARIANTS[0].work]()  # the first call warms up
    found = alternate(ways, TIMED_ROUNDS, torch.device("cpu"), "times")
    return {variant: found[variant.work] for variant in EVERY_VARIANT}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks cheaper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default="results/large-balls", help="folder of the finished run")
    parser.add_argument("--ddpm", type=Path, default="resources/sportballs32_large", help="folder of its DDPM")
    parser.add_argument("--samples", type=int, default=96, help="samples a point")
    parser.add_argument("--out", type=Path, default="docs/cheaper.csv", help="CSV file to write, after each point anew")
    parser.add_argument("--markdown", type=Path, help="the tables, in Markdown")
    parser.add_argument("--plot", type=Path, help="quality against cost, PNG")
    parser.add_argument("--sheet", type=Path, help="some samples, PNG")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    demo = Demo.open(options.run, options.ddpm)
    seconds = cpu_seconds(demo)
    norms = gradients(demo.pipeline, demo.guiding, demo.classes.index(TARGET), STEPS)
    points, shown = study(demo, options.samples, seconds, options.out)
    tables = f"{points_table(points)}\n\n{gradients_table(norms)}\n"
    print(tables)
    if options.markdown:
        write_text(options.markdown, tables)
    if options.plot:
        plot_points(points, options.plot)
    if options.sheet:
        plot_samples(shown, options.sheet)


def study(
    demo: Demo, n: int, seconds: dict[Variant, list[float]], out: Path
) -> tuple[pd.DataFrame, dict[tuple[str, float], np.ndarray]]:
    """All points, which are in the file `out` too, and the images of those in SHEET."""
    targets = dict.fromkeys(variant.target for variant in EVERY_VARIANT)
    references = {
        target: reference_statistics(demo.data, demo.extractor, target=demo.classes.index(target)) for target in targets
    }
    rows, shown = [real_images(demo, target, n, references[target]) for target in targets], {}
    jobs = [(variant, scale) for variant in EVERY_VARIANT for scale in variant.scales]
    with tqdm(total=len(jobs) * n, desc="cheaper", unit="image") as bar:
        for variant, scale in jobs:
            guidance = demo.guidance(variant, scale)
            parts = []
            for start in range(0, n, BATCH):
                parts.append(demo.draw(guidance, range(start, min(start + BATCH, n))))
                bar.update(len(parts[-1][0]))
            images, lost = (np.concatenate(part) for part in zip(*parts, strict=True))
            if (variant.name, scale) in SHEET and variant.target == TARGET:
                shown[variant.name, scale] = images
            rows.append(
                {"variant": variant.name, "family": variant.family, "target": variant.target, "scale": scale}
                | demo.judged(images, lost, variant.target, references[variant.target])
                | cost(seconds[variant], seconds[VARIANTS[0]])
            )
            write_text(out, pd.DataFrame(rows).to_csv(index=False))
    return pd.DataFrame(rows), shown


def real_images(demo: Demo, target: str, n: int, reference: FeatureStatistics) -> dict[str, Any]:
    """A row of n validation images of the class: what a perfect sampler would get."""
    image_set = ImageSet.open(demo.data)
    images = image_set.images[image_set.indices("valid", demo.classes.index(target))[:n]]
    row = {"variant": "real images", "family": "real images", "target": target, "scale": np.nan}
    return row | demo.judged(images, np.zeros(len(images), bool), target, reference)


def cost(ours: list[float], full: list[float]) -> dict[str, float]:
    """Median of the CPU seconds an image, and of their ratios to the full method's in the same round."""
    return {"seconds": median(ours), "time": median(a / b for a, b in zip(ours, full, strict=True))}
