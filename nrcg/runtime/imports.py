"""transformers out of sight: diffusers imports it wherever it is installed, a second of every run."""

import sys
from importlib import import_module
from typing import Any


def hide_transformers() -> None:
    """Let it look as if it were not installed, unless it was imported already."""
    sys.modules.setdefault("transformers", None)  # type: ignore[arg-type]


def show_transformers() -> None:
    """Undo that."""
    if sys.modules.get("transformers", ...) is None:
        del sys.modules["transformers"]


def transformers() -> Any:
    """The library itself, of the extra `models`."""
    show_transformers()
    return import_module("transformers")
