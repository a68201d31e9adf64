"""What both training loops share: data order, precision, checkpoints."""

import json
import logging
import os
import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from nrcg.errors import NrcgError
from nrcg.io.files import alone, read_sealed, require_writable, write_sealed, write_text, writing
from nrcg.rng import keyed_generator
from nrcg.runtime.preemption import Stop

LOG = "log.csv"

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
            same = state["identity"] == identity
        except (NrcgError, pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError) as error:
            log.warning("%s; going on from the checkpoint before it, or else anew", error)
            continue
        if same:
            return state
        log.warning("%s: checkpoint of other settings or data; not used", candidate)
    return None


def save_finished(
    path: Path, identity: str, weights: dict[str, torch.Tensor], rows: list[dict[str, float]], card: dict[str, Any]
) -> dict[str, Any]:
    """Write the last checkpoint, which stays: all that the output files are made of, and no more.

    Whatever happens to these files, the same training then writes them again, byte for byte, in seconds. Returns the
    state as `load_checkpoint` does, with a key `finished`.
    """
    finished = {
        "weights": {name: tensor.to("cpu", copy=True) for name, tensor in weights.items()},
        "rows": rows,
        "card": json.dumps(card),
    }
    save_checkpoint(path, identity, {"finished": finished})
    return {"identity": identity, "finished": finished}


def card_of(finished: dict[str, Any]) -> dict[str, Any]:
    """The card of a finished training."""
    return json.loads(finished["card"])


def write_log(out: Path, finished: dict[str, Any]) -> None:
    """Write the log of a finished training."""
    write_text(out / LOG, pd.DataFrame(finished["rows"]).to_csv(index=False))


def remove_checkpoint_before(path: Path) -> None:
    """Remove what `save_checkpoint` kept beside the last checkpoint, once the outputs of a training are written."""
    _before(path).unlink(missing_ok=True)


@contextmanager
def only_one(path: Path, out: Path, stop: Stop, *, wait: bool = True) -> Iterator[None]:
    """Inside, no other process trains with this checkpoint, such as one that a lost workflow left on another machine.

    Waits for one that does, or raises NrcgError without `wait`; also for places that cannot be written.
    """
    require_writable(path)
    require_writable(out / LOG)

    def another(first: bool) -> None:
        if not wait:
            raise NrcgError(f"{path}: another process trains with this checkpoint; wait for it, or end it")
        if first:
            log.info("%s: another process trains with this checkpoint; waiting for it", path)
        stop.check()

    with alone(path.with_name(f"{path.name}.lock"), another):
        yield


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")
