"""SportBalls as the paper's config has it: 100 000 images at 64×64, on disk. Measured once, against no other way."""

import tempfile
from collections.abc import Iterator

from benchmarks.measure import OURS, Settings, Work
from benchmarks.networks import section
from nrcg.datasets import make_images

N = 100_000


def works(settings: Settings) -> Iterator[Work]:
    n, images = settings.batch or N, section("paper")["images"]

    def draw() -> None:
        with tempfile.TemporaryDirectory() as folder:
            make_images("sportballs", folder, {**images, "n": n})

    reach = {"seconds": 60} if n == N else {}
    yield Work(f"SportBalls, {n} images of 64×64", {OURS: draw}, "writing 12 288 bytes an image", reach, repeats=1)
