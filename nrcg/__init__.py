"""Diffusion classifier guidance for non-robust classifiers."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from torch import device as Device
    from torch.nn import Module

try:
    __version__ = version("nrcg")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0+unknown"

GUIDANCE = ("EMA", "Adam", "ClassifierGuidance", "GuidedDDPMPipeline")

__all__ = ["EMA", "Adam", "ClassifierGuidance", "GuidedDDPMPipeline", "NrcgError", "load_classifier", "speed"]


def load_classifier(folder: "str | Path", device: "str | Device" = "cpu") -> "Module":
    """The classifier of a folder that was trained or imported here, in eval mode, to guide or to classify.

    folder    with `model.safetensors` and `card.json`
    returns   a module from images N×3×H×W in [−1, 1] to logits N×C (N×1 for two classes); its attribute `card` is the
              content of `card.json`, and `card["classes"]` lists the names of the classes by index

    Raises NrcgError when a file is missing, damaged, or of another architecture than its card says.
    """
    from nrcg.models.classifier import load_classifier as load

    module, module.card = load(folder, device)
    return module


def __getattr__(name: str) -> Any:
    """Import torch and diffusers only when they are asked for, so that `nrcg --help` answers at once."""
    if name in GUIDANCE:
        return getattr(import_module("nrcg.guidance"), name)
    if name == "NrcgError":
        return import_module("nrcg.errors").NrcgError
    if name == "speed":
        return import_module("nrcg.speed")
    raise AttributeError(f"module 'nrcg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
