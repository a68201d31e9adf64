"""Forward analysis on x̂_0: our single walk down t against evaluating x_t and its neighbour at each t.

Accuracy, logit and gradient sensitivity of raw gradients. Over n values of t ours takes n passes of the U-Net, plain
2n − 1, as the image itself needs none: evaluating once alone gives just under 2 ×. Both are float32, on CUDA too: in
half precision neighbours would differ by rounding.
"""

import copy
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from benchmarks import plain
from benchmarks.measure import FLOOR, OURS, PLAIN, Settings, Way, Work
from benchmarks.networks import Networks, networks, passes
from nrcg.evaluation.forward import forward_analysis
from nrcg.io.images import to_float
from nrcg.rng import keyed_generator
from nrcg.speed import prepare

TARGET = 0


def ours(parts: Networks, images: np.ndarray, labels: np.ndarray, stride: int) -> Way:
    parts = copy.deepcopy(parts)
    networks = {"unet": prepare(parts.unet), "scheduler": parts.scheduler, "on": "x0"}
    how = {"target": TARGET, "setups": {"raw": None}, "seed": 0, "batch_size": len(images), "stride": stride}
    return partial(forward_analysis, images, prepare(parts.classifier), labels=labels, **networks, **how)


def plainly(parts: Networks, images: np.ndarray, labels: np.ndarray, stride: int) -> Way:
    parts, device = parts.in_default_layout(), parts.unet.device

    def analyse() -> dict[int, dict[str, float]]:
        x0 = to_float(images, device)
        generators = [keyed_generator("forward noise", 0, i) for i in range(len(x0))]
        noise = torch.stack([torch.randn(x0.shape[1:], generator=generator) for generator in generators]).to(device)
        classes = torch.from_numpy(labels).to(device)
        return plain.both_neighbours(parts, x0, noise, classes, target=TARGET, stride=stride)

    return analyse


def works(settings: Settings) -> Iterator[Work]:
    parts = networks(settings.size, settings.device)
    n, steps = settings.amount(demo=(16, 20), paper=(1, 5), cuda=(256, 20))
    pixels, stride = parts.unet.config.sample_size, -(-parts.scheduler.config.num_train_timesteps // steps)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (n, pixels, pixels, 3), dtype=np.uint8), rng.integers(0, 3, n)
    ways = {
        PLAIN: plainly(parts, images, labels, stride),
        OURS: ours(parts, images, labels, stride),
        FLOOR: partial(passes, parts.unet, n, steps, gradient=True, precision="fp32"),
    }
    name = f"forward analysis, {settings.size}, {n} images × {steps} values of t"
    yield Work(name, ways, "forward passes and input gradients", {"ratio": 2}, min(settings.repeats, 3))
