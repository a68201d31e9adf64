"""Training of classifiers: on clean images (non-robust), or on images noised by eq. 2 (robust)."""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from tqdm import tqdm

from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError, Stopped
from nrcg.io.files import fingerprint
from nrcg.io.images import to_float
from nrcg.models.classifier import build_classifier, predictions, save_classifier
from nrcg.models.ddpm import build_scheduler
from nrcg.rng import keyed_generator, seed_torch
from nrcg.runtime.memory import BatchLimit, is_out_of_memory
from nrcg.runtime.preemption import Stop
from nrcg.training.common import (
    card_of,
    epoch_order,
    load_checkpoint,
    log,
    only_one,
    remove_checkpoint_before,
    save_checkpoint,
    save_finished,
    write_log,
)
from nrcg.training.settings import ClassifierTraining

VALIDATION_BATCH = 500  # images that share a draw of that noise


def train_classifier(
    data: str | Path,
    out: str | Path,
    *,
    scheduler: dict[str, Any],
    settings: ClassifierTraining,
    checkpoint: str | Path,
    device: torch.device,
    stop: Stop | None = None,
) -> None:
    """Train on the image set `data`; write weights, card and a CSV log of every epoch to `out`.

    `scheduler` (arguments of DDPMScheduler) makes the noise of robust training and of the noisy validation
    accuracy, which is measured for every classifier. Continues from `checkpoint`, which is written after every epoch
    and, when `stop` asks for it, within one; then Stopped is raised. The last one stays, without an optimiser: from it
    the same training writes its files again. Raises NrcgError on unusable data, for data that are not those of their
    card, and for a batch that the device's memory does not hold.
    """
    noise_scheduler = build_scheduler(scheduler)
    images = ImageSet.open(data)
    if len(images.indices("train")) < settings.batch_size:
        raise NrcgError(f"{data}: fewer training images than batch_size {settings.batch_size}")
    if not len(images.indices("valid")):
        raise NrcgError(f"{data}: no validation images, so training cannot know when to stop")
    identity = fingerprint(data=images.card["digest"], scheduler=scheduler, **asdict(settings))
    out, checkpoint, stop = Path(out), Path(checkpoint), stop or Stop()
    with only_one(checkpoint, out, stop):
        state = load_checkpoint(checkpoint, identity)
        if not (state and "finished" in state):
            state = _train(images, noise_scheduler, settings, state, checkpoint, identity, device, stop)
        finished = state["finished"]
        card = card_of(finished)
        model = build_classifier(settings.architecture, card["n_logits"])
        model.load_state_dict(finished["weights"])
        write_log(out, finished)
        save_classifier(out, model, card)
        remove_checkpoint_before(checkpoint)


def _train(
    images: ImageSet,
    scheduler: DDPMScheduler,
    settings: ClassifierTraining,
    state: dict[str, Any] | None,  # to continue from
    checkpoint: Path,
    identity: str,
    device: torch.device,
    stop: Stop,
) -> dict[str, Any]:
    """Train to the end; returns the state of the last checkpoint."""
    seed_torch("classifier weights", settings.seed)
    trainer = _Trainer(images, scheduler, settings, device)
    if state:
        trainer.load_state_dict(state)
        log.info("continuing from step %d, after %d whole epochs", trainer.step, len(trainer.rows))
    started = time.monotonic()
    while not trainer.finished():
        try:
            trainer.train_epoch(stop)
        except Stopped:
            save_checkpoint(checkpoint, identity, trainer.state_dict())
            raise
        save_checkpoint(checkpoint, identity, trainer.state_dict())
    last = trainer.rows[-1]
    card = {
        "architecture": settings.architecture,
        "classes": images.classes,
        "n_logits": trainer.n_logits,
        "size": images.card["size"],
        "data": images.card["name"],
        "data_digest": images.card["digest"],
        "training": asdict(settings),
        "epochs": len(trainer.rows),
        "valid_accuracy": last["valid_accuracy"],
        "valid_accuracy_noisy": last["valid_accuracy_noisy"],
        "seconds": round(time.monotonic() - started),
        "device": device.type,
        "torch": torch.__version__,
    }
    return save_finished(checkpoint, identity, trainer.model.state_dict(), trainer.rows, card)


