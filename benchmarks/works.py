"""The measurements: each work by this library, by `plain`, and a floor, the unavoidable part."""

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from torchvision.models import inception_v3

from benchmarks import plain
from benchmarks.measure import OURS, PLAIN, Seconds, Way, Work, seconds_of, synchronize
from benchmarks.networks import Networks, networks, section
from nrcg import EMA, ClassifierGuidance, GuidedDDPMPipeline
from nrcg.datasets import make_images
from nrcg.datasets.imageset import write_image_set
from nrcg.evaluation.comparison import SUBSET, Real, kernel, mean_of_others, pool_radii, products
from nrcg.evaluation.forward import forward_analysis
from nrcg.evaluation.frechet import FeatureStatistics, frechet_distance
from nrcg.evaluation.metrics import metrics, statistics
from nrcg.evaluation.reference import Reference
from nrcg.evaluation.score import distances_of
from nrcg.io.arrays import write_array
from nrcg.models.ddpm import build_scheduler, build_unet
from nrcg.rng import keyed_generator
from nrcg.runtime.preemption import Stop
from nrcg.speed import prepare
from nrcg.training.ddpm import DDPMTraining, train_ddpm

TARGET = 0
AMOUNTS = {  # batch size; steps, or values of t
    "sampling": {"demo": (32, 8), "paper": (2, 2), "gpu": (256, 10)},
    "training": {"demo": (64, 4), "paper": (4, 2), "gpu": (128, 20)},
    "forward": {"demo": (16, 20), "paper": (1, 5), "gpu": (64, 10)},
}
MODES: dict[str, tuple[dict[str, Any], str, str]] = {  # guidance; our goal on a CPU, on CUDA
    "guided on x0": ({"on": "x0", "target": TARGET, "scale": 20.0}, "1.5 ×", "3 ×, 0.5 × memory"),
    "guided on xt": ({"on": "xt", "target": TARGET, "scale": 5.0}, "1.3 ×", "2 ×"),
    "unguided": ({}, "1.3 ×", "2 ×"),
}
WARM = 2  # training steps before the timing
N, FEATURES, BATCH = 16_384, 2048, 64
SCORED = {"demo": (1000, 256), "paper": (50_176, 2048), "gpu": (50_176, 2048)}  # samples, features
NO_SLOWER = "0.95 ×"  # tolerance of 5 % for equal ways
BALLS = 100_000  # images, as in the paper's config
Sampler = Callable[..., torch.Tensor]  # (generator=None) → images N×3×H×W in [0, 1]


def sampling(size: str, device: torch.device) -> Iterator[Work]:
    """Ours has one CPU generator per sample; the plain loop has one for the batch, on the device."""
    parts, (batch, steps), cuda = networks(size, device), AMOUNTS["sampling"][size], device.type == "cuda"
    for mode, (_, *reach) in MODES.items():
        given = (parts, mode, batch, steps)
        ways: dict[str, Way] = {PLAIN: plain_sampler(*given), OURS: our_sampler(*given)}
        ways |= {"ours, not compiled": our_sampler(*given, compile=False)} if cuda else {}
        ways |= plain.floor(parts.unet, batch, steps, gradient=mode == "guided on x0", bf16=cuda)
        torch._dynamo.reset()  # else another mode's compiled code would be reused
        yield Work(f"{mode}, {size}, {batch} images × {steps} steps", ways, reach[cuda])


def plain_sampler(parts: Networks, mode: str, batch: int, steps: int) -> Sampler:
    loop = plain.unguided if mode == "unguided" else plain.guided
    return partial(loop, parts.in_default_layout(), batch=batch, steps=steps, **MODES[mode][0])


