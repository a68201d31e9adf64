"""Classifiers, from images N×3×H×W in [−1, 1] to logits N×C (or N×1, binary): on disk, weights and a card."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from torchvision.models import mobilenet_v3_small, resnet18

from nrcg.errors import NrcgError, first_line
from nrcg.io.files import atomic, read_card, require_digest, sha256, write_json
from nrcg.registry import Registry
from nrcg.runtime.memory import is_out_of_memory

JUDGE_FEATURES = 64  # few, so that a covariance over some hundred samples has full rank
JUDGES = {"resnet18_judge": JUDGE_FEATURES, "resnet14_judge": JUDGE_FEATURES}  # those with `features`, and how many

architectures = Registry("architecture")  # functions from the number of logits to a network with random weights


@architectures.register("mobilenet_v3_small")
def _mobilenet_v3_small(n_logits: int) -> nn.Module:
    """torchvision's, channels-last in memory: depthwise convolutions are then twice as fast, also on a CPU."""
    return mobilenet_v3_small(num_classes=n_logits).to(memory_format=torch.channels_last)


@architectures.register("resnet18_judge")
def _resnet18_judge(n_logits: int) -> nn.Module:
    """torchvision's ResNet-18 with a 64-dimensional last feature layer."""
    model: Any = resnet18(num_classes=n_logits)
    model.fc = nn.Sequential(nn.Linear(512, JUDGE_FEATURES), nn.ReLU(), nn.Linear(JUDGE_FEATURES, n_logits))
    return model


@architectures.register("resnet14_judge")
def _resnet14_judge(n_logits: int) -> nn.Module:
    """The same without its last stage, which sees a single pixel of a 32×32 image: a quarter of the weights."""
    model: Any = _resnet18_judge(n_logits)
    model.layer4 = nn.Identity()
    model.fc[0] = nn.Linear(256, JUDGE_FEATURES)
    return model


def build_classifier(architecture: str, n_logits: int) -> nn.Module:
    """A randomly initialised classifier; `n_logits` is the number of classes, or 1 for a binary one."""
    return architectures[architecture](n_logits)


def features(model: Any, images: torch.Tensor) -> torch.Tensor:
    """The judge's last features, N×64, before the ReLU (whose zeros would make them less Gaussian)."""
    captured: list[torch.Tensor] = []
    with model.fc[0].register_forward_hook(lambda _module, _inputs, output: captured.append(output)):
        model(images)
    return captured[0]


def save_classifier(folder: str | Path, model: nn.Module, card: dict[str, Any]) -> None:
    """Write weights and card, which holds at least `architecture`, `classes` and `n_logits`; their SHA-256 is added."""
    weights = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    place = Path(folder) / "model.safetensors"
    with atomic(place) as file:
        file.write(save(weights))
    write_json(Path(folder) / "card.json", {**card, "sha256": sha256(place)})


def load_classifier(folder: str | Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The classifier in eval mode, and its card; refused if missing, damaged, or another's."""
    place, path = Path(folder) / "card.json", Path(folder) / "model.safetensors"
    card = read_card(place, architecture=str, n_logits=int, classes=list)
    classes, n_logits = card["classes"], card["n_logits"]
    if not all(isinstance(name, str) for name in classes) or len(classes) != (2 if n_logits == 1 else n_logits):
        raise NrcgError(f"{place}: n_logits {n_logits} does not fit classes {classes}; delete the folder, train again")
    model = build_classifier(card["architecture"], n_logits)
    if "sha256" in card:
        require_digest(path, card["sha256"], place)
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise NrcgError(f"{path}: not weights of a {card['architecture']} ({first_line(error)})") from None
    return model.to(device).eval(), card


def predictions(logits: torch.Tensor) -> torch.Tensor:
    """Class indices N: the largest of C logits, or the sign of a single one."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
