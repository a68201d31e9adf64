"""Forward analysis on x̂_0 over n values of t, in float32: ours takes n passes of the U-Net, the plain way 2n − 1."""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks import plain
from benchmarks.measure import OURS, PLAIN, Way, Work
from benchmarks.networks import Networks, networks
from nrcg.evaluation.forward import forward_analysis
from nrcg.speed import prepare

TARGET = 0
AMOUNTS = {"demo": (16, 20), "paper": (1, 5), "gpu": (256, 20)}  # images, values of t


def ours(parts: Networks, images: np.ndarray, labels: np.ndarray, stride: int) -> Way:
    parts = copy.deepcopy(parts)
    networks: dict[str, Any] = {"unet": prepare(parts.unet), "scheduler": parts.scheduler, "on": "x0"}
    how: dict[str, Any] = {"target": TARGET, "setups": {"raw": None}, "seed": 0, "stride": stride}
    how["batch_size"] = len(images)
    return partial(forward_analysis, images, prepare(parts.classifier), labels=labels, **networks, **how)


def plainly(parts: Networks, images: np.ndarray, labels: np.ndarray, stride: int) -> Way:
    return partial(plain.both_neighbours, parts.in_default_layout(), images, labels, target=TARGET, stride=stride)


def works(size: str, device: torch.device) -> Iterator[Work]:
    parts, (n, steps) = networks(size, device), AMOUNTS[size]
    pixels, stride = parts.unet.config.sample_size, -(-parts.scheduler.config.num_train_timesteps // steps)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (n, pixels, pixels, 3), dtype=np.uint8), rng.integers(0, 3, n)
    ways = {PLAIN: plainly(parts, images, labels, stride), OURS: ours(parts, images, labels, stride)}
    ways |= plain.floor(parts.unet, n, steps, gradient=True, bf16=False)
    yield Work(f"forward analysis, {size}, {n} images × {steps} values of t", ways, "2 ×", 3)
