"""SportBalls as the paper's config has it: 100 000 images at 64×64, on disk. Measured once, against no other way."""

import tempfile
from collections.abc import Iterator

import torch

from benchmarks.measure import OURS, Work
from benchmarks.networks import section
from nrcg.datasets import make_images

N = 100_000


def works(size: str, device: torch.device) -> Iterator[Work]:
    def draw() -> None:
        with tempfile.TemporaryDirectory() as folder:
            make_images("sportballs", folder, {**section("paper")["images"], "n": N})

    yield Work(f"SportBalls, {N} images of 64×64", {OURS: draw}, "60 s", 1)
