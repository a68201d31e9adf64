"""Verbs that bring files from elsewhere: downloads, and imports of weights in other formats."""

from pathlib import Path
from typing import Annotated

from typer import Option

from nrcg.cli.options import Out, get_verbs, parse_json

Url = Annotated[str, Option(help="Where it is from, for the card.")]
Digest = Annotated[str, Option(help="What the file must have: sha256:HEX or gitblob:HEX; goes on the card.")]


@get_verbs.command("file")
def download(
    url: Annotated[str, Option(help="Address of the file.")],
    digest: Annotated[str, Option(help="What the file must have: sha256:HEX, or gitblob:HEX (git's id of it).")],
    out: Annotated[Path, Option("--out", help="File to write; if it is there with this digest, nothing is fetched.")],
) -> None:
    """Fetch a file, going on where a broken download stopped, and check its digest."""
    from nrcg.io.download import download as fetch

    fetch(url, out, digest)


@get_verbs.command("inception")
def download_inception(out: Annotated[Path, Option("--out", help="File to write.")]) -> None:
    """Fetch pytorch-fid's Inception weights (91 MB) and check their digest."""
    from nrcg.evaluation.extractors import INCEPTION_SHA256, INCEPTION_URL
    from nrcg.io.download import download as fetch

    fetch(INCEPTION_URL, out, f"sha256:{INCEPTION_SHA256}")


@get_verbs.command("hub")
def download_hub(
    repo_id: Annotated[str, Option(help="Repository of the Hugging Face hub: OWNER/NAME.")],
    repo_type: Annotated[str, Option(help="model or dataset.")],
    pattern: Annotated[list[str], Option(help="Files to fetch, such as *.parquet; repeat for more.")],
    out: Annotated[Path, Option("--out", help="Folder to write; if it is there and whole, nothing is fetched.")],
    revision: Annotated[str, Option(help="Branch, tag or commit.")] = "main",
) -> None:
    """Fetch files of a hub repository and check their digests."""
    from nrcg.io.hub import download_hub as fetch

    fetch(repo_id, out, repo_type=repo_type, revision=revision, patterns=pattern)


@get_verbs.command("classifier")
def import_classifier(
    file: Annotated[Path, Option(help="Published weights: safetensors, each key with the prefix `classifier.`.")],
    out: Out,
    classes: Annotated[list[str], Option(help="Name of a class, in the order of the labels; repeat for each.")],
    architecture: Annotated[str, Option(help="Network of the weights.")] = "mobilenet_v3_small",
    url: Url = "",
    digest: Digest = "",
) -> None:
    """Make a classifier's folder of a file that the paper's authors published."""
    from nrcg.models.importing import import_classifier as bring

    bring(file, out, architecture=architecture, classes=classes, origin=_origin(file, url, digest))


@get_verbs.command("ddpm")
def import_ddpm(
    source: Annotated[Path, Option(help="A folder of diffusers, or the safetensors file of a U-Net.")],
    out: Out,
    unet: Annotated[str | None, Option(help="For a file: arguments of UNet2DModel, JSON or @file.json.")] = None,
    scheduler: Annotated[str | None, Option(help="For a file: of DDPMScheduler, JSON or @file.json.")] = None,
    url: Url = "",
    digest: Digest = "",
) -> None:
    """Make a DDPM's folder of published weights, old layouts and key names included."""
    from nrcg.models.importing import import_ddpm as bring

    bring(
        source,
        out,
        unet=parse_json(unet, "--unet") if unet else None,
        scheduler=parse_json(scheduler, "--scheduler") if scheduler else None,
        origin=_origin(source, url, digest),
    )


def _origin(file: Path, url: str, digest: str) -> dict[str, str]:
    """For the card; a file put there by hand has seen no check before this one."""
    from nrcg.io.download import require_digest

    if digest and file.is_file():
        require_digest(file, digest, origin=url)
    return {key: text for key, text in (("url", url), ("digest", digest)) if text}
