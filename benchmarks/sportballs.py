"""SportBalls as the paper's config has it: 100 000 images at 64×64, on disk. Measured once, against no other way."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import yaml

from benchmarks.command import run
from benchmarks.measure import Way
from benchmarks.sizes import ROOT
from benchmarks.work import OURS, Reach, Settings, Work
from nrcg.datasets.sportballs import generate

N = 100_000


def ours(n: int) -> Way:
    images = yaml.safe_load((ROOT / "config/config.yaml").read_text())["datasets"]["sportballs"]["images"]
    options = {key: images[key] for key in ("size", "seed", "ball_pixels", "scale", "positions", "valid_fraction")}
    options |= {"balls": images["ball"], "scales": options.pop("scale"), "n": n}

    def draw() -> None:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), **options)

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
