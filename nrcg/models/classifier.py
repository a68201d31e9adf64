"""Classifiers on disk (weights and a card); their predictions and features."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from nrcg.errors import NrcgError, first_line
from nrcg.io.files import atomic, read_card, require_digest, sha256, write_json
from nrcg.models.adapter import Adapter, adapt
from nrcg.models.architectures import build_classifier
from nrcg.runtime.memory import is_out_of_memory


def save_classifier(folder: str | Path, model: nn.Module, card: dict[str, Any]) -> None:
    """Write weights and card, with their SHA-256.

    Args:
        model: the bare network, without its adapter.
        card: `architecture` (see `build_classifier`), `n_logits`, `classes`; for an imported classifier also `input`
            (arguments of `adapt`) and `outputs`.
    """
    weights = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    place = Path(folder) / "model.safetensors"
    with atomic(place) as file:
        file.write(save(weights))
    write_json(Path(folder) / "card.json", {**card, "sha256": sha256(place)})


def load_classifier(folder: str | Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The classifier in eval mode, and its card; NrcgError if missing, damaged or inconsistent."""
    place, path = Path(folder) / "card.json", Path(folder) / "model.safetensors"
    card = read_card(place, architecture=(str, dict), n_logits=int, classes=list)
    classes, n_logits, outputs = card["classes"], card["n_logits"], card.get("outputs")
    n = len(outputs) if outputs else 2 if n_logits == 1 else n_logits
    if not all(isinstance(name, str) for name in classes) or len(classes) != n:
        raise NrcgError(f"{place}: n_logits {n_logits} does not fit classes {classes}; delete and remake the folder")
    model = build_classifier(card["architecture"], n_logits)
    if "sha256" in card:
        require_digest(path, card["sha256"], place)
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise NrcgError(f"{path}: not weights of {card['architecture']} ({first_line(error)})") from None
    if "input" in card:
        model = adapt(model, **card["input"], outputs=outputs)
    return model.to(device).eval(), card


def seeing(model: nn.Module, channels: int) -> nn.Module:
    """The classifier for images with this number of channels, adapted if they are grey or RGBA."""
    return model if channels == 3 or isinstance(model, Adapter) else adapt(model)


def predictions(logits: torch.Tensor) -> torch.Tensor:
    """Class indices N: argmax of C logits, or the sign of a single one."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


def features(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The last features, N×D: the input of the last linear layer or convolution, averaged over pixels.

    If the architecture has an attribute `features_of`, they are the output of the layer of that name.
    """
    captured: list[torch.Tensor] = []
    named: Any = next((module for module in model.modules() if hasattr(module, "features_of")), None)
    if named:
        layer = named.get_submodule(named.features_of)
        hooks = [layer.register_forward_hook(lambda _module, _inputs, output: captured.append(output))]
    else:
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        hooks = [layer.register_forward_pre_hook(lambda _layer, inputs: captured.append(inputs[0])) for layer in layers]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not captured:
        raise NrcgError(f"{type(model).__name__}: no linear or convolutional layer to take features from")
    found = captured[-1]
    return found.mean((2, 3)) if found.ndim == 4 else found
