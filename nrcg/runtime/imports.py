"""Hides transformers from diffusers, which imports it if installed and so delays every run by a second."""

import sys
from importlib import import_module
from typing import Any

HIDDEN = ("transformers", "peft")  # diffusers also imports peft, which imports transformers


def hide_transformers() -> None:
    """Make it appear not installed, unless already imported."""
    if "transformers" not in sys.modules:
        for name in HIDDEN:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def show_transformers() -> None:
    """Undo `hide_transformers`."""
    for name in HIDDEN:
        if sys.modules.get(name, ...) is None:
            del sys.modules[name]


def transformers() -> Any:
    """The library transformers, from the extra `models`."""
    show_transformers()
    return import_module("transformers")
