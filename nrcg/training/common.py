"""What both training loops share: data order, precision, checkpoints."""

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nrcg.errors import NrcgError
from nrcg.files import read_sealed, write_sealed, writing
from nrcg.rng import keyed_generator

log = logging.getLogger("nrcg")


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of 0…n−1 in which epoch `epoch` visits the training images."""
    return torch.randperm(n, generator=keyed_generator("epoch order", seed, epoch)).numpy()


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Networks in bfloat16 inside this context for `bf16`; nothing for `fp32`."""
    if precision == "fp32":
        return nullcontext()
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    raise NrcgError(f"precision {precision!r}: use fp32 or bf16")


def save_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) atomically; the checkpoint before stays beside it."""
    if path.exists():
        with writing(path):
            os.replace(path, _before(path))
    write_sealed(path, lambda file: torch.save({"identity": identity, **state}, file))


def load_checkpoint(path: Path, identity: str) -> dict[str, Any] | None:
    """The state to continue from: the last one that is undamaged and of these settings, or None."""
    for candidate in (path, _before(path)):
        if not candidate.exists():
            continue
        try:
            state = torch.load(read_sealed(candidate), map_location="cpu", weights_only=True)
        except NrcgError as error:
            log.warning("%s; going on from the checkpoint before it, or else anew", error)
            continue
        if state["identity"] == identity:
            return state
        log.warning("%s: checkpoint of other settings or data; not used", candidate)
    return None


def remove_checkpoint(path: Path) -> None:
    """Remove what `save_checkpoint` left, once the training is done."""
    path.unlink(missing_ok=True)
    _before(path).unlink(missing_ok=True)


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")
