"""Forward analysis on x̂_0: our single walk down t against evaluating x_t and its neighbour at each t.

Accuracy, logit and gradient sensitivity of raw gradients. Over n values of t ours takes n passes of the U-Net, plain
2n − 1, as the image itself needs none: evaluating once alone gives just under 2 ×. Both are float32, on CUDA too: in
half precision neighbours would differ by rounding.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
import torch

from benchmarks import plain
from benchmarks.command import run
from benchmarks.measure import Way
from benchmarks.sizes import Networks, networks, pass_flops
from benchmarks.work import OURS, Reach, Settings, Work
from nrcg.evaluation.forward import forward_analysis
from nrcg.io.images import to_float
from nrcg.rng import keyed_generator
from nrcg.speed import prepare

AMOUNT = {  # images, values of t
    ("demo", "cpu"): (16, 20),
    ("demo", "cuda"): (256, 50),
    ("paper", "cpu"): (1, 5),
    ("paper", "cuda"): (128, 20),
    ("hq", "cpu"): (1, 2),
    ("hq", "cuda"): (8, 10),
}
TARGET = 0


def ours(parts: Networks, images: np.ndarray, labels: np.ndarray, stride: int) -> Way:
    parts = parts.copy()
    unet, classifier = prepare(parts.unet), prepare(parts.classifier)

    def analyse() -> pd.DataFrame:
        return forward_analysis(
            images,
            classifier,
            target=TARGET,
            labels=labels,
            unet=unet,
            scheduler=parts.scheduler,
            on="x0",
            setups={"raw": None},
            seed=0,
            batch_size=len(images),
            stride=stride,
        )

    return analyse


def plainly(parts: Networks, images: np.ndarray, labels: np.ndarray, stride: int) -> Way:
    parts, device = parts.in_default_layout(), parts.unet.device

    def analyse() -> dict[int, dict[str, float]]:
        x0 = to_float(images, device)
        generators = [keyed_generator("forward noise", 0, i) for i in range(len(x0))]
        noise = torch.stack([torch.randn(x0.shape[1:], generator=generator) for generator in generators])
        everything = parts.unet, parts.classifier, parts.scheduler, x0, noise.to(device)
        return plain.both_neighbours(*everything, torch.from_numpy(labels).to(device), target=TARGET, stride=stride)

    return analyse


def works(settings: Settings) -> Iterator[Work]:
    parts = networks(settings.size, settings.device)
    n, steps = AMOUNT[settings.size, settings.device.type]
    n, steps = settings.batch or n, settings.steps or steps
    pixels, stride = parts.unet.config.sample_size, -(-parts.scheduler.config.num_train_timesteps // steps)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (n, pixels, pixels, 3), dtype=np.uint8), rng.integers(0, 3, n)
    everything = parts, images, labels, stride
    yield Work(
        name="forward analysis",
        size=f"{settings.size}, {n} images × {steps} values of t",
        amount=n * steps,
        unit="image-step",
        ways={"plain fp32": partial(plainly, *everything), OURS: partial(ours, *everything)},
        against="plain fp32",
        reach=Reach(ratio=2),
        floor="a forward pass and its input gradient",
        flops=2 * pass_flops(parts.unet),
        repeats=min(settings.repeats, 3),
    )


def main(arguments: list[str]) -> None:
    run("forward", __doc__, [works], arguments)
