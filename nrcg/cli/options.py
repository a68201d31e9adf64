"""The application, the options that several verbs share, and their parsing."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nrcg.cli.console import LOG
from nrcg.errors import NrcgError
from nrcg.io.files import read_text, sha256
from nrcg.registry import load_module

if TYPE_CHECKING:  # torch is imported by the verbs that need it, so that --help answers at once
    import torch

app = typer.Typer(
    help="Diffusion classifier guidance for non-robust classifiers: data, training, analysis, sampling, figures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _group(name: str, help: str) -> typer.Typer:
    verbs = typer.Typer(help=help, no_args_is_help=True, pretty_exceptions_enable=False)
    app.add_typer(verbs, name=name)
    return verbs


data_verbs = _group("data", "Make image sets.")
train_verbs = _group("train", "Train classifiers and DDPMs.")
measure_verbs = _group("measure", "Measure the forward process; score samples.")
get_verbs = _group("get", "Download files; import published weights.")

Out = Annotated[Path, typer.Option("--out", help="Output file or folder.")]
Outs = Annotated[list[Path], typer.Option("--out", help="Output file; the suffix sets the format; can be repeated.")]
Data = Annotated[Path, typer.Option("--data", help="Image set, a folder made by `nrcg data make`.")]
Ddpm = Annotated[str, typer.Option("--ddpm", help="DDPM: a diffusers folder.")]
Checkpoint = Annotated[Path, typer.Option(help="Checkpoint file, to write and to resume from.")]
Scheduler = Annotated[str, typer.Option(help="Arguments of diffusers' DDPMScheduler: JSON, or @file.json.")]
Target = Annotated[str, typer.Option("--target", help="Target class: name or index.")]
On = Annotated[str, typer.Option("--on", help="Input of the classifier: xt, or x0 (the one-step prediction).")]
ClassLabel = Annotated[int | None, typer.Option(help="Class label for a class-conditional U-Net.", min=0)]
BatchSize = Annotated[int, typer.Option(help="Images per forward pass.", min=1)]
PRECISION = "Precision of the networks: fp32, bf16, or auto (bf16 if the hardware supports it)."
Precision = Annotated[str, typer.Option(help=PRECISION)]
Seed = Annotated[int, typer.Option(help="Random seed.", min=0)]
Device = Annotated[str, typer.Option(help="auto (CUDA if available), cpu, cuda (first free GPU) or cuda:N.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 means torch's default.", min=0, max=4096)]
Style = Annotated[Path | None, typer.Option(help="matplotlib style file; default: nrcg's.")]
Title = Annotated[str, typer.Option(help="Title of the figure or table.")]
Note = Annotated[list[str], typer.Option(help="Line of small print, such as the run's size; can be repeated.")]


@app.callback()
def _options(
    log: Annotated[
        Path | None, typer.Option(help="File for a copy of the verb's output.", callback=LOG.open, is_eager=True)
    ] = None,
    module: Annotated[
        list[str] | None, typer.Option(help="Your module to import: dotted name or .py file; can be repeated.")
    ] = None,
) -> None:
    """Options common to all verbs, allowed anywhere in a command."""
    for name in module or []:
        load_module(name)


def parse_any_json(text: str, option: str) -> Any:
    """A JSON value, or one from a file as `@file.json`."""
    text = read_text(text[1:]) if text.startswith("@") else text
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise NrcgError(f"{option}: not JSON ({error}); give JSON or @file.json") from None


def parse_json(text: str, option: str) -> dict[str, Any]:
    """A JSON object, or one from a file as `@file.json`."""
    value = parse_any_json(text, option)
    if not isinstance(value, dict):
        raise NrcgError(f'{option}: {text[:40]} is no JSON object; give {{"key": value, …}} or @file.json')
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of unique keys; Python's own reader would silently keep the last of two values."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key is given twice")
    return value


def parse_number(text: str, option: str) -> float:
    """A finite number, at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise NrcgError(f"{option} {text}: must be a number of at least 0, or auto")
    return value


def parse_target(text: str, classes: list[str]) -> int:
    """The index of a class given by name or index."""
    words = [*classes, *map(str, range(len(classes)))]
    if text not in words:
        raise NrcgError(f"--target {text}: no such class; classes are {', '.join(classes)} (0 to {len(classes) - 1})")
    return words.index(text) % len(classes)


def split_pair(text: str, option: str) -> tuple[str, str]:
    """`NAME=VALUE` as two strings; only the value may contain `=`."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise NrcgError(f"{option} {text!r}: write NAME=VALUE")
    return name, value


def set_up(device: str, threads: int) -> "torch.device":
    """The torch device by name; sets the number of CPU threads and disables TF32."""
    from nrcg.runtime.device import pick_device, set_up_torch

    set_up_torch(threads)
    return pick_device(device)


def network_digest(folder: str | Path) -> str:
    """Digest of a network's folder: weights and configurations."""
    ddpm = ("unet/diffusion_pytorch_model.safetensors", "unet/config.json", "scheduler/scheduler_config.json")
    return sha256(*filter(Path.is_file, (Path(folder, name) for name in ("model.safetensors", *ddpm))))
