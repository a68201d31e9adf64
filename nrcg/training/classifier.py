"""Training of classifiers: on clean images (non-robust), or on images noised by eq. 2 (robust)."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from tqdm import tqdm

from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError
from nrcg.io.images import to_float
from nrcg.models.classifier import build_classifier, predictions, save_classifier
from nrcg.models.ddpm import build_scheduler
from nrcg.rng import keyed_generator, seed_torch
from nrcg.runtime.memory import BatchLimit, is_out_of_memory
from nrcg.runtime.preemption import Stop
from nrcg.training.common import Trainer, epoch_order, log, noised, run
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

    Continues from `checkpoint`, which is written after every epoch and, when `stop` asks for it, within one.

    Args:
        data: folder of the image set.
        out: folder to write.
        scheduler: arguments of DDPMScheduler; it makes the noise of robust training and of the noisy validation
            accuracy, which is measured for every classifier.
        settings: of the training.
        checkpoint: file; the last one stays, without an optimiser: from it the same training writes its files again.
        device: where to train.
        stop: asked after each step.

    Raises:
        NrcgError: for unusable data, or not those of their card, and for a batch that the device's memory does not
            hold.
        Stopped: when `stop` asked for it, and a checkpoint is written.
    """
    noise_scheduler = build_scheduler(scheduler)
    images = ImageSet.open(data)
    if len(images.indices("train")) < settings.batch_size:
        raise NrcgError(f"{data}: fewer training images than batch_size {settings.batch_size}")
    if not len(images.indices("valid")):
        raise NrcgError(f"{data}: no validation images, so training cannot know when to stop")

    def make() -> Trainer:
        seed_torch("classifier weights", settings.seed)
        return _Trainer(images, noise_scheduler, settings, device)

    def write(weights: dict[str, torch.Tensor], card: dict[str, Any]) -> None:
        model = build_classifier(settings.architecture, card["n_logits"])
        model.load_state_dict(weights)
        save_classifier(out, model, card)

    run(make, write, images, Path(out), Path(checkpoint), stop or Stop(), scheduler=scheduler, **asdict(settings))


class _Trainer(Trainer):
    def __init__(self, images: ImageSet, scheduler: DDPMScheduler, settings: ClassifierTraining, device: torch.device):
        self.images, self.scheduler = images, scheduler
        self.learnt, self.valid = images.indices("train"), images.indices("valid")[: settings.valid_images or None]
        self.n_logits = 1 if len(images.classes) == 2 else len(images.classes)
        self.steps_per_epoch = len(self.learnt) // settings.batch_size
        network = build_classifier(settings.architecture, self.n_logits).to(device)
        super().__init__(network, settings, settings.max_epochs * self.steps_per_epoch, device)
        self.memory = BatchLimit("validation", VALIDATION_BATCH)

    def train(self, stop: Stop, keep: Callable[[], None]) -> None:
        while not self.finished():
            self.train_epoch(stop)
            keep()

    def result(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        card = {
            "architecture": self.settings.architecture,
            "classes": self.images.classes,
            "n_logits": self.n_logits,
            "size": self.images.card["size"],
            "epochs": len(self.rows),
        }
        accuracies = {key: self.rows[-1][key] for key in ("valid_accuracy", "valid_accuracy_noisy")}
        return self.network.state_dict(), card | accuracies

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

        A validation that was broken off has changed nothing and starts anew.
        """
        epoch = len(self.rows)
        done = self.step - epoch * self.steps_per_epoch
        order = self.learnt[epoch_order(len(self.learnt), self.settings.seed, epoch)]
        title = f"epoch {epoch + 1}/{self.settings.max_epochs}"
        self.network.train()
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
            x = self._noised(x, "classifier noise", self.step)
        loss = self._loss(self.network(x), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return loss.detach()

    def _load(self, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.from_numpy(self.images.labels[batch]).to(self.device)
        return to_float(self.images.images[batch], self.device), labels

    def _noised(self, x0: torch.Tensor, purpose: str, key: int) -> torch.Tensor:
        return noised(self.scheduler, x0, keyed_generator(purpose, self.settings.seed, key, device=self.device))[0]

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.n_logits == 1:
            return binary_cross_entropy_with_logits(logits[:, 0], labels.float())
        return cross_entropy(logits, labels)

    @torch.no_grad()
    def _validate(self, stop: Stop, *, noisy: bool) -> tuple[float, float]:
        """Mean loss and accuracy over the validation images; the noise is the same after every epoch."""
        self.network.eval()
        loss, correct = 0.0, 0
        for i, batch in enumerate(np.split(self.valid, range(VALIDATION_BATCH, len(self.valid), VALIDATION_BATCH))):
            stop.check()
            x, labels = self._load(batch)
            if noisy:
                x = self._noised(x, "classifier validation noise", i)
            logits = torch.cat([part for _, part in self.memory.each(self.network, x)])
            loss += self._loss(logits, labels).item() * len(batch)
            correct += (predictions(logits) == labels).sum().item()
        return loss / len(self.valid), correct / len(self.valid)
