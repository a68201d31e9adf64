"""Verbs that make image sets, and the one that fetches what CelebA's is made of."""

from pathlib import Path
from typing import Annotated

from typer import Option

from nrcg.cli.options import Out, Seed, data_verbs

Classes = Annotated[list[str] | None, Option(help="Names of the two classes, label 0 first; repeat the option.")]
Size = Annotated[int, Option(help="Width and height in pixels.", min=8)]


@data_verbs.command("sportballs")
def sportballs(
    out: Out,
    n: Annotated[int, Option(help="Number of images.", min=1)] = 100_000,
    size: Size = 64,
    seed: Seed = 0,
    ball: Annotated[list[str] | None, Option(help="Classes, in order; repeat the option.")] = None,
    icons: Annotated[Path | None, Option(help="Folder of your own PNGs instead of the drawn balls.")] = None,
    ball_pixels: Annotated[int, Option(help="Diameter of a ball at scale 1, in pixels.", min=2)] = 32,
    scale: Annotated[list[float] | None, Option(help="Scales drawn from; repeat the option.")] = None,
    positions: Annotated[int, Option(help="Balls' corners lie in [0, positions) pixels.", min=1)] = 32,
    valid_fraction: Annotated[float, Option(help="Share of the validation split.", min=0, max=1)] = 0.2,
) -> None:
    """Generate the SportBalls image set: one ball on white at a random place, rotation and scale."""
    from nrcg.datasets.sportballs import SCALES, THREE_BALLS, generate
    from nrcg.plots.contact_sheet import plot_contact_sheet

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
    plot_contact_sheet(image_set, out / "contact_sheet.png")


@data_verbs.command("celeba")
def celeba(
    source: Annotated[Path, Option(help="Folder in CelebA's layout: img_align_celeba/ and the two lists.")],
    out: Out,
    size: Size = 64,
    attribute: Annotated[str, Option(help="Attribute that gives the classes: -1 is the first, 1 the second.")] = "Male",
    classes: Classes = None,
    crop: Annotated[
        int | None, Option(help="Central square to cut out first, in pixels; default: none.", min=1)
    ] = None,
    threads: Annotated[int, Option(help="Threads that decode; 0 is one a core.", min=0, max=4096)] = 0,
) -> None:
    """Make an image set of CelebA: its aligned faces, resized, in two classes and its own three splits."""
    from nrcg.datasets.celeba import convert_celeba
    from nrcg.plots.contact_sheet import plot_contact_sheet

    image_set = convert_celeba(
        source,
        out,
        size=size,
        attribute=attribute,
        classes=tuple(classes or ("female", "male")),
        crop=crop,
        threads=threads,
    )
    plot_contact_sheet(image_set, out / "contact_sheet.png")


@data_verbs.command("celebahq")
def celebahq(
    source: Annotated[Path, Option(help="Folder with the parquet files of korexyz/celeba-hq-256x256.")],
    out: Out,
    size: Size = 256,
    label: Annotated[str, Option(help="Column with the classes 0 and 1.")] = "label",
    classes: Classes = None,
) -> None:
    """Make an image set of CelebA-HQ from the hub's parquet files, in two classes and its own two splits."""
    from nrcg.datasets.celebahq import convert_celebahq
    from nrcg.plots.contact_sheet import plot_contact_sheet

    image_set = convert_celebahq(source, out, size=size, label=label, classes=tuple(classes or ("female", "male")))
    plot_contact_sheet(image_set, out / "contact_sheet.png")


@data_verbs.command("celeba")
def download_celeba(out: Annotated[Path, Option("--out", help="Folder to write; it must be called celeba.")]) -> None:
    """Fetch CelebA (1.4 GB) with torchvision, which checks the files; nothing is fetched twice."""
    from nrcg.datasets.celeba import download_celeba as download

    download(out)
