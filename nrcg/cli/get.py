"""Verbs that bring files from elsewhere: downloads, and imports of weights in other formats."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from nrcg.cli.options import Out, get_verbs, parse_json

Url = Annotated[str, Option(help="Address of the file; goes on the card of what is imported.")]
Digest = Annotated[str, Option(help="What the file must have: sha256:HEX, or gitblob:HEX (git's id of it).")]
FileOut = Annotated[Path, Option("--out", help="File to write; there with the right digest, nothing is fetched.")]
CelebAOut = Annotated[Path, Option("--out", help="Folder to write; it must be called celeba.")]
HubOut = Annotated[Path, Option("--out", help="Folder to write; if it is there and whole, nothing is fetched.")]
Json = Annotated[str, Option(help="For a file: its UNet2DModel's or DDPMScheduler's arguments: JSON, @file.json.")]


@get_verbs.command()
def file(url: Url, digest: Digest, out: FileOut) -> None:
    """Fetch a file and check its digest."""
    from nrcg.io.download import download

    download(url, out, digest)


@get_verbs.command()
def inception(out: FileOut) -> None:
    """Fetch pytorch-fid's Inception weights (91 MB) and check their digest."""
    from nrcg.evaluation.extractors import INCEPTION_SHA256, INCEPTION_URL

    file(INCEPTION_URL, f"sha256:{INCEPTION_SHA256}", out)


@get_verbs.command()
def celeba(out: CelebAOut) -> None:
    """Fetch CelebA (1.4 GB) with torchvision, which checks the files; nothing is fetched twice."""
    from nrcg.datasets.celeba import download_celeba

    download_celeba(out)


@get_verbs.command()
def torchvision(
    name: Annotated[str, Argument(help="Class of torchvision.datasets, such as FashionMNIST.")],
    out: Annotated[Path, Option("--out", help="Folder to write, torchvision's `root`; nothing is fetched twice.")],
    arguments: Annotated[str, Option(help="More of its class's arguments: JSON, or @file.json.")] = "{}",
) -> None:
    """Fetch a data set with torchvision, which checks the files; NAME.json beside them says that they are there."""
    from nrcg.datasets.torchvision_sets import download_torchvision

    download_torchvision(name, out, parse_json(arguments, "--arguments"))


@get_verbs.command()
def hub(
    repo_id: Annotated[str, Option(help="Repository of the Hugging Face hub: OWNER/NAME.")],
    repo_type: Annotated[str, Option(help="model or dataset.")],
    pattern: Annotated[list[str], Option(help="Files to fetch, such as *.parquet; repeat for more.")],
    out: HubOut,
    revision: Annotated[str, Option(help="Branch, tag or commit.")] = "main",
) -> None:
    """Fetch files of a hub repository and check their digests."""
    from nrcg.io.hub import download_hub

    download_hub(repo_id, out, repo_type=repo_type, revision=revision, patterns=pattern)


@get_verbs.command()
def classifier(
    source: Annotated[str, Option(help='JSON, or @file.json, such as {"timm": {"name": "resnet18.a1_in1k"}}.')],
    out: Out,
    classes: Annotated[list[str], Option(help="Name of a class, in the order of the labels; repeat for each.")],
    size: Annotated[list[int], Option(help="Of the images: a side in pixels; twice for height, then width.", min=1)],
    input: Annotated[str, Option(help="What it takes: JSON of size, mean, std (on [0, 1]), interpolation.")] = "{}",
    outputs: Annotated[str, Option(help='JSON, each class\'s output or outputs: {"cat": [281, 282], …}.')] = "",
) -> None:
    """Make a classifier's folder of one from elsewhere: torchvision, timm, transformers, a file, a function."""
    from nrcg.models.sources import import_classifier

    arguments: dict[str, Any] = {"input": parse_json(input, "--input"), "classes": classes, "size": (size * 2)[:2]}
    arguments["outputs"] = parse_json(outputs, "--outputs") if outputs else None
    import_classifier(parse_json(source, "--source"), out, **arguments)


@get_verbs.command()
def ddpm(
    source: Annotated[Path, Option(help="A folder of diffusers, or the safetensors file of a U-Net.")],
    out: Out,
    unet: Json = "",
    scheduler: Json = "",
    url: Url = "",
    digest: Digest = "",
) -> None:
    """Make a DDPM's folder of published weights, old layouts and key names included."""
    from nrcg.models.importing import import_ddpm

    parsed = {key: parse_json(text, f"--{key}") for key, text in (("unet", unet), ("scheduler", scheduler)) if text}
    import_ddpm(source, out, **parsed, url=url, digest=digest)
