"""What both trainings share: order of the data, checkpoints, what a finished one leaves."""

import json
import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import DDPMScheduler
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import nn

from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError, Stopped
from nrcg.io.files import alone, fingerprint, read_sealed, require_writable, write_sealed, write_text, writing
from nrcg.rng import keyed_generator
from nrcg.runtime.preemption import Stop
from nrcg.training.distributed import rank, share, size

LOG = "log.csv"

log = logging.getLogger("nrcg")


class Trainer:
    """Network, optimiser, step and log of a training: all that a checkpoint holds.

    A training of its own adds `train(stop, keep)`, which takes the steps that are left and calls `keep` where a
    checkpoint is due, and `result()`: the weights, and what its card says of them. Every random draw of a step is a
    function of (seed, step), so that `train` can be stopped anywhere and called again, on a trainer of the same state.
    """

    def __init__(self, network: nn.Module, settings: Any, total_steps: int, device: torch.device) -> None:
        self.network, self.settings, self.total_steps, self.device = network, settings, total_steps, device
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, fused=True)
        self.lr_schedule = get_cosine_schedule_with_warmup(self.optimizer, settings.warmup_steps, total_steps)
        self.parts = {"network": network, "optimizer": self.optimizer, "lr_schedule": self.lr_schedule}
        self.step, self.seconds, self.started = 0, 0.0, time.monotonic()
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)  # over the steps since the last row
        self.rows: list[dict[str, float]] = []  # of the log

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on from here."""
        now = time.monotonic()
        self.seconds, self.started = self.seconds + now - self.started, now
        kept = {key: getattr(self, key) for key in ("step", "seconds", "loss_sum", "rows")}
        return kept | {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of `state_dict`."""
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        self.loss_sum.copy_(state["loss_sum"])
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def run(
    make: Callable[[], Trainer],
    write: Callable[[dict[str, torch.Tensor], dict[str, Any]], None],
    images: ImageSet,
    out: Path,
    checkpoint: Path,
    stop: Stop,
    **decisive: Any,
) -> None:
    """Train, from the checkpoint of the same data and `decisive` settings if there is one; then `write` the result.

    The last checkpoint stays: it holds all that the files in `out` are made of, and no more, so that whatever happens
    to them, the same training writes them again, byte for byte, in seconds. Of several processes the first writes.
    Raises Stopped when `stop` asks for it, with a checkpoint, and NrcgError for places that cannot be written.
    """
    identity = fingerprint(data=images.card["digest"], **decisive)
    first = rank() == 0
    with _only_one(checkpoint, out, stop) if first else nullcontext():
        state = load_checkpoint(checkpoint, identity)
        if not (state and "finished" in state):
            trainer = make()
            if state:
                trainer.load_state_dict(state)
                log.info("continuing from step %d of %d", trainer.step, trainer.total_steps)

            def keep() -> None:
                if first:
                    save_checkpoint(checkpoint, identity, trainer.state_dict())

            try:
                trainer.train(stop, keep)
            except Stopped:
                keep()
                raise
            state = {"finished": _finished(trainer, images)}
            if first:
                save_checkpoint(checkpoint, identity, state)
        if first:
            finished = state["finished"]
            write_text(out / LOG, pd.DataFrame(finished["rows"]).to_csv(index=False))
            write(finished["weights"], json.loads(finished["card"]))
            _before(checkpoint).unlink(missing_ok=True)


def _finished(trainer: Trainer, images: ImageSet) -> dict[str, Any]:
    weights, card = trainer.result()
    card |= {"data": images.card["name"], "data_digest": images.card["digest"], "training": asdict(trainer.settings)}
    card |= {"seconds": round(trainer.seconds + time.monotonic() - trainer.started)}
    card |= {"device": trainer.device.type, "torch": torch.__version__}
    weights = {name: tensor.cpu() for name, tensor in weights.items()}
    return {"weights": weights, "rows": trainer.rows, "card": json.dumps(card)}


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of 0…n−1 in which epoch `epoch` visits the training images."""
    return torch.randperm(n, generator=keyed_generator("epoch order", seed, epoch)).numpy()


def noised(
    scheduler: DDPMScheduler, x0: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images N×3×H×W noised by eq. 2, each at a timestep of its own; the noise; the timesteps N.

    Drawn for the whole batch: however many processes share it, an image gets the same.
    """
    n, total = len(x0) * size(), scheduler.config.num_train_timesteps
    timesteps = share(torch.randint(total, (n,), generator=generator, device=x0.device))
    noise = share(torch.randn((n, *x0.shape[1:]), generator=generator, device=x0.device))
    return scheduler.add_noise(x0, noise, timesteps), noise, timesteps


def save_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) atomically; the checkpoint before stays beside it."""
    if path.exists():
        with writing(path):
            os.replace(path, _before(path))
    write_sealed(path, lambda file: torch.save({"identity": identity, **state}, file))


def load_checkpoint(path: Path, identity: str) -> dict[str, Any] | None:
    """The state to continue from: the last one that is undamaged and of these settings, or None."""
    for candidate in filter(Path.exists, (path, _before(path))):
        try:
            state = torch.load(read_sealed(candidate), map_location="cpu", weights_only=True)
            if state["identity"] == identity:
                return state
            log.warning("%s: checkpoint of other settings or data; not used", candidate)
        except (NrcgError, pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError) as error:
            log.warning("%s; going on from the checkpoint before it, or else anew", error)
    return None


@contextmanager
def _only_one(path: Path, out: Path, stop: Stop) -> Iterator[None]:
    """Inside, no other process trains with this checkpoint, such as one that a lost workflow left on another machine.

    Waits for one that does; one of several processes cannot, while the others wait for it.
    """
    require_writable(path)
    require_writable(out / LOG)

    def another(first: bool) -> None:
        if size() > 1:
            raise NrcgError(f"{path}: another process trains with this checkpoint; wait for it, or end it")
        if first:
            log.info("%s: another process trains with this checkpoint; waiting for it", path)
        stop.check()

    with alone(path.with_name(f"{path.name}.lock"), another):
        yield


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")
