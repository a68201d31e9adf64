"""Guided and unguided sampling: our pipeline, a generator a sample, against a plain loop, one for the batch."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks import plain
from benchmarks.measure import OURS, PLAIN, Way, Work
from benchmarks.networks import Networks, networks
from nrcg import EMA, ClassifierGuidance, GuidedDDPMPipeline
from nrcg.rng import keyed_generator
from nrcg.speed import prepare

AMOUNTS = {"demo": (32, 8), "paper": (2, 2), "gpu": (256, 10)}  # images, steps
MODES: dict[str, tuple[dict[str, Any], str, str]] = {  # guidance; what ours is meant to reach on a CPU, on CUDA
    "guided on x0": ({"on": "x0", "target": 0, "scale": 20.0}, "1.5 ×", "3 ×, 0.5 × memory"),
    "guided on xt": ({"on": "xt", "target": 0, "scale": 5.0}, "1.3 ×", "2 ×"),
    "unguided": ({}, "1.3 ×", "2 ×"),
}
Sampler = Callable[..., torch.Tensor]  # (generator=None) → images N×3×H×W in [0, 1]


def ours(parts: Networks, mode: str, batch: int, steps: int) -> Sampler:
    """Our path as `nrcg sample` takes long work; everything that makes it fast is switched on here."""
    parts, cuda = copy.deepcopy(parts), parts.unet.device.type == "cuda"
    precision = "bf16" if cuda else "fp32"
    unet, classifier = (prepare(part, precision=precision, compile=cuda) for part in (parts.unet, parts.classifier))
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


def plainly(parts: Networks, mode: str, batch: int, steps: int) -> Sampler:
    loop = plain.unguided if mode == "unguided" else plain.guided
    return partial(loop, parts.in_default_layout(), batch=batch, steps=steps, **MODES[mode][0])


def works(size: str, device: torch.device) -> Iterator[Work]:
    parts, (batch, steps), cuda = networks(size, device), AMOUNTS[size], device.type == "cuda"
    for mode, (_, *reach) in MODES.items():
        ways: dict[str, Way] = {PLAIN: plainly(parts, mode, batch, steps), OURS: ours(parts, mode, batch, steps)}
        ways |= plain.floor(parts.unet, batch, steps, gradient=mode == "guided on x0", bf16=cuda)
        torch._dynamo.reset()  # what another mode compiled would serve here too
        yield Work(f"{mode}, {size}, {batch} images × {steps} steps", ways, reach[cuda])
