"""SportBalls as the paper's config has it: 100 000 images at 64×64, on disk. Measured once, against no other way."""

import tempfile
from collections.abc import Iterator
from functools import partial

import yaml

from benchmarks.command import run
from benchmarks.measure import Way
from benchmarks.sizes import ROOT
from benchmarks.work import OURS, Reach, Settings, Work
from nrcg.datasets import make_images

N = 100_000


def ours(n: int) -> Way:
    images = yaml.safe_load((ROOT / "config/config.yaml").read_text())["datasets"]["sportballs"]["images"]

    def draw() -> None:
        with tempfile.TemporaryDirectory() as folder:
            make_images("sportballs", folder, {**images, "n": n})

    return draw


def works(settings: Settings) -> Iterator[Work]:
    n = settings.batch or N
    yield Work(
        name="SportBalls",
        size=f"{n} images of 64×64",
        amount=n,
        unit="image",
        ways={OURS: partial(ours, n)},
        reach=Reach(seconds=60) if n == N else Reach(),
        floor="writing 12 288 bytes an image",
        repeats=1,
        warm=False,
    )


def main(arguments: list[str]) -> None:
    run("sportballs", __doc__, [works], arguments)