def our_sampler(parts: Networks, mode: str, batch: int, steps: int, compile: bool = True) -> Sampler:
    """Our path as in `nrcg sample` for long or short work, with all optimisations."""
    parts, cuda = copy.deepcopy(parts), parts.unet.device.type == "cuda"
    how: dict[str, Any] = {"precision": "bf16" if cuda else "fp32", "compile": cuda and compile}
    unet, classifier = (prepare(part, **how) for part in (parts.unet, parts.classifier))
    pipeline = GuidedDDPMPipeline(unet=unet, scheduler=parts.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    how = dict(MODES[mode][0])
    if mode == "guided on x0":
        how |= {"objective": "logit", "stabilizer": EMA(plain.DECAY)}
    guidance = ClassifierGuidance(classifier, **how) if how else None

    def sample(generator: plain.Generator = None) -> torch.Tensor:
        generator = generator or [keyed_generator("sampling", 0, i) for i in range(batch)]
        return pipeline(batch, generator, steps, output_type="pt", guidance=guidance, return_dict=False)[0]

    return sample


def training(size: str, device: torch.device) -> Iterator[Work]:
    """Ours is all of `train_ddpm` in bf16, including data from disk; the plain loop has its images in memory."""
    config, (batch, steps) = section(size), AMOUNTS["training"][size]
    pixels, n = config["ddpm"]["unet"]["sample_size"], (WARM + steps) * batch
    images, zeros = np.random.default_rng(0).integers(0, 256, (n, pixels, pixels, 3), dtype=np.uint8), np.zeros(n)
    unet, scheduler = build_unet(config["ddpm"]["unet"]).to(device), build_scheduler(config["scheduler"])
    with tempfile.TemporaryDirectory() as folder:
        write_image_set(folder, images, zeros, zeros, name="noise", classes=["noise"], seed=0, parameters={})
        theirs = plain.ddpm_training(unet, scheduler, images[: batch * steps], batch)
        ways: dict[str, Way] = {PLAIN: theirs, OURS: partial(train, config, device, folder, batch, steps)}
        ways |= plain.floor(unet, batch, 3 * steps, gradient=False, bf16=True)
        reach = "2 ×" if device.type == "cuda" else "1.3 ×"
        yield Work(f"DDPM training, {size}, {steps} steps of {batch} images", ways, reach)


def train(config: dict[str, Any], device: torch.device, data: str, batch: int, steps: int) -> Seconds:
    """The time of `steps` steps, without the first ones and without building and writing the network."""
    how: dict[str, Any] = {"settings": DDPMTraining(epochs=1, batch_size=batch, precision="bf16"), "device": device}
    parts, clock = {"unet": config["ddpm"]["unet"], "scheduler": config["scheduler"]}, Clock(device, steps)
    with tempfile.TemporaryDirectory() as out:
        train_ddpm(data, out, checkpoint=Path(out, "checkpoint"), stop=clock, **parts, **how)
    return Seconds(clock.seconds)


class Clock(Stop):
    """Measures the time of all steps but the first, from the calls of `train_ddpm` after each step."""

    def __init__(self, device: torch.device, steps: int) -> None:
        super().__init__()
        self.device, self.last, self.done, self.seconds = device, WARM + steps, 0, 0.0

    def check(self) -> None:
        self.done += 1
        if self.done in (WARM, self.last):
            synchronize(self.device)
            self.seconds = time.perf_counter() - self.seconds


def forward(size: str, device: torch.device) -> Iterator[Work]:
    """Raw gradients on x̂_0 at n values of t, in float32: ours needs n passes of the U-Net, plain 2n − 1."""
    parts, (n, steps) = networks(size, device), AMOUNTS["forward"][size]
    pixels, stride = parts.unet.config.sample_size, -(-parts.scheduler.config.num_train_timesteps // steps)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (n, pixels, pixels, 3), dtype=np.uint8), rng.integers(0, 3, n)
    theirs = partial(plain.both_neighbours, parts.in_default_layout(), images, labels, target=TARGET, stride=stride)
    ways: dict[str, Way] = {PLAIN: theirs, OURS: our_analysis(parts, images, labels, stride)}
    ways |= plain.floor(parts.unet, n, steps, gradient=True, bf16=False)
    yield Work(f"forward analysis, {size}, {n} images × {steps} values of t", ways, "2 ×", 3)


def our_analysis(parts: Networks, images: np.ndarray, labels: np.ndarray, stride: int) -> Way:
    parts = copy.deepcopy(parts)
    given: dict[str, Any] = {"labels": labels, "unet": prepare(parts.unet), "scheduler": parts.scheduler, "on": "x0"}
    given |= {"target": TARGET, "setups": {"raw": None}, "seed": 0, "stride": stride, "batch_size": len(images)}
    return partial(forward_analysis, images, prepare(parts.classifier), **given)


def frechet(size: str, device: torch.device) -> Iterator[Work]:
    """Comparison with pytorch-fid's functions; the preceding Inception pass is the same network in both."""
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=(N, FEATURES)) * rng.uniform(0.1, 2, FEATURES) for _ in range(2))
    ways: dict[str, Way] = {PLAIN: lambda: their_statistics(one), OURS: lambda: our_statistics(one)}
    ways["floor: a matrix product"] = lambda: one.T @ one
    yield Work(f"statistics of {N} × {FEATURES} features", ways, NO_SLOWER)
    ours, theirs = [our_statistics(part) for part in (one, two)], (*their_statistics(one), *their_statistics(two))
    ways = {PLAIN: lambda: calculate_frechet_distance(*theirs), OURS: lambda: frechet_distance(ours[0], ours[1])}
    ways["floor: eigenvectors of one covariance"] = lambda: np.linalg.eigh(theirs[1])
    yield Work(f"Fréchet distance, {FEATURES} features", ways, NO_SLOWER, 2)


