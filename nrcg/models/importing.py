"""Weights that others published, brought into the project's folders. No pickle that holds more than tensors is opened.

The cards of what is imported hold `data: null`, and `origin`: whatever texts the caller gives (url, digest) and the
SHA-256 of the file that the weights were read from.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from nrcg.errors import NrcgError
from nrcg.io.files import sha256
from nrcg.models.classifier import build_classifier, save_classifier
from nrcg.models.ddpm import (
    WEIGHTS,
    build_scheduler,
    build_unet,
    describe_difference,
    load_scheduler,
    load_unet,
    save_ddpm,
    write_card,
)

PREFIX = "classifier."  # of every key in the classifiers that the paper's authors published


def import_classifier(
    file: str | Path,
    folder: str | Path,
    *,
    architecture: str = "mobilenet_v3_small",
    classes: Sequence[str],
    origin: dict[str, str],
) -> None:
    """Write a classifier's folder from a safetensors file in the format of the paper's authors.

    Its keys are `classifier.` and torchvision's name, such as `classifier.features.0.0.weight`. A classifier of two
    classes has a single logit, positive for the second; one of C > 2 classes has C. Raises NrcgError when the file is
    missing, damaged, of another architecture, or has a number of logits that does not fit `classes`.
    """
    file = Path(file)
    weights = _without_prefix(_read(file), file)
    n_logits = 1 if len(classes) == 2 else len(classes)
    model = build_classifier(architecture, n_logits)
    last = list(model.state_dict())[-1]  # the bias of the last layer: one for each logit
    if last in weights and len(weights[last]) != n_logits:
        raise NrcgError(
            f"{file}: {len(weights[last])} logits, but {len(classes)} classes need {n_logits}; check classes"
        )
    _load_strictly(model, weights, f"{file}: not weights of a {architecture}")
    card = {
        "architecture": architecture,
        "classes": list(classes),
        "n_logits": n_logits,
        "data": None,
        "data_digest": None,
        "origin": {**origin, "sha256": sha256(file)},
    }
    save_classifier(folder, model, card)


def _read(file: Path) -> dict[str, torch.Tensor]:
    _refuse_unreadable(file)
    weights = load_file(file)
    if wrong := [key for key, tensor in weights.items() if not tensor.isfinite().all()]:
        raise NrcgError(f"{file}: {min(wrong)} holds values that are not finite; get the file again")
    return weights


def _refuse_unreadable(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):  # reads the header, which knows how long the file must be
            pass
    except FileNotFoundError:
        raise NrcgError(f"{file}: no such file or folder") from None
    except (SafetensorError, OSError) as error:
        raise NrcgError(f"{file}: not a whole safetensors file ({error}); delete it and get it again") from None


def _without_prefix(weights: dict[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    if strange := [key for key in weights if not key.startswith(PREFIX)]:
        raise NrcgError(f"{file}: key {min(strange)} does not start with {PREFIX!r}; not a classifier of the authors")
    return {key.removeprefix(PREFIX): tensor for key, tensor in weights.items()}


def _load_strictly(model: nn.Module, weights: dict[str, torch.Tensor], complaint: str) -> None:
    expected = model.state_dict()
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        common = expected.keys() & weights.keys()
        mismatched = [key for key in common if expected[key].shape != weights[key].shape]
        difference = describe_difference(list(expected.keys() - common), list(weights.keys() - common), mismatched)
        raise NrcgError(f"{complaint} ({difference})") from None


def import_ddpm(
    source: str | Path,
    folder: str | Path,
    *,
    unet: dict[str, Any] | None = None,
    scheduler: dict[str, Any] | None = None,
    origin: dict[str, str],
) -> None:
    """Write a DDPM's folder, as `load_ddpm` opens it, with `card.json`, from published weights.

    source  a folder of diffusers, with `unet/` and `scheduler/` or with everything at its root, the weights as
            safetensors or else as a .bin file; or a safetensors file, with the arguments of its UNet2DModel in `unet`
            and those of its DDPMScheduler in `scheduler`

    Keys from before diffusers renamed its attention layers are converted. Raises NrcgError when a file is missing,
    damaged, or not of the network that is described, and for a pickle that holds more than tensors.
    """
    source = Path(source)
    if source.is_dir():
        if unet is not None or scheduler is not None:
            raise NrcgError(f"{source}: a folder describes its own U-Net and scheduler; give none beside it")
        weights, network = _unet_of_folder(source)
        noise_scheduler = load_scheduler(_part(source, "scheduler"))
    else:
        _refuse_unreadable(source)
        if unet is None or scheduler is None:
            raise NrcgError(f"{source}: a single file needs the arguments of its U-Net and of its scheduler")
        weights, network = source, _unet_of_file(source, unet)
        noise_scheduler = build_scheduler(scheduler)
    network.register_to_config(_name_or_path=None)  # a path of this machine
    save_ddpm(folder, network, noise_scheduler)
    origin = {**origin, "sha256": sha256(weights)}
    write_card(folder, {"data": None, "data_digest": None, "origin": origin})


def _part(source: Path, name: str) -> Path:
    return source / name if (source / name).is_dir() else source


def _unet_of_folder(source: Path) -> tuple[Path, UNet2DModel]:
    """The file of the weights, and the network."""
    part = _part(source, "unet")
    for suffix in (".safetensors", ".bin"):
        weights = part / (WEIGHTS + suffix)
        if weights.is_file():
            return weights, load_unet(part, use_safetensors=suffix == ".safetensors", name=weights)
    raise NrcgError(f"{part}: neither {WEIGHTS}.safetensors nor {WEIGHTS}.bin in this folder; not a whole DDPM")


def _unet_of_file(file: Path, unet: dict[str, Any]) -> UNet2DModel:
    """Read through a folder made around the file: diffusers converts old keys only when it opens one."""
    with tempfile.TemporaryDirectory() as folder:
        build_unet(unet).save_config(folder)
        (Path(folder) / f"{WEIGHTS}.safetensors").symlink_to(file.resolve())
        return load_unet(Path(folder), name=file)
