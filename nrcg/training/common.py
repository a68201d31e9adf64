"""What both training loops share: data order, precision, checkpoints."""

import hashlib
import json
import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nrcg.errors import NrcgError
from nrcg.files import atomic
from nrcg.rng import keyed_generator

log = logging.getLogger("nrcg")


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of 0…n−1 in which epoch `epoch` visits the training images."""
    return torch.randperm(n, generator=keyed_generator(seed, epoch)).numpy()


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Networks in bfloat16 inside this context for `bf16`; nothing for `fp32`."""
    if precision == "fp32":
        return nullcontext()
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    raise NrcgError(f"precision {precision!r}: use fp32 or bf16")


def fingerprint(**settings: Any) -> str:
    """A digest of everything that decides the result, so that no checkpoint of another run is continued."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def save_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) atomically; a kill leaves the previous one."""
    with atomic(path) as file:
        torch.save({"identity": identity, **state}, file)


def load_checkpoint(path: Path, identity: str) -> dict[str, Any] | None:
    """The state to continue from, or None: no checkpoint, a damaged one, or one of other settings."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a truncated file
        log.warning("%s: damaged checkpoint (%s); training starts anew", path, str(error).splitlines()[0])
        return None
    if state.get("identity") != identity:
        log.warning("%s: checkpoint of other settings or data; training starts anew", path)
        return None
    return state
