"""Guided and unguided sampling: our pipeline against a plain loop on diffusers.

Guided on x̂_0 by the logit with EMA 0.99, guided on x_t by log p, and unguided. The plain loop takes one random
generator for the batch, on the device; ours takes one a sample, on the CPU, which makes a sample the same in any batch.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks import plain
from benchmarks.command import run
from benchmarks.sizes import Networks, networks, pass_flops
from benchmarks.work import CHECKPOINTED, COMPILED, OURS, Reach, Settings, Work
from nrcg import EMA, ClassifierGuidance, GuidedDDPMPipeline
from nrcg.rng import keyed_generator
from nrcg.speed import prepare

MODES = {"guided on x0": 2, "guided on xt": 1, "unguided": 1}  # passes that a step takes at least; a gradient is one
REACH = {
    ("guided on x0", "cuda"): Reach(ratio=3, memory=0.5, share=0.4),
    ("guided on x0", "cpu"): Reach(ratio=1.5),
    ("guided on xt", "cuda"): Reach(ratio=2),
    ("guided on xt", "cpu"): Reach(ratio=1.3),
    ("unguided", "cuda"): Reach(ratio=2),
    ("unguided", "cpu"): Reach(ratio=1.3),
}
AMOUNT = {  # images, steps
    ("demo", "cpu"): (32, 8),
    ("demo", "cuda"): (256, 10),
    ("paper", "cpu"): (2, 2),
    ("paper", "cuda"): (256, 10),
    ("hq", "cpu"): (1, 2),
    ("hq", "cuda"): (16, 5),
}
TARGET, SCALE_X0, SCALE_XT, DECAY = 0, 20.0, 5.0, 0.99
Sampler = Callable[..., torch.Tensor]  # (generator=None) → images N×3×H×W in [0, 1]


def ours(
    parts: Networks, mode: str, *, batch: int, steps: int, compiled: bool = False, checkpointed: bool = False
) -> Sampler:
    """Our path as `nrcg sample` takes it; everything that makes it fast is switched on here.

    checkpointed   activations of the U-Net's blocks are computed again on the way back: less memory, more time
    """
    parts = parts.copy()
    if compiled:
        torch._dynamo.reset()  # what another mode compiled would serve here too, and its time be missing
    precision = "bf16" if parts.unet.device.type == "cuda" else "fp32"
    unet, classifier = (prepare(part, precision=precision, compile=compiled) for part in (parts.unet, parts.classifier))
    if checkpointed:
        unet.enable_gradient_checkpointing()
    pipeline = GuidedDDPMPipeline(unet=unet, scheduler=parts.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    guidance = {
        "guided on x0": ClassifierGuidance(classifier, TARGET, SCALE_X0, objective="logit", stabilizer=EMA(DECAY)),
        "guided on xt": ClassifierGuidance(classifier, TARGET, SCALE_XT, on="xt"),
        "unguided": None,
    }[mode]

    def sample(generator: plain.Generator | None = None) -> torch.Tensor:
        generator = generator or [keyed_generator("sampling", 0, i) for i in range(batch)]
        return pipeline(batch, generator, steps, "pt", guidance=guidance).images

    return sample


def plainly(parts: Networks, mode: str, *, batch: int, steps: int, precision: str) -> Sampler:
    """The plain loop."""
    parts = parts.in_default_layout()
    amount = {"batch": batch, "steps": steps, "precision": precision}

    def sample(generator: plain.Generator | None = None) -> torch.Tensor:
        generator = generator or torch.Generator(parts.unet.device).manual_seed(0)
        if mode == "unguided":
            return plain.unguided(parts.unet, parts.scheduler, generator, **amount)
        everything = parts.unet, parts.classifier, parts.scheduler, generator
        if mode == "guided on xt":
            return plain.guided_on_xt(*everything, target=TARGET, scale=SCALE_XT, **amount)
        return plain.guided_on_x0(*everything, target=TARGET, scale=SCALE_X0, decay=DECAY, **amount)

    return sample


def works(settings: Settings) -> Iterator[Work]:
    parts = networks(settings.size, settings.device)
    one_pass = pass_flops(parts.unet)
    batch, steps = AMOUNT[settings.size, settings.device.type]
    amount = {"batch": settings.batch or batch, "steps": settings.steps or steps}
    for mode, passes in MODES.items():
        ways = {"plain fp32": partial(plainly, parts, mode, **amount, precision="fp32")}
        if settings.half:
            ways["plain bf16"] = partial(plainly, parts, mode, **amount, precision="bf16")
        ways[OURS] = partial(ours, parts, mode, **amount)
        if passes == 2:  # the others keep no activations
            ways[CHECKPOINTED] = partial(ours, parts, mode, **amount, checkpointed=True)
        if settings.compiled:
            ways[COMPILED] = partial(ours, parts, mode, **amount, compiled=True)
        yield Work(
            name=mode,
            size="{size}, {batch} images × {steps} steps".format(size=settings.size, **amount),
            amount=amount["batch"] * amount["steps"],
            unit="image-step",
            ways=ways,
            against=settings.against,
            reach=REACH[mode, settings.device.type],
            floor="a forward pass and its input gradient" if passes == 2 else "a forward pass",
            flops=passes * one_pass,
            repeats=settings.repeats,
        )


def main(arguments: list[str]) -> None:
    run("sampling", __doc__, [works], arguments)
