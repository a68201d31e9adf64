"""Diffusion classifier guidance for non-robust classifiers."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from torch import device as Device
    from torch.nn import Module

    from nrcg import speed
    from nrcg.errors import NrcgError
    from nrcg.guidance import (
        EMA,
        Adam,
        ClassifierGuidance,
        ClassValue,
        GuidedDDPMPipeline,
        GuidedPipeline,
        ValueGuidance,
        WeightedSum,
        objectives,
        stabilizers,
    )
    from nrcg.models.adapter import adapt

try:
    __version__ = version("nrcg")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0+unknown"

__all__ = [
    "EMA",
    "Adam",
    "ClassValue",
    "ClassifierGuidance",
    "GuidedDDPMPipeline",
    "GuidedPipeline",
    "NrcgError",
    "ValueGuidance",
    "WeightedSum",
    "adapt",
    "load_classifier",
    "objectives",
    "speed",
    "stabilizers",
]


def load_classifier(folder: "str | Path", device: "str | Device" = "cpu") -> "Module":
    """Load a classifier that was trained or imported here, in eval mode, to guide or to classify.

    Args:
        folder: holds `model.safetensors` and `card.json`.
        device: where its weights go.

    Returns:
        A module from images N×3×H×W in [−1, 1] to logits N×C (N×1 for two classes). Its attribute `card` is the content
        of `card.json`; `card["classes"]` lists the names of the classes by index.

    Raises:
        NrcgError: when a file is missing, damaged, or of another architecture than its card says.
    """
    from nrcg.models.classifier import load_classifier as load

    module, card = load(folder, device)
    module.card = card  # type: ignore[assignment]  # torch lets a module hold anything
    return module


def __getattr__(name: str) -> Any:
    """Import torch and diffusers only when they are asked for, so that `nrcg --help` answers at once."""
    if name not in __all__:
        raise AttributeError(f"module 'nrcg' has no attribute {name!r}")
    if name == "speed":
        return import_module("nrcg.speed")
    rooms = {"NrcgError": "nrcg.errors", "adapt": "nrcg.models.adapter"}
    return getattr(import_module(rooms.get(name, "nrcg.guidance")), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
