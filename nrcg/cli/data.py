"""Verbs that make image sets."""

from pathlib import Path
from typing import Annotated

from typer import Option

from nrcg.cli.options import Out, Seed, app


@app.command()
def sportballs(
    out: Out,
    n: Annotated[int, Option(help="Number of images.", min=1)] = 100_000,
    size: Annotated[int, Option(help="Width and height in pixels.", min=8)] = 64,
    seed: Seed = 0,
    ball: Annotated[list[str] | None, Option(help="Classes, in order; repeat the option.")] = None,
    icons: Annotated[Path | None, Option(help="Folder of your own PNGs instead of the drawn balls.")] = None,
    ball_pixels: Annotated[int, Option(help="Diameter of a ball at scale 1, in pixels.", min=2)] = 32,
    scale: Annotated[list[float] | None, Option(help="Scales drawn from; repeat the option.")] = None,
    positions: Annotated[int, Option(help="Balls' corners lie in [0, positions) pixels.", min=1)] = 32,
    valid_fraction: Annotated[float, Option(help="Share of the validation split.", min=0, max=1)] = 0.2,
) -> None:
    """Generate the SportBalls image set: one ball on white at a random place, rotation and scale."""
    from nrcg.datasets.imageset import contact_sheet
    from nrcg.datasets.sportballs import SCALES, THREE_BALLS, generate

    image_set = generate(
        out,
        n=n,
        size=size,
        seed=seed,
        balls=tuple(ball or (None if icons else THREE_BALLS) or ()) or None,
        icons=icons,
        ball_pixels=ball_pixels,
        scales=tuple(scale or SCALES),
        positions=positions,
        valid_fraction=valid_fraction,
    )
    contact_sheet(image_set, out / "contact_sheet.png")
