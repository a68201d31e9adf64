"""Guided and unguided sampling: our pipeline against a plain loop on diffusers.

Guided on x̂_0 by the logit with EMA 0.99, guided on x_t by log p, and unguided. The plain loop takes one random
generator for the batch, on the device; ours takes one a sample, on the CPU, which makes a sample the same in any batch.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks import plain
from benchmarks.measure import COMPILED, FLOOR, OURS, PLAIN, Settings, Work
from benchmarks.networks import Networks, networks, passes
from nrcg import EMA, ClassifierGuidance, GuidedDDPMPipeline
from nrcg.rng import keyed_generator
from nrcg.speed import prepare

REACH = {  # on a CPU, on CUDA
    "guided on x0": ({"ratio": 1.5}, {"ratio": 3, "memory": 0.5}),
    "guided on xt": ({"ratio": 1.3}, {"ratio": 2}),
    "unguided": ({"ratio": 1.3}, {"ratio": 2}),
}
TARGET, SCALE_X0, SCALE_XT, DECAY = 0, 20.0, 5.0, 0.99
Sampler = Callable[..., torch.Tensor]  # (generator=None) → images N×3×H×W in [0, 1]


def ours(parts: Networks, mode: str, *, batch: int, steps: int, precision: str, compiled: bool = False) -> Sampler:
    """Our path as `nrcg sample` takes it; everything that makes it fast is switched on here."""
    parts = copy.deepcopy(parts)
    unet, classifier = (prepare(part, precision=precision, compile=compiled) for part in (parts.unet, parts.classifier))
    pipeline = GuidedDDPMPipeline(unet=unet, scheduler=parts.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    guidance = {
        "guided on x0": ClassifierGuidance(classifier, TARGET, SCALE_X0, objective="logit", stabilizer=EMA(DECAY)),
        "guided on xt": ClassifierGuidance(classifier, TARGET, SCALE_XT, on="xt"),
        "unguided": None,
    }[mode]

    def sample(generator: plain.Generator | None = None) -> torch.Tensor:
        generator = generator or [keyed_generator("sampling", 0, i) for i in range(batch)]
        return pipeline(batch, generator, num_inference_steps=steps, output_type="pt", guidance=guidance).images

    return sample


def plainly(parts: Networks, mode: str, **amount: int | str) -> Sampler:
    parts = parts.in_default_layout()
    loop = {
        "guided on x0": partial(plain.guided, on="x0", target=TARGET, scale=SCALE_X0, decay=DECAY),
        "guided on xt": partial(plain.guided, on="xt", target=TARGET, scale=SCALE_XT),
        "unguided": plain.unguided,
    }[mode]

    def sample(generator: plain.Generator | None = None) -> torch.Tensor:
        return loop(parts, generator or torch.Generator(parts.unet.device).manual_seed(0), **amount)

    return sample


def works(settings: Settings) -> Iterator[Work]:
    parts, precision = networks(settings.size, settings.device), settings.precision
    batch, steps = settings.amount(demo=(32, 8), paper=(2, 2), cuda=(256, 10))
    amount = {"batch": batch, "steps": steps, "precision": precision}
    for mode, reach in REACH.items():
        gradient = mode == "guided on x0"
        ways = {
            PLAIN: plainly(parts, mode, **amount),
            OURS: ours(parts, mode, **amount),
            FLOOR: partial(passes, parts.unet, batch, steps, gradient=gradient, precision=precision),
        }
        if settings.compiled:
            torch._dynamo.reset()  # what another mode compiled would serve here too
            ways[COMPILED] = ours(parts, mode, **amount, compiled=True)
        name = f"{mode}, {settings.size}, {batch} images × {steps} steps, {precision}"
        floor = "forward passes and input gradients" if gradient else "forward passes"
        yield Work(name, ways, floor, reach[precision == "bf16"], settings.repeats)
