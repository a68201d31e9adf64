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
    from nrcg.evaluation.trace import trace
    from nrcg.guidance import (
        EMA,
        AdaBelief,
        Adam,
        Augment,
        Chain,
        ClassifierGuidance,
        ClassValue,
        Clip,
        Compress,
        Inner,
        Lion,
        Momentum,
        Nesterov,
        Noise,
        Recur,
        RMSProp,
        Sign,
        Unit,
        ValueGuidance,
        WeightedSum,
        methods,
        objectives,
        stabilizers,
    )
    from nrcg.models.adapter import adapt
    from nrcg.pipeline import GuidedDDPMPipeline, GuidedPipeline

try:
    __version__ = version("nrcg")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0+unknown"

__all__ = [
    "EMA", "AdaBelief", "Adam", "Augment", "Chain", "ClassValue", "ClassifierGuidance", "Clip", "Compress",
    "GuidedDDPMPipeline", "GuidedPipeline", "Inner", "Lion", "Momentum", "Nesterov", "Noise", "NrcgError", "RMSProp",
    "Recur", "Sign", "Unit", "ValueGuidance", "WeightedSum", "adapt", "load_classifier", "methods", "objectives",
    "speed", "stabilizers", "trace",
]  # fmt: skip


def load_classifier(folder: "str | Path", device: "str | Device" = "cpu") -> "Module":
    """Load a classifier trained or imported by nrcg, in eval mode.

    Args:
        folder: folder with `model.safetensors` and `card.json`.
        device: device for the weights.

    Returns:
        A module from images N×3×H×W in [−1, 1] to logits N×C (N×1 for two classes). Its attribute `card` holds the
        content of `card.json`; `card["classes"]` lists the class names by index.

    Raises:
        NrcgError: if a file is missing or damaged, or the weights do not fit the card's architecture.
    """
    from nrcg.models.classifier import load_classifier as load

    module, card = load(folder, device)
    module.card = card  # type: ignore[assignment]  # torch lets a module hold anything
    return module


def __getattr__(name: str) -> Any:
    """Import torch and diffusers only on demand, so that `nrcg --help` is fast."""
    if name not in __all__:
        raise AttributeError(f"module 'nrcg' has no attribute {name!r}")
    if name == "speed":
        return import_module("nrcg.speed")
    places = {"NrcgError": "nrcg.errors", "adapt": "nrcg.models.adapter", "trace": "nrcg.evaluation.trace"}
    places |= dict.fromkeys(["GuidedPipeline", "GuidedDDPMPipeline"], "nrcg.pipeline")
    return getattr(import_module(places.get(name, "nrcg.guidance")), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
