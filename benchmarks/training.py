"""DDPM training: `train_ddpm` against the plain loop of diffusers' example.

Ours is the whole function, data from disk included, in the precision of the project's configs (bf16 on a CPU too); its
first steps, and building and writing the network, are left out of the time. The plain loop has its images in memory.
"""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import plain
from benchmarks.measure import FLOOR, OURS, PLAIN, Seconds, Settings, Way, Work, synchronize
from benchmarks.networks import passes, section
from nrcg.datasets.imageset import write_image_set
from nrcg.models.ddpm import build_scheduler, build_unet
from nrcg.runtime.preemption import Stop
from nrcg.training.ddpm import DDPMTraining, train_ddpm

WARM = 2  # steps before the clock starts


class Clock(Stop):
    """`train_ddpm` asks it after each step whether to stop; it never does, and takes the time of all but the first."""

    def __init__(self, device: torch.device, steps: int) -> None:
        super().__init__()
        self.device, self.steps, self.done = device, steps, 0
        self.started = self.seconds = 0.0

    def check(self) -> None:
        self.done += 1
        if self.done in (WARM, self.steps):
            synchronize(self.device)
            now = time.perf_counter()
            self.started, self.seconds = now, now - self.started


def ours(config: dict[str, Any], device: torch.device, data: Path, batch: int, steps: int) -> Way:
    """A training of `steps` steps after the first, which are not in its time."""
    networks = {"unet": config["ddpm"]["unet"], "scheduler": config["scheduler"]}
    settings = DDPMTraining(epochs=1, batch_size=batch, precision="bf16")

    def train() -> Seconds:
        clock = Clock(device, WARM + steps)
        with tempfile.TemporaryDirectory() as name:
            out = Path(name)
            how = {"settings": settings, "checkpoint": out / "checkpoint", "device": device, "stop": clock}
            train_ddpm(data, out, **networks, **how)
        return Seconds(clock.seconds)

    return train


def works(settings: Settings) -> Iterator[Work]:
    batch, steps = settings.amount(demo=(64, 4), paper=(4, 2), cuda=(128, 20))
    config, device = section(settings.size), settings.device
    pixels, n = config["ddpm"]["unet"]["sample_size"], (WARM + steps) * batch
    images = np.random.default_rng(0).integers(0, 256, (n, pixels, pixels, 3), dtype=np.uint8)
    unet = build_unet(config["ddpm"]["unet"]).to(device)
    scheduler, precision = build_scheduler(config["scheduler"]), settings.precision
    with tempfile.TemporaryDirectory() as folder:
        train = np.zeros(n)  # the split and the labels
        write_image_set(folder, images, train, train, name="noise", classes=["noise"], seed=0, parameters={})
        ways = {
            PLAIN: plain.ddpm_training(unet, scheduler, images[: batch * steps], batch=batch, precision=precision),
            OURS: ours(config, device, Path(folder), batch, steps),
            FLOOR: partial(passes, unet, batch, 3 * steps, gradient=False, precision="bf16"),
        }
        name = f"DDPM training, {settings.size}, {steps} steps of {batch} images"
        yield Work(
            name, ways, "three forward passes a step", {"ratio": 2 if precision == "bf16" else 1.3}, settings.repeats
        )
