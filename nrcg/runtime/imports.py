"""transformers out of sight: diffusers imports it wherever it is installed, a second of every run."""

import sys
from importlib import import_module
from typing import Any

HIDDEN = ("transformers", "peft")  # peft imports the other, and diffusers imports peft wherever it is installed


def hide_transformers() -> None:
    """Let it look as if it were not installed, unless it was imported already."""
    if "transformers" not in sys.modules:
        for name in HIDDEN:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def show_transformers() -> None:
    """Undo that."""
    for name in HIDDEN:
        if sys.modules.get(name, ...) is None:
            del sys.modules[name]


def transformers() -> Any:
    """The library itself, of the extra `models`."""
    show_transformers()
    return import_module("transformers")
