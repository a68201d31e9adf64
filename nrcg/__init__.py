"""Diffusion classifier guidance for non-robust classifiers."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("nrcg")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0+unknown"

__all__ = ["EMA", "Adam", "ClassifierGuidance", "GuidedDDPMPipeline"]


def __getattr__(name: str):
    """Import torch and diffusers only when they are asked for, so that `nrcg --help` answers at once."""
    if name in __all__:
        return getattr(import_module("nrcg.guidance"), name)
    raise AttributeError(f"module 'nrcg' has no attribute {name!r}")
