"""DDPM training: `train_ddpm` against the plain loop of diffusers' example.

Ours is the whole function, data from disk included, in the precision of the project's configs (bf16 on a CPU too); its
first steps, and building and writing the network, are left out of the time. The plain loop has its images in memory.
"""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import plain
from benchmarks.command import run
from benchmarks.measure import Seconds, Way, synchronize
from benchmarks.sizes import configs, pass_flops
from benchmarks.work import OURS, Reach, Settings, Work
from nrcg.datasets.imageset import write_image_set
from nrcg.models.ddpm import build_scheduler, build_unet
from nrcg.runtime.preemption import Stop
from nrcg.training.ddpm import DDPMTraining, train_ddpm

WARM = 2  # steps before the clock starts
REACH = {"cuda": Reach(ratio=2), "cpu": Reach(ratio=1.3)}
AMOUNT = {  # images a step, steps
    ("demo", "cpu"): (64, 4),
    ("demo", "cuda"): (128, 20),
    ("paper", "cpu"): (4, 2),
    ("paper", "cuda"): (128, 10),
    ("hq", "cpu"): (1, 1),
    ("hq", "cuda"): (16, 5),
}


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


def ours(size: str, device: torch.device, data: Path, *, batch: int, steps: int, precision: str) -> Way:
    """A training of `steps` steps after the first, which are not in its time."""
    unet, scheduler = configs(size)
    settings = DDPMTraining(epochs=1, batch_size=batch, precision=precision)

    def train() -> Seconds:
        clock = Clock(device, WARM + steps)
        with tempfile.TemporaryDirectory() as name:
            out = Path(name)
            train_ddpm(
                data,
                out,
                unet=unet,
                scheduler=scheduler,
                settings=settings,
                checkpoint=out / "checkpoint",
                device=device,
                stop=clock,
            )
        return Seconds(clock.seconds)

    return train


def plainly(size: str, device: torch.device, images: np.ndarray, *, batch: int, precision: str) -> Way:
    """An epoch over as many images as ours takes the time of."""
    unet, scheduler = configs(size)
    network = build_unet(unet).to(device)
    return plain.ddpm_training(network, build_scheduler(scheduler), images, batch=batch, precision=precision)


def works(settings: Settings) -> Iterator[Work]:
    batch, steps = AMOUNT[settings.size, settings.device.type]
    batch, steps = settings.batch or batch, settings.steps or steps
    unet, _ = configs(settings.size)
    pixels, n = unet["sample_size"], (WARM + steps) * batch
    images = np.random.default_rng(0).integers(0, 256, (n, pixels, pixels, 3), dtype=np.uint8)
    common = settings.size, settings.device
    with tempfile.TemporaryDirectory() as folder:
        train = np.zeros(n)  # the split and the labels
        write_image_set(folder, images, train, train, name="noise", classes=["noise"], seed=0, parameters={})
        ways = {
            f"plain {precision}": partial(plainly, *common, images[: batch * steps], batch=batch, precision=precision)
            for precision in ("fp32", "bf16")
        }
        ways[OURS] = partial(ours, *common, Path(folder), batch=batch, steps=steps, precision="bf16")
        yield Work(
            name="DDPM training",
            size=f"{settings.size}, {steps} steps of {batch} images",
            amount=batch * steps,
            unit="image",
            ways=ways,
            against=settings.against,
            reach=REACH[settings.device.type],
            floor="three forward passes",
            flops=3 * pass_flops(build_unet(unet)),
            repeats=settings.repeats,
        )


def main(arguments: list[str]) -> None:
    run("training", __doc__, [works], arguments)
