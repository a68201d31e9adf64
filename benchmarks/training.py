"""DDPM training: `train_ddpm` in bf16, data from disk, less its first steps; the plain loop is diffusers' example."""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import plain
from benchmarks.measure import OURS, PLAIN, Seconds, Way, Work, synchronize
from benchmarks.networks import section
from nrcg.datasets.imageset import write_image_set
from nrcg.models.ddpm import build_scheduler, build_unet
from nrcg.runtime.preemption import Stop
from nrcg.training.ddpm import DDPMTraining, train_ddpm

WARM = 2  # steps before the clock starts
AMOUNTS = {"demo": (64, 4), "paper": (4, 2), "gpu": (128, 20)}  # batch, steps


class Clock(Stop):
    """`train_ddpm` asks it after each step whether to stop; it takes the time of all but the first."""

    def __init__(self, device: torch.device, steps: int) -> None:
        super().__init__()
        self.device, self.last, self.done, self.seconds = device, WARM + steps, 0, 0.0

    def check(self) -> None:
        self.done += 1
        if self.done in (WARM, self.last):
            synchronize(self.device)
            self.seconds = time.perf_counter() - self.seconds


def ours(config: dict[str, Any], device: torch.device, data: str, batch: int, steps: int) -> Seconds:
    """The time of `steps` steps, after the first."""
    how: dict[str, Any] = {"settings": DDPMTraining(epochs=1, batch_size=batch, precision="bf16"), "device": device}
    networks, clock = {"unet": config["ddpm"]["unet"], "scheduler": config["scheduler"]}, Clock(device, steps)
    with tempfile.TemporaryDirectory() as out:
        train_ddpm(data, out, checkpoint=Path(out, "checkpoint"), stop=clock, **networks, **how)
    return Seconds(clock.seconds)


def works(size: str, device: torch.device) -> Iterator[Work]:
    config, (batch, steps) = section(size), AMOUNTS[size]
    pixels, n = config["ddpm"]["unet"]["sample_size"], (WARM + steps) * batch
    images, zeros = np.random.default_rng(0).integers(0, 256, (n, pixels, pixels, 3), dtype=np.uint8), np.zeros(n)
    unet, scheduler = build_unet(config["ddpm"]["unet"]).to(device), build_scheduler(config["scheduler"])
    with tempfile.TemporaryDirectory() as folder:
        write_image_set(folder, images, zeros, zeros, name="noise", classes=["noise"], seed=0, parameters={})
        theirs = plain.ddpm_training(unet, scheduler, images[: batch * steps], batch)
        ways: dict[str, Way] = {PLAIN: theirs, OURS: partial(ours, config, device, folder, batch, steps)}
        ways |= plain.floor(unet, batch, 3 * steps, gradient=False, bf16=True)
        reach = "2 ×" if device.type == "cuda" else "1.3 ×"
        yield Work(f"DDPM training, {size}, {steps} steps of {batch} images", ways, reach)