class _Trainer:
    """Network, optimiser and log: all that a checkpoint holds."""

    def __init__(self, images: ImageSet, scheduler: DDPMScheduler, settings: ClassifierTraining, device: torch.device):
        self.images, self.scheduler, self.settings, self.device = images, scheduler, settings, device
        self.train, self.valid = images.indices("train"), images.indices("valid")[: settings.valid_images or None]
        self.n_logits = 1 if len(images.classes) == 2 else len(images.classes)
        self.model = build_classifier(settings.architecture, self.n_logits).to(device)
        self.steps_per_epoch = len(self.train) // settings.batch_size
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=settings.learning_rate, fused=True)
        self.lr_schedule = get_cosine_schedule_with_warmup(
            self.optimizer, settings.warmup_steps, settings.max_epochs * self.steps_per_epoch
        )
        self.memory = BatchLimit("validation", VALIDATION_BATCH)
        self.step = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)  # over the steps of this epoch
        self.rows: list[dict[str, float]] = []

    def finished(self) -> bool:
        """All epochs done, or the last one after `min_epochs` gained less than `min_gain`."""
        if len(self.rows) >= self.settings.max_epochs:
            return True
        if len(self.rows) <= self.settings.min_epochs:
            return False
        kind = "valid_accuracy_noisy" if self.settings.robust else "valid_accuracy"
        return self.rows[-1][kind] - self.rows[-2][kind] < self.settings.min_gain

    def train_epoch(self, stop: Stop) -> None:
        """What is left of a pass over the training images, then both validation accuracies.

        Stopped by `stop` it can be called again, on this trainer or on one of its state: every random draw of a step
        is a function of (seed, step), and a validation that was broken off has changed nothing and starts anew.
        """
        epoch = len(self.rows)
        done = self.step - epoch * self.steps_per_epoch
        order = self.train[epoch_order(len(self.train), self.settings.seed, epoch)]
        title = f"epoch {epoch + 1}/{self.settings.max_epochs}"
        self.model.train()
        with tqdm(total=self.steps_per_epoch, initial=done, desc=title, unit="step") as progress:
            for i in range(done, self.steps_per_epoch):
                batch = np.sort(order[i * self.settings.batch_size : (i + 1) * self.settings.batch_size])
                self.loss_sum += self._train_step(batch)
                self.step += 1
                progress.update()
                stop.check()
        loss, accuracy = self._validate(stop, noisy=False)
        _, accuracy_noisy = self._validate(stop, noisy=True)
        if not (math.isfinite(self.loss_sum.item()) and math.isfinite(loss)):
            raise NrcgError(f"training diverged in epoch {epoch + 1}: its loss is not finite; lower learning_rate")
        self.rows.append(
            {
                "epoch": epoch + 1,
                "train_loss": self.loss_sum.item() / self.steps_per_epoch,
                "valid_loss": loss,
                "valid_accuracy": accuracy,
                "valid_accuracy_noisy": accuracy_noisy,
                "lr": self.lr_schedule.get_last_lr()[0],
            }
        )
        self.loss_sum.zero_()
        log.info("epoch %d: accuracy %.4f clean, %.4f noisy", epoch + 1, accuracy, accuracy_noisy)

    def _train_step(self, batch: np.ndarray) -> torch.Tensor:
        seed_torch("classifier dropout", self.settings.seed, self.step)  # MobileNet has dropout
        try:
            loss = self._backward(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # in pieces it would be another training: batch norm looks at the whole batch
            raise NrcgError(
                f"batch_size {len(batch)}: training a classifier runs out of memory; choose a smaller batch_size, or a "
                "device with more"
            ) from None
        self.optimizer.step()
        self.lr_schedule.step()
        return loss

    def _backward(self, batch: np.ndarray) -> torch.Tensor:
        """The mean loss over the batch and, in the weights, its gradient."""
        x, labels = self._load(batch)
        if self.settings.robust:
            x = self._noise(x, keyed_generator("classifier noise", self.settings.seed, self.step, device=self.device))
        loss = self._loss(self.model(x), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return loss.detach()

    def _load(self, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.from_numpy(self.images.labels[batch]).to(self.device)
        return to_float(self.images.images[batch], self.device), labels

    def _noise(self, x0: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Eq. 2, each image at its own timestep."""
        n_timesteps = self.scheduler.config.num_train_timesteps
        timesteps = torch.randint(n_timesteps, (len(x0),), generator=generator, device=x0.device)
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        return self.scheduler.add_noise(x0, noise, timesteps)

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.n_logits == 1:
            return binary_cross_entropy_with_logits(logits[:, 0], labels.float())
        return cross_entropy(logits, labels)

    @torch.no_grad()
    def _validate(self, stop: Stop, *, noisy: bool) -> tuple[float, float]:
        """Mean loss and accuracy over the validation images; the noise is the same after every epoch."""
        self.model.eval()
        loss, correct = 0.0, 0
        for i, batch in enumerate(np.split(self.valid, range(VALIDATION_BATCH, len(self.valid), VALIDATION_BATCH))):
            stop.check()
            x, labels = self._load(batch)
            if noisy:
                key = "classifier validation noise", self.settings.seed, i
                x = self._noise(x, keyed_generator(*key, device=self.device))
            logits = torch.cat([part for _, part in self.memory.each(self.model, x)])
            loss += self._loss(logits, labels).item() * len(batch)
            correct += (predictions(logits) == labels).sum().item()
        return loss / len(self.valid), correct / len(self.valid)

    def _parts(self) -> dict[str, nn.Module | Any]:
        return {"model": self.model, "optimizer": self.optimizer, "lr_schedule": self.lr_schedule}

    def state_dict(self) -> dict[str, Any]:
        kept = {"step": self.step, "loss_sum": self.loss_sum, "rows": self.rows}
        return {**kept, **{name: part.state_dict() for name, part in self._parts().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.rows = state["step"], state["rows"]
        self.loss_sum.copy_(state["loss_sum"])
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
