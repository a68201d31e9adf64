"""Verbs that bring files from elsewhere: downloads, and imports of weights in other formats."""

from pathlib import Path
from typing import Annotated

from typer import Option

from nrcg.cli.options import app


@app.command()
def download_inception(out: Annotated[Path, Option("--out", help="File to write.")]) -> None:
    """Fetch pytorch-fid's Inception weights (91 MB) and check their digest."""
    from nrcg.download import download
    from nrcg.metrics.features import INCEPTION_SHA256, INCEPTION_URL

    download(INCEPTION_URL, out, INCEPTION_SHA256)
