"""The verb that makes image sets."""

from typing import Annotated

from typer import Argument, Option

from nrcg.cli.options import Out, data_verbs, parse_json


@data_verbs.command("make")
def make(
    kind: Annotated[str, Argument(help="sportballs, celeba, celebahq, or a kind that a --module registers.")],
    settings: Annotated[str, Option(help="What it is to be, as a config's section `images`: JSON, or @file.json.")],
    out: Out,
    threads: Annotated[int, Option(help="Threads that decode; 0 is one a core.", min=0, max=4096)] = 0,
) -> None:
    """Make an image set, and `contact_sheet.png` of its first images beside it."""
    from nrcg.datasets import make_images
    from nrcg.plots.samples import plot_contact_sheet

    image_set = make_images(kind, out, parse_json(settings, "--settings"), threads=threads)
    plot_contact_sheet(image_set, out / "contact_sheet.png")
