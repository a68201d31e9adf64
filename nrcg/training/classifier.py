"""Training of classifiers on clean images (non-robust) or on images noised by eq. 2 (robust)."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from nrcg.errors import NrcgError, first_line
from nrcg.io.images import to_channels, to_device, to_float, to_rgb
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import predictions, save_classifier
from nrcg.models.ddpm import build_scheduler
from nrcg.rng import seed_torch
from nrcg.runtime.memory import BatchLimit, is_out_of_memory
from nrcg.runtime.preemption import Stop
from nrcg.training.common import Trainer, log, noised, open_images, run
from nrcg.training.settings import ClassifierTraining

VALIDATION_BATCH = 500  # images per random draw of validation noise


def train_classifier(
    data: str | Path,
    out: str | Path,
    *,
    scheduler: dict[str, Any],  # for the noise in robust training and in all noisy validation
    settings: ClassifierTraining,
    checkpoint: str | Path,
    device: torch.device,
    stop: Stop | None = None,
) -> None:
    """Train on the image set `data`; write weights, card and a CSV log with one row per epoch to `out`."""
    noise_scheduler, images = build_scheduler(scheduler), open_images(data, settings)
    n_logits = 1 if len(images.classes) == 2 else len(images.classes)
    if not len(images.indices("valid")):
        raise NrcgError(f"{data}: no validation images, which decide when training stops")

    def make() -> Trainer:
        seed_torch("classifier weights", settings.seed)
        network = build_classifier(settings.architecture, n_logits).to(device)
        _check_outputs(network, to_float(images.images[:2], device), n_logits)
        return _Trainer(network, images, noise_scheduler, settings, settings.max_epochs, device)

    def write(weights: dict[str, torch.Tensor], card: dict[str, Any]) -> None:
        about = {"architecture": settings.architecture, "classes": images.classes, "n_logits": n_logits}
        model = build_classifier(settings.architecture, n_logits)
        model.load_state_dict(weights)
        save_classifier(out, model, {**about, "size": images.card["size"], **card})

    run(make, write, images, Path(out), Path(checkpoint), stop or Stop(), scheduler=scheduler, **asdict(settings))


class _Trainer(Trainer):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.valid = self.images.indices("valid")[: self.settings.valid_images or None]
        self.memory = BatchLimit("validation", VALIDATION_BATCH)

    def train(self, stop: Stop, keep: Callable[[], None]) -> None:
        while not self.is_enough():
            self.train_epoch(stop)
            keep()

    def is_enough(self) -> bool:
        """Whether all epochs are done, or the last one after `min_epochs` gained less than `min_gain`."""
        if len(self.rows) >= self.epochs or len(self.rows) <= self.settings.min_epochs:
            return len(self.rows) >= self.epochs
        kind = "valid_accuracy_noisy" if self.settings.robust else "valid_accuracy"
        return self.rows[-1][kind] - self.rows[-2][kind] < self.settings.min_gain

    def train_epoch(self, stop: Stop) -> None:
        """The rest of an epoch, then both validations; interrupted validations start again."""
        epoch, start = len(self.rows) + 1, len(self.rows) * self.steps_per_epoch
        self.network.train()
        for batch in self.batches(start, start + self.steps_per_epoch, f"epoch {epoch}/{self.epochs}", stop):
            self.advance(self._backward(batch))
        loss, accuracy = self._validate(stop, noisy=False)
        _, accuracy_noisy = self._validate(stop, noisy=True)
        if not (math.isfinite(self.loss_sum.item()) and math.isfinite(loss)):
            raise NrcgError(f"training diverged in epoch {epoch}: the loss is not finite; lower learning_rate")
        row = {"epoch": epoch, "train_loss": self.loss_sum.item() / self.steps_per_epoch, "valid_loss": loss}
        row |= {"valid_accuracy": accuracy, "valid_accuracy_noisy": accuracy_noisy}
        self.rows.append(row | {"lr": self.lr_schedule.get_last_lr()[0]})
        self.loss_sum.zero_()
        log.info("epoch %d: accuracy %.4f clean, %.4f noisy", epoch, accuracy, accuracy_noisy)

    def result(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        accuracies = {key: self.rows[-1][key] for key in ("valid_accuracy", "valid_accuracy_noisy")}
        return self.network.state_dict(), {"epochs": len(self.rows), **accuracies}

    def _backward(self, batch: np.ndarray) -> torch.Tensor:
        """The mean loss over the batch; its gradient is left in the weights."""
        seed_torch("classifier dropout", self.settings.seed, self.step)  # MobileNet has dropout
        noise = ("classifier noise", self.settings.seed, self.step) if self.settings.robust else None
        try:
            x, labels = self._load(batch, noise)
            loss = _loss(self.network(x), labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            return loss.detach()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # splitting the batch would change the training: batch norm uses statistics of the whole batch
            way = "choose a smaller batch_size, or a device with more"
            raise NrcgError(f"batch_size {len(batch)}: out of memory in training a classifier; {way}") from None

    def _load(self, batch: np.ndarray, noise: tuple[Any, ...] | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and their labels; with noise of this purpose and key, if given."""
        x = to_float(self.images.images[batch], self.device)
        labels = to_device(self.images.labels[batch], self.device)
        if noise:
            x = to_rgb(noised(self.scheduler, to_channels(x, self.settings.channels), *noise)[0])
        return x, labels

    @torch.no_grad()
    def _validate(self, stop: Stop, *, noisy: bool) -> tuple[float, float]:
        """Mean loss and accuracy over the validation images; the noise is the same after every epoch."""
        self.network.eval()
        loss, correct = torch.zeros(2, dtype=torch.float64, device=self.device)  # read from the device once
        for i, batch in enumerate(np.split(self.valid, range(VALIDATION_BATCH, len(self.valid), VALIDATION_BATCH))):
            stop.check()
            x, labels = self._load(batch, ("classifier validation noise", self.settings.seed, i) if noisy else None)
            logits = torch.cat([part for _, part in self.memory.each(self.network, x)])
            loss += _loss(logits, labels).double() * len(batch)
            correct += (predictions(logits) == labels).sum()
        return loss.item() / len(self.valid), correct.item() / len(self.valid)


@torch.no_grad()
def _check_outputs(network: Any, images: torch.Tensor, n_logits: int) -> None:
    """Refuse a network that does not accept the images or does not return logits."""
    try:
        found = network.eval()(images)
    except Exception as error:  # any error of the network
        if is_out_of_memory(error):
            raise
        size = "×".join(map(str, images.shape[2:]))
        raise NrcgError(
            f"architecture: fails for images of {size} pixels ({first_line(error)}); choose another"
        ) from error
    if not isinstance(found, torch.Tensor) or found.shape != (len(images), n_logits):
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise NrcgError(f"architecture: returns {shape}, not {n_logits} logits per image; choose another")


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if logits.shape[1] == 1:
        return binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    return cross_entropy(logits, labels)
