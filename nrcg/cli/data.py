"""Verbs that make image sets and inspect folders of images."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from nrcg.cli.options import Out, data_verbs, parse_json
from nrcg.datasets import kinds  # light: it imports no torch


@data_verbs.command("make")
def make(
    kind: Annotated[str, Argument(help=f"{', '.join(kinds)}, or a kind that a --module registers.")],
    settings: Annotated[str, Option(help="The config's section `images` without `kind`: JSON, or @file.json.")],
    out: Out,
    threads: Annotated[int, Option(help="Decoding threads; 0 means one per core.", min=0, max=4096)] = 0,
) -> None:
    """Make an image set, with `contact_sheet.png` of its first images beside it."""
    from nrcg.datasets import make_images
    from nrcg.plots.samples import plot_contact_sheet

    image_set = make_images(kind, out, parse_json(settings, "--settings"), threads=threads)
    plot_contact_sheet(image_set, out / "contact_sheet.png")


@data_verbs.command("describe")
def describe(
    folder: Annotated[Path, Argument(help="Folder with one folder per class, or with train/, valid/ and test/.")],
    settings: Annotated[str, Option(help="Other keys of the kind `folder`: JSON, or @file.json.")] = "{}",
    sheet: Annotated[Path | None, Option(help="File for a sheet of the first pictures, .png or .pdf.")] = None,
) -> None:
    """List what the kind `folder` would read (classes, sizes, formats) and the files it would skip."""
    from nrcg.datasets.describe import describe

    describe(folder, parse_json(settings, "--settings"), print, sheet)
