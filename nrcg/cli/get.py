"""Verbs that download files and import weights in other formats."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from nrcg.cli.options import Out, get_verbs, parse_json

Url = Annotated[str, Option(help="Address of the file; recorded on the card of an import.")]
Digest = Annotated[str, Option(help="Expected digest: sha256:HEX, or gitblob:HEX (git's id of the content).")]
FileOut = Annotated[Path, Option("--out", help="Output file; if it exists with this digest, nothing is fetched.")]
CelebAOut = Annotated[Path, Option("--out", help="Output folder; must be named celeba.")]
HubOut = Annotated[Path, Option("--out", help="Output folder; if it exists and is complete, nothing is fetched.")]
Json = Annotated[str, Option(help="For a file: arguments of its UNet2DModel or DDPMScheduler: JSON, @file.json.")]


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
    """Fetch CelebA (1.4 GB) with torchvision, which checks the files; existing files are not fetched again."""
    from nrcg.datasets.celeba import download_celeba

    download_celeba(out)


@get_verbs.command()
def torchvision(
    name: Annotated[str, Argument(help="Class of torchvision.datasets, such as FashionMNIST.")],
    out: Annotated[Path, Option("--out", help="Output folder, torchvision's `root`; existing files are kept.")],
    arguments: Annotated[str, Option(help="Further arguments of the class: JSON, or @file.json.")] = "{}",
) -> None:
    """Fetch a data set with torchvision, which checks the files; NAME.json marks the download as complete."""
    from nrcg.datasets.torchvision_sets import download_torchvision

    download_torchvision(name, out, parse_json(arguments, "--arguments"))


@get_verbs.command()
def hub(
    repo_id: Annotated[str, Option(help="Repository on the Hugging Face hub: OWNER/NAME.")],
    repo_type: Annotated[str, Option(help="model or dataset.")],
    pattern: Annotated[list[str], Option(help="Files to fetch, such as *.parquet; can be repeated.")],
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
    classes: Annotated[list[str], Option(help="Class name; repeat for each class, in the order of the labels.")],
    size: Annotated[list[int], Option(help="Image side in pixels; give two for height, then width.", min=1)],
    input: Annotated[str, Option(help="Its input: JSON of size, mean, std (on [0, 1]), interpolation.")] = "{}",
    outputs: Annotated[str, Option(help='JSON, output or outputs of each class: {"cat": [281, 282], …}.')] = "",
) -> None:
    """Import a classifier from torchvision, timm, transformers, a file or a function into a folder."""
    from nrcg.models.sources import import_classifier

    arguments: dict[str, Any] = {"input": parse_json(input, "--input"), "classes": classes, "size": (size * 2)[:2]}
    arguments["outputs"] = parse_json(outputs, "--outputs") if outputs else None
    import_classifier(parse_json(source, "--source"), out, **arguments)


@get_verbs.command()
def ddpm(
    source: Annotated[Path, Option(help="A diffusers folder, or the safetensors file of a U-Net.")],
    out: Out,
    unet: Json = "",
    scheduler: Json = "",
    url: Url = "",
    digest: Digest = "",
) -> None:
    """Import published DDPM weights into a folder; old layouts and key names are converted."""
    from nrcg.models.importing import import_ddpm

    parsed = {key: parse_json(text, f"--{key}") for key, text in (("unet", unet), ("scheduler", scheduler)) if text}
    import_ddpm(source, out, **parsed, url=url, digest=digest)
