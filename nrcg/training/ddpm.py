"""Training of the noise predictor: the simplified objective of Ho et al. (2020), eq. 14, for any prediction type."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch.nn.functional import mse_loss
from torchvision.utils import make_grid, save_image
from tqdm import tqdm

from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError
from nrcg.io.files import atomic
from nrcg.io.images import to_float
from nrcg.models.ddpm import build_scheduler, build_unet, check_unet, save_ddpm, takes_images, write_card
from nrcg.rng import keyed_generator, seed_torch
from nrcg.runtime.memory import BatchLimit
from nrcg.runtime.preemption import Stop
from nrcg.speed import prepare, worth_compiling
from nrcg.training import distributed
from nrcg.training.common import Trainer, epoch_order, noised, run
from nrcg.training.settings import DDPMTraining

LOG_EVERY = 50  # steps a row of the loss log; the last row may stand for fewer
PREVIEW = 64  # samples


def check_training(
    data: str | Path,
    unet: dict[str, Any],
    scheduler: dict[str, Any],
    settings: DDPMTraining,
    processes: int = 1,
    verify: bool = True,
) -> tuple[ImageSet, DDPMScheduler]:
    """Image set and scheduler of a training with these arguments, whose data are those of their card if `verify`.

    Raises NrcgError when there can be none.
    """
    noise_scheduler = build_scheduler(scheduler)
    check_unet(unet)
    images = ImageSet.open(data, verify=verify)
    n, size = len(images.indices("train")), images.card["size"]
    if n < settings.batch_size:
        raise NrcgError(f"{data}: {n} training images, fewer than batch_size {settings.batch_size}")
    if settings.batch_size % processes:
        raise NrcgError(f"batch_size {settings.batch_size}: not a multiple of the {processes} processes; choose one")
    if not takes_images(unet["sample_size"], size):
        raise NrcgError(f"unet: sample_size {unet['sample_size']}, but the images of {data} are {size} pixels wide")
    return images, noise_scheduler


def train_ddpm(
    data: str | Path,
    out: str | Path,
    *,
    unet: dict[str, Any],
    scheduler: dict[str, Any],
    settings: DDPMTraining,
    checkpoint: str | Path,
    checkpoint_every: int = 1000,
    preview_every: int = 0,
    compile: bool = False,
    device: torch.device,
    stop: Stop | None = None,
) -> None:
    """Train on the train split of the image set `data`; write a diffusers folder, card and log to `out`.

    Every random draw of step k is a function of (seed, k), so a run that was killed and continues from `checkpoint`
    ends, on a CPU, with the same bits as one that was not. A batch that the device's memory does not hold is taken in
    pieces. Processes that `distributed.launch` started share each batch: however many they are, they take the steps of
    one, up to rounding; only dropout, if the U-Net has any, is another.

    Args:
        data: folder of the image set.
        out: folder to write.
        unet: arguments of UNet2DModel.
        scheduler: arguments of DDPMScheduler.
        settings: of the training.
        checkpoint: file; the last one stays, without an optimiser: from it the same training writes its files again.
        checkpoint_every: steps.
        preview_every: steps between grids of samples in `out`/previews; 0 is never.
        compile: compile the U-Net where that pays.
        device: where to train.
        stop: asked after each step.

    Raises:
        NrcgError: for unusable settings, and for data that are not those of their card.
        Stopped: when `stop` asked for it, and a checkpoint of the step just done is written.
    """
    processes = distributed.size()  # of several, the parent has verified the data
    images, noise_scheduler = check_training(data, unet, scheduler, settings, processes, processes == 1)

    def make() -> Trainer:
        seed_torch("ddpm weights", settings.seed)
        network = prepare(build_unet(unet).to(device))
        trainer = _Trainer(network, noise_scheduler, settings, len(images.indices("train")) // settings.batch_size)
        trainer.images, trainer.previews = images, Path(out, "previews")
        trainer.checkpoint_every, trainer.preview_every, trainer.compile = checkpoint_every, preview_every, compile
        return trainer

    def write(weights: dict[str, torch.Tensor], card: dict[str, Any]) -> None:
        network = build_unet(unet)
        network.load_state_dict(weights)
        save_ddpm(out, network.eval(), noise_scheduler)
        write_card(out, card)

    decisive = {"unet": unet, "scheduler": scheduler, "log_every": LOG_EVERY, **asdict(settings)}
    run(make, write, images, Path(out), Path(checkpoint), stop or Stop(), **decisive)


class _Trainer(Trainer):
    def __init__(self, unet: UNet2DModel, scheduler: DDPMScheduler, settings: DDPMTraining, steps_per_epoch: int):
        self.scheduler, self.steps_per_epoch = scheduler, steps_per_epoch
        super().__init__(unet, settings, settings.epochs * steps_per_epoch, unet.device)
        self.unet = self.predict = unet  # what a step calls is perhaps compiled; previews and files take the U-Net
        decay = settings.ema_decay
        self.ema = EMAModel(unet.parameters(), decay=decay, foreach=True) if decay else None
        self.parts |= {"ema": self.ema} if decay else {}
        self.memory = BatchLimit("DDPM training", settings.batch_size)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.ema:
            self.ema.to(self.device)

    def train(self, stop: Stop, keep: Callable[[], None]) -> None:
        train, size, first = self.images.indices("train"), self.settings.batch_size, self.step
        if self.compile and worth_compiling((self.total_steps - first) * size, self.device):
            self.predict = torch.compile(self.unet)
        quiet = distributed.rank() > 0
        with tqdm(total=self.total_steps, initial=first, desc="DDPM training", unit="step", disable=quiet) as progress:
            while self.step < self.total_steps:
                epoch, position = divmod(self.step, self.steps_per_epoch)
                if position == 0 or self.step == first:
                    order = train[epoch_order(len(train), self.settings.seed, epoch)]
                batch = np.sort(order[position * size : (position + 1) * size])
                self.train_step(to_float(self.images.images[distributed.share(batch)], self.device))
                progress.update()
                if self.step % LOG_EVERY == 0:
                    progress.set_postfix(loss=f"{self.rows[-1]['loss']:.4f}")
                stop.check()
                preview = self.preview_every and self.step % self.preview_every == 0
                if preview or self.step % self.checkpoint_every == 0:
                    keep()
                if preview:
                    self.preview()

    def result(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        with self.averaged_weights() as unet:
            weights = {name: tensor.to("cpu", copy=True) for name, tensor in unet.state_dict().items()}
        return weights, {
            "steps": self.total_steps,
            "images_seen": self.total_steps * self.settings.batch_size,
            "final_loss": round(float(np.mean([row["loss"] for row in self.rows[-20:]])), 6),
            "processes": distributed.size(),
        }

    def train_step(self, x0: torch.Tensor) -> None:
        """One optimiser step on clean images N×3×H×W in [−1, 1], this process's share of the batch."""
        generator = keyed_generator("ddpm noise", self.settings.seed, self.step, device=x0.device)
        x_t, noise, timesteps = noised(self.scheduler, x0, generator)
        everything = x_t, timesteps, self._target(x0, noise, timesteps)
        loss = self.memory.attempt(lambda size: self._backward(*everything, size), len(x0))
        distributed.average([*(weight.grad for weight in self.unet.parameters() if weight.grad is not None), loss])
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), self.settings.gradient_clip)
        self.optimizer.step()
        self.lr_schedule.step()
        if self.ema:
            self.ema.step(self.unet.parameters())
        self.step += 1
        self._record(loss)

    def _backward(self, x_t: torch.Tensor, timesteps: torch.Tensor, target: torch.Tensor, size: int) -> torch.Tensor:
        """The mean loss over the batch and, in the weights, its gradient, added up over pieces of `size` images."""
        seed_torch("ddpm dropout", self.settings.seed, self.step, distributed.rank())  # if the U-Net has any
        self.optimizer.zero_grad(set_to_none=True)
        mean = torch.zeros((), device=x_t.device)
        for noisy, t, wanted in zip(x_t.split(size), timesteps.split(size), target.split(size), strict=True):
            with torch.autocast(x_t.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
                prediction = self.predict(noisy, t).sample
            loss = mse_loss(prediction.float(), wanted) * (len(noisy) / len(x_t))
            loss.backward()
            mean += loss.detach()
        return mean

    def _target(self, x0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            return noise
        return x0 if kind == "sample" else self.scheduler.get_velocity(x0, noise, timesteps)

    def _record(self, loss: torch.Tensor) -> None:
        self.loss_sum += loss
        if self.step % LOG_EVERY and self.step < self.total_steps:
            return
        mean = self.loss_sum.item() / (self.step - (self.rows[-1]["step"] if self.rows else 0))
        if not math.isfinite(mean):
            raise NrcgError(f"training diverged at step {self.step}: loss {mean}; lower learning_rate")
        self.loss_sum.zero_()
        images = self.step * self.settings.batch_size
        self.rows.append({"step": self.step, "images": images, "loss": mean, "lr": self.lr_schedule.get_last_lr()[0]})

    @contextmanager
    def averaged_weights(self) -> Iterator[UNet2DModel]:
        """The U-Net in eval mode with the EMA weights, if any; its own weights come back after it."""
        if self.ema:
            self.ema.store(self.unet.parameters())
            self.ema.copy_to(self.unet.parameters())
        try:
            yield self.unet.eval()
        finally:
            if self.ema:
                self.ema.restore(self.unet.parameters())
            self.unet.train()

    def preview(self) -> None:
        """A grid of samples of the averaged weights; always of the same seeds, so that previews can be compared."""
        with self.averaged_weights() as unet:
            pipe = DDPMPipeline(unet=unet, scheduler=self.scheduler)
            pipe.set_progress_bar_config(disable=True)
            steps = self.scheduler.config.num_train_timesteps

            def draw(batch: range) -> np.ndarray:
                generators = [keyed_generator("ddpm preview", self.settings.seed, i) for i in batch]
                return pipe(len(batch), generators, num_inference_steps=steps, output_type="np").images

            pieces = [images for _, images in BatchLimit("preview", PREVIEW).each(draw, range(PREVIEW))]
        samples = torch.from_numpy(np.concatenate(pieces)).permute(0, 3, 1, 2)
        sheet = (
            make_grid(samples, nrow=8, padding=1, pad_value=200 / 255).repeat_interleave(2, 1).repeat_interleave(2, 2)
        )
        if distributed.rank() == 0:  # the others draw it, too, for as long
            with atomic(self.previews / f"step_{self.step:07d}.png") as file:
                save_image(sheet, file, format="PNG")
