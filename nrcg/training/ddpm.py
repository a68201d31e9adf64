"""Training of the noise predictor: the simplified objective of Ho et al. (2020), eq. 14, for any prediction type."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import nn
from torch.nn.functional import mse_loss
from tqdm import tqdm

from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError, Stopped
from nrcg.io.files import fingerprint, save_with
from nrcg.io.images import to_float
from nrcg.models.ddpm import build_scheduler, build_unet, check_unet, save_ddpm, takes_images, write_card
from nrcg.plots.tiles import grid
from nrcg.rng import keyed_generator, seed_torch
from nrcg.runtime.memory import BatchLimit
from nrcg.runtime.preemption import Stop
from nrcg.speed import prepare, worth_compiling
from nrcg.training.common import (
    autocast,
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
from nrcg.training.distributed import Team
from nrcg.training.settings import DDPMTraining

LOG_EVERY = 50  # steps a row of the loss log; the last row may stand for fewer


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
    team: Team | None = None,
) -> None:
    """Train on the train split of the image set `data`; write a diffusers folder, card and log to `out`.

    Every random draw of step k is a function of (seed, k), so a run that was killed and continues from
    `checkpoint` ends, on a CPU, with the same bits as one that was not. A batch that the device's memory does not
    hold is taken in pieces. The processes of a `team` (see `nrcg.training.launch`) share each batch: however many they
    are, they take the steps of one, up to rounding; only dropout, if the U-Net has any, is another. With `compile` the
    U-Net is compiled where that pays. The last checkpoint stays, without an optimiser: from it the same training writes
    its files again. Raises NrcgError on unusable settings and for data that are not those of their card, and Stopped,
    with a checkpoint of the step just done, when `stop` asks for it.
    """
    team = team or Team()
    noise_scheduler = build_scheduler(scheduler)
    check_unet(unet)
    images = ImageSet.open(data, verify=team.first)
    n, size = len(images.indices("train")), images.card["size"]
    if n < settings.batch_size:
        raise NrcgError(f"{data}: {n} training images, fewer than batch_size {settings.batch_size}")
    if settings.batch_size % team.size:
        raise NrcgError(f"batch_size {settings.batch_size}: not a multiple of the {team.size} processes; choose one")
    if not takes_images(unet["sample_size"], size):
        raise NrcgError(f"unet: sample_size {unet['sample_size']}, but the images of {data} are {size} pixels wide")
    identity = fingerprint(
        data=images.card["digest"], unet=unet, scheduler=scheduler, log_every=LOG_EVERY, **asdict(settings)
    )
    out, checkpoint, stop = Path(out), Path(checkpoint), stop or Stop()
    with only_one(checkpoint, out, stop, wait=team.size == 1) if team.first else nullcontext():
        state = load_checkpoint(checkpoint, identity)
        if not (state and "finished" in state):
            seed_torch("ddpm weights", settings.seed)
            network = prepare(build_unet(unet).to(device))
            trainer = _Trainer(network, noise_scheduler, settings, n // settings.batch_size, team)
            if state:
                trainer.load_state_dict(state)
                log.info("continuing from step %d of %d", trainer.step, trainer.total_steps)
            if compile and worth_compiling((trainer.total_steps - trainer.step) * settings.batch_size, device):
                trainer.predict = torch.compile(network)
            _train(trainer, images, out, checkpoint, identity, checkpoint_every, preview_every, stop)
            if not team.first:
                return
            with trainer.averaged_weights() as weights:
                state = save_finished(checkpoint, identity, weights.state_dict(), trainer.rows, _card(trainer, images))
        if team.first:
            _write(out, state["finished"], unet, noise_scheduler)
            remove_checkpoint_before(checkpoint)


def _train(
    trainer: "_Trainer",
    images: ImageSet,
    out: Path,
    checkpoint: Path,
    identity: str,
    checkpoint_every: int,
    preview_every: int,
    stop: Stop,
) -> None:
    """Take the steps that are left."""
    settings, team, device = trainer.settings, trainer.team, trainer.unet.device
    train = images.indices("train")
    started, first = time.monotonic(), trainer.step
    try:
        total, quiet = trainer.total_steps, not team.first
        with tqdm(total=total, initial=first, desc="DDPM training", unit="step", disable=quiet) as progress:
            while trainer.step < total:
                epoch, position = divmod(trainer.step, trainer.steps_per_epoch)
                if position == 0 or trainer.step == first:
                    order = train[epoch_order(len(train), settings.seed, epoch)]
                batch = np.sort(order[position * settings.batch_size : (position + 1) * settings.batch_size])
                trainer.train_step(to_float(images.images[team.share(batch)], device))
                progress.update()
                if trainer.step % LOG_EVERY == 0:
                    progress.set_postfix(loss=f"{trainer.rows[-1]['loss']:.4f}")
                if preview_every and trainer.step % preview_every == 0:
                    trainer.preview(out / "previews" / f"step_{trainer.step:07d}.png")
                stop.check()
                if team.first and trainer.step % checkpoint_every == 0:
                    save_checkpoint(checkpoint, identity, trainer.state_dict(time.monotonic() - started))
                    started = time.monotonic()
    except Stopped:
        if team.first:
            save_checkpoint(checkpoint, identity, trainer.state_dict(time.monotonic() - started))
        raise
    trainer.seconds += time.monotonic() - started


def _card(trainer: "_Trainer", images: ImageSet) -> dict[str, Any]:
    settings = trainer.settings
    return {
        "data": images.card["name"],
        "data_digest": images.card["digest"],
        "training": asdict(settings),
        "steps": trainer.total_steps,
        "images_seen": trainer.total_steps * settings.batch_size,
        "final_loss": round(float(np.mean([row["loss"] for row in trainer.rows[-20:]])), 6),
        "seconds": round(trainer.seconds),
        "device": trainer.unet.device.type,
        "processes": trainer.team.size,
        "torch": torch.__version__,
    }


def _write(out: Path, finished: dict[str, Any], unet: dict[str, Any], scheduler: DDPMScheduler) -> None:
    network = build_unet(unet)
    network.load_state_dict(finished["weights"])
    save_ddpm(out, network.eval(), scheduler)
    write_log(out, finished)
    write_card(out, card_of(finished))


class _Trainer:
    """Network, optimiser and step count: all that a checkpoint holds."""

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: DDPMScheduler,
        settings: DDPMTraining,
        steps_per_epoch: int,
        team: Team | None = None,
    ):
        self.unet, self.scheduler, self.settings = unet, scheduler, settings
        self.steps_per_epoch = steps_per_epoch
        self.team = team or Team()
        self.total_steps = settings.epochs * steps_per_epoch
        self.predict: nn.Module = unet  # what a step calls; previews and files take the U-Net
        self.optimizer = torch.optim.AdamW(unet.parameters(), lr=settings.learning_rate, fused=True)
        self.lr_schedule = get_cosine_schedule_with_warmup(self.optimizer, settings.warmup_steps, self.total_steps)
        decay = settings.ema_decay
        self.ema = EMAModel(unet.parameters(), decay=decay, foreach=True) if decay else None
        self.memory = BatchLimit("DDPM training", settings.batch_size)
        self.step = 0
        self.seconds = 0.0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=unet.device)
        self.rows: list[dict[str, float]] = []

    def train_step(self, x0: torch.Tensor) -> None:
        """One optimiser step on clean images N×3×H×W in [−1, 1], this process's share of the batch."""
        generator = keyed_generator("ddpm noise", self.settings.seed, self.step, device=x0.device)
        n = len(x0) * self.team.size  # drawn for the whole batch, so that an image gets the same in any team
        steps = self.scheduler.config.num_train_timesteps
        timesteps = self.team.share(torch.randint(steps, (n,), generator=generator, device=x0.device))
        noise = self.team.share(torch.randn((n, *x0.shape[1:]), generator=generator, device=x0.device))
        x_t = self.scheduler.add_noise(x0, noise, timesteps)
        everything = x_t, timesteps, self._target(x0, noise, timesteps)
        loss = self.memory.attempt(lambda size: self._backward(*everything, size), len(x0))
        self.team.average([*(weight.grad for weight in self.unet.parameters() if weight.grad is not None), loss])
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), self.settings.gradient_clip)
        self.optimizer.step()
        self.lr_schedule.step()
        if self.ema:
            self.ema.step(self.unet.parameters())
        self.step += 1
        self._record(loss)

    def _backward(self, x_t: torch.Tensor, timesteps: torch.Tensor, target: torch.Tensor, size: int) -> torch.Tensor:
        """The mean loss over the batch and, in the weights, its gradient, added up over pieces of `size` images."""
        seed_torch("ddpm dropout", self.settings.seed, self.step, self.team.rank)  # if the U-Net has any
        self.optimizer.zero_grad(set_to_none=True)
        mean = torch.zeros((), device=x_t.device)
        for noisy, t, wanted in zip(x_t.split(size), timesteps.split(size), target.split(size), strict=True):
            with autocast(self.settings.precision, x_t.device):
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

    def preview(self, path: Path, n: int = 64) -> None:
        """A grid of `n` samples; always the same seeds, so that previews can be compared.

        The first process of a team draws it. The others wait, and get a sign of life at each pass of the network.
        """
        if not self.team.first:
            while self.team.any(False):
                pass
            return
        hook = self.unet.register_forward_pre_hook(lambda *_: self.team.any(True) and None)
        try:
            self._draw_preview(path, n)
        finally:
            hook.remove()
        self.team.any(False)

    def _draw_preview(self, path: Path, n: int) -> None:
        with self.averaged_weights() as unet:
            pipe = DDPMPipeline(unet=unet, scheduler=self.scheduler)
            pipe.set_progress_bar_config(disable=True)
            steps = self.scheduler.config.num_train_timesteps

            def draw(batch: range) -> np.ndarray:
                generators = [keyed_generator("ddpm preview", self.settings.seed, i) for i in batch]
                return pipe(len(batch), generators, num_inference_steps=steps, output_type="np").images

            samples = np.concatenate([images for _, images in BatchLimit("preview", n).each(draw, range(n))])
        sheet = Image.fromarray(grid((samples * 255).round().astype(np.uint8), columns=8))
        save_with(path, lambda place: sheet.resize((2 * sheet.width, 2 * sheet.height), Image.NEAREST).save(place))

    def state_dict(self, seconds: float) -> dict[str, Any]:
        self.seconds += seconds
        return {
            "step": self.step,
            "seconds": self.seconds,
            "rows": self.rows,
            "loss_sum": self.loss_sum,
            "unet": self.unet.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_schedule": self.lr_schedule.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        self.loss_sum.copy_(state["loss_sum"])
        self.unet.load_state_dict(state["unet"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_schedule.load_state_dict(state["lr_schedule"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
            self.ema.to(self.unet.device)
