"""Common parts of both training loops: data order, checkpoints, results."""

import json
import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import DDPMScheduler
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import nn
from tqdm import tqdm

from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError, Stopped
from nrcg.io.files import alone, fingerprint, read_sealed, require_writable, write_sealed, write_text, writing
from nrcg.rng import keyed_generator
from nrcg.runtime.preemption import Stop
from nrcg.training.distributed import rank, share, size

LOG = "log.csv"

log = logging.getLogger("nrcg")


def open_images(data: str | Path, settings: Any, *, verify: bool = True) -> ImageSet:
    """The image set for training; NrcgError if it is smaller than a batch."""
    images = ImageSet.open(data, verify=verify)
    if (n := len(images.indices("train"))) < settings.batch_size:
        raise NrcgError(f"{data}: {n} training images, fewer than batch_size {settings.batch_size}")
    return images


@dataclass
class Trainer:
    """State of a training run; subclasses add `train(stop, keep)` (remaining steps) and `result()` (weights, card)."""

    network: nn.Module  # on the device
    images: ImageSet
    scheduler: DDPMScheduler
    settings: Any
    epochs: int
    device: torch.device

    def __post_init__(self) -> None:
        self.learnt = self.images.indices("train")
        self.steps_per_epoch = len(self.learnt) // self.settings.batch_size
        self.total_steps = self.epochs * self.steps_per_epoch
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.settings.learning_rate, fused=True)
        self.lr_schedule = get_cosine_schedule_with_warmup(self.optimizer, self.settings.warmup_steps, self.total_steps)
        self.parts = {"network": self.network, "optimizer": self.optimizer, "lr_schedule": self.lr_schedule}
        self.step, self.seconds, self.started = 0, 0.0, time.monotonic()
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)  # over the steps since the last row
        self.rows: list[dict[str, float]] = []  # of the log
        self.told: dict[str, str] = {}  # values shown with the progress bar

    def batches(self, start: int, end: int, title: str, stop: Stop) -> Iterator[np.ndarray]:
        """Image positions for each step until `end`; the caller makes the step, by `advance`."""
        batch_size, order = self.settings.batch_size, None
        bar = {"total": end - start, "initial": self.step - start, "desc": title, "unit": "step"}
        with tqdm(**bar, disable=rank() > 0) as progress:
            while self.step < end:
                epoch, position = divmod(self.step, self.steps_per_epoch)
                if order is None or position == 0:
                    generator = keyed_generator("epoch order", self.settings.seed, epoch)
                    order = self.learnt[torch.randperm(len(self.learnt), generator=generator).numpy()]
                yield np.sort(order[position * batch_size : (position + 1) * batch_size])
                progress.set_postfix(self.told, refresh=False)
                progress.update()
                stop.check()

    def advance(self, loss: torch.Tensor) -> None:
        """Make an optimiser step with the gradients in the weights; `loss` is the batch's mean loss."""
        self.optimizer.step()
        self.lr_schedule.step()
        self.loss_sum += loss
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        now = time.monotonic()
        self.seconds, self.started = self.seconds + now - self.started, now
        kept = {key: getattr(self, key) for key in ("step", "seconds", "loss_sum", "rows")}
        return kept | {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        self.loss_sum.copy_(state["loss_sum"])
        for name, part in self.parts.items():
            part.load_state_dict(state[name])

    def finished(self: Any) -> dict[str, Any]:
        """Content of the final checkpoint: everything needed to write the output files."""
        weights, card = self.result()
        card |= {"data": self.images.card["name"], "data_digest": self.images.card["digest"]}
        card |= {"training": asdict(self.settings), "seconds": round(self.state_dict()["seconds"])}
        card |= {"device": self.device.type, "torch": torch.__version__}
        weights = {name: tensor.cpu() for name, tensor in weights.items()}
        return {"weights": weights, "rows": self.rows, "card": json.dumps(card)}


def run(
    make: Callable, write: Callable, images: ImageSet, out: Path, checkpoint: Path, stop: Stop, **decisive: Any
) -> None:
    """Train `make()`, or resume from a checkpoint of the same data and `decisive` settings; then `write`."""
    identity = fingerprint(data=images.card["digest"], **decisive)
    first = rank() == 0

    def another(first_look: bool) -> None:
        if size() > 1:  # the other processes of this training would wait in vain
            raise NrcgError(f"{checkpoint}: in use by another training; wait for it, or stop it")
        if first_look:
            log.info("%s: in use by another training; waiting for it", checkpoint)
        stop.check()

    if first:
        require_writable(checkpoint)
        require_writable(out / LOG)
    with alone(checkpoint.with_name(f"{checkpoint.name}.lock"), another) if first else nullcontext():
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
            state = {"finished": trainer.finished()}
            if first:
                save_checkpoint(checkpoint, identity, state)  # stays, so that lost files can be written again
        if first:
            finished = state["finished"]
            write_text(out / LOG, pd.DataFrame(finished["rows"]).to_csv(index=False))
            write(finished["weights"], json.loads(finished["card"]))
            _before(checkpoint).unlink(missing_ok=True)


def noised(scheduler: DDPMScheduler, x0: torch.Tensor, purpose: str, *key: int) -> tuple[torch.Tensor, ...]:
    """Images N×3×H×W noised by eq. 2, each at its own timestep; the noise; the timesteps N."""
    n = len(x0) * size()  # draws for the whole batch, so that they do not depend on the number of processes
    of: dict[str, Any] = {"generator": keyed_generator(purpose, *key, device=x0.device), "device": x0.device}
    timesteps = share(torch.randint(scheduler.config.num_train_timesteps, (n,), **of))
    noise = share(torch.randn((n, *x0.shape[1:]), **of))
    return scheduler.add_noise(x0, noise, timesteps), noise, timesteps


def save_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write `state` atomically; the previous checkpoint stays beside it."""
    if path.exists():
        with writing(path):
            os.replace(path, _before(path))
    write_sealed(path, lambda file: torch.save({"identity": identity, **state}, file))


def load_checkpoint(path: Path, identity: str) -> dict[str, Any] | None:
    """The newest undamaged state with this identity, or None."""
    for candidate in filter(Path.exists, (path, _before(path))):
        try:
            state = torch.load(read_sealed(candidate), map_location="cpu", weights_only=True)
            if state["identity"] == identity:
                return state
            log.warning("%s: ignoring a checkpoint of other settings or data", candidate)
        except (NrcgError, pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError) as error:
            log.warning("%s; continuing from the previous checkpoint if there is one, else from the start", error)
    return None


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")