def our_statistics(features: np.ndarray) -> FeatureStatistics:
    """Statistics batch by batch, as in scoring."""
    statistics = FeatureStatistics(features.shape[1])
    for start in range(0, len(features), BATCH):
        statistics.update(features[start : start + BATCH])
    statistics.merged()
    return statistics


def their_statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.mean(features, axis=0), np.cov(features, rowvar=False)


def scoring(size: str, device: torch.device) -> Iterator[Work]:
    """All metrics of a point with Inception, with intervals, compared with two Fréchet distances.

    The time of features is that of 64 images with random weights of Inception's shape, scaled to all images.
    """
    n, dim = SCORED[size]
    network = inception_v3(weights=None, init_weights=False).to(device).eval()
    images = torch.rand(BATCH, 3, 299, 299, device=device)
    rng = np.random.default_rng(0)
    one, two = (np.abs(rng.normal(0.4, 0.3, (n, dim))).astype(np.float32) for _ in range(2))
    all_of, pool = statistics(two), two[:SUBSET]
    real = Real(all_of, pool, pool_radii(pool), 1.0, all_of.root(), mean_of_others(kernel(products(pool, pool), dim)))

    with torch.inference_mode():
        features = n / BATCH * median(seconds_of(lambda: network(images), device) for _ in range(3))

    def before() -> Seconds:
        def distances() -> None:
            found = statistics(one)
            for _ in ("all", "target"):
                frechet_distance(found, all_of)

        return Seconds(features + seconds_of(distances, device))

    def ours() -> Seconds:
        with tempfile.TemporaryDirectory() as folder:
            kept = partial(write_array, Path(folder, "features.npy"), one)
            both = Reference(real, real)
            scores = partial(distances_of, {"inception": one}, {"inception": both}, list(metrics), True)
            return Seconds(features + seconds_of(kept, device) + seconds_of(lambda: list(scores()), device))

    ways: dict[str, Way] = {PLAIN: before, OURS: ours, "floor: features alone": lambda: Seconds(features)}
    yield Work(f"scores of {n} samples, {dim} features", ways, "0.91 ×", 1)


def sportballs(size: str, device: torch.device) -> Iterator[Work]:
    """The paper's images, 64×64, on disk. Measured once, without comparison."""

    def draw() -> None:
        with tempfile.TemporaryDirectory() as folder:
            make_images("sportballs", folder, {**section("paper")["images"], "n": BALLS})

    yield Work(f"SportBalls, {BALLS} images of 64×64", {OURS: draw}, "60 s", 1)


ALL = {works.__name__: works for works in (sampling, training, forward, frechet, scoring, sportballs)}
