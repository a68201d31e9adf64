"""Training of the noise predictor: the simplified objective of Ho et al. (2020), eq. 14, for any prediction type."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMPipeline, UNet2DModel
from diffusers.training_utils import EMAModel
from torch.nn.functional import mse_loss
from torchvision.utils import save_image

from nrcg.errors import NrcgError
from nrcg.io.files import atomic
from nrcg.io.images import to_channels, to_float, to_rgb
from nrcg.models.ddpm import build_scheduler, build_unet, check_unet, save_ddpm, takes_images
from nrcg.rng import keyed_generator, seed_torch
from nrcg.runtime.memory import BatchLimit
from nrcg.runtime.preemption import Stop
from nrcg.speed import inductor, prepare, worth_compiling
from nrcg.training import distributed
from nrcg.training.common import Trainer, noised, open_images, run
from nrcg.training.settings import DDPMTraining

LOG_EVERY = 50  # steps per row of the loss log; fewer in the last row
PREVIEW = 64  # samples


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
    """Train on the train split of the image set `data`; write a diffusers folder, a card and a log to `out`."""
    noise_scheduler = build_scheduler(scheduler)
    check_unet(unet)
    images = open_images(data, settings, verify=distributed.rank() == 0)
    if settings.batch_size % (n := distributed.size()):
        raise NrcgError(f"batch_size {settings.batch_size}: must be a multiple of the number of processes, {n}")
    if not takes_images(unet["sample_size"], size := images.card["size"]):
        raise NrcgError(f"unet: sample_size {unet['sample_size']}, but the images of {data} are {size} pixels wide")

    def make() -> Trainer:
        seed_torch("ddpm weights", settings.seed)
        network = prepare(build_unet(unet).to(device))
        ways = Path(out, "previews"), checkpoint_every, preview_every, compile
        return _Trainer(network, images, noise_scheduler, settings, settings.epochs, device, *ways)

    def write(weights: dict[str, torch.Tensor], card: dict[str, Any]) -> None:
        network = build_unet(unet)
        network.load_state_dict(weights)
        save_ddpm(out, network.eval(), noise_scheduler, card)

    decisive = {"unet": unet, "scheduler": scheduler, "log_every": LOG_EVERY, **asdict(settings)}
    run(make, write, images, Path(out), Path(checkpoint), stop or Stop(), **decisive)


@dataclass
class _Trainer(Trainer):
    previews: Path
    checkpoint_every: int
    preview_every: int
    compile: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        self.predict: Any = self.network  # perhaps compiled, for the steps; previews and files use the U-Net
        config: Any = self.network.config
        self.channels: int = config.in_channels
        decay = self.settings.ema_decay
        self.ema = EMAModel(self.network.parameters(), decay=decay, foreach=True) if decay else None
        self.parts |= {"ema": self.ema} if decay else {}
        self.memory = BatchLimit("DDPM training", self.settings.batch_size)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.ema:
            self.ema.to(self.device)

    def train(self, stop: Stop, keep: Callable[[], None]) -> None:
        if self.compile and worth_compiling((self.total_steps - self.step) * self.settings.batch_size, self.device):
            self.predict = torch.compile(self.network, backend=inductor)
        for batch in self.batches(0, self.total_steps, "DDPM training", stop):
            images = to_float(self.images.images[distributed.share(batch)], self.device)
            self.train_step(to_channels(images, self.channels))
            preview = self.preview_every and self.step % self.preview_every == 0
            if preview or self.step % self.checkpoint_every == 0:
                keep()
            if preview:
                self.preview()

    def result(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        return self.averaged().state_dict(), {
            "steps": self.total_steps,
            "images_seen": self.total_steps * self.settings.batch_size,
            "final_loss": round(float(np.mean([row["loss"] for row in self.rows[-20:]])), 6),
            "processes": distributed.size(),
        }

    def train_step(self, x0: torch.Tensor) -> None:
        """One optimiser step on this process's share of the batch: clean images N×C×H×W in [−1, 1]."""
        x_t, noise, timesteps = noised(self.scheduler, x0, "ddpm noise", self.settings.seed, self.step)
        targets = {"epsilon": noise, "sample": x0, "v_prediction": self.scheduler.get_velocity(x0, noise, timesteps)}
        target = targets[self.scheduler.config.prediction_type]
        loss = self.memory.attempt(lambda size: self._backward(x_t, timesteps, target, size), len(x0))
        weights = list(self.network.parameters())
        distributed.average([*(weight.grad for weight in weights if weight.grad is not None), loss])
        torch.nn.utils.clip_grad_norm_(weights, self.settings.gradient_clip)
        self.advance(loss)
        if self.ema:
            self.ema.step(weights)
        if self.step % LOG_EVERY == 0 or self.step == self.total_steps:
            self._record()

    def _backward(self, x_t: torch.Tensor, timesteps: torch.Tensor, target: torch.Tensor, size: int) -> torch.Tensor:
        """The mean loss over the batch, in pieces of `size` images; its gradient is left in the weights."""
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

    def _record(self) -> None:
        mean = self.loss_sum.item() / (self.step - (self.rows[-1]["step"] if self.rows else 0))
        if not math.isfinite(mean):
            raise NrcgError(f"training diverged at step {self.step}: loss {mean}; lower learning_rate")
        self.loss_sum.zero_()
        self.told = {"loss": f"{mean:.4f}"}
        images = self.step * self.settings.batch_size
        self.rows.append({"step": self.step, "images": images, "loss": mean, "lr": self.lr_schedule.get_last_lr()[0]})

    def averaged(self) -> UNet2DModel:
        """A copy of the U-Net in eval mode, with the EMA weights, if any."""
        self.optimizer.zero_grad(set_to_none=True)  # frees memory for the copy
        unet = deepcopy(self.network).eval()
        if self.ema:
            self.ema.copy_to(unet.parameters())
        return unet

    def preview(self) -> None:
        """Write a grid of samples of the averaged weights, with the same seeds every time for comparison."""
        pipe = DDPMPipeline(unet=self.averaged(), scheduler=self.scheduler)
        pipe.set_progress_bar_config(desc="preview", unit="step", leave=False, disable=distributed.rank() > 0)
        steps = self.scheduler.config.num_train_timesteps

        def draw(batch: range) -> np.ndarray:
            generators = [keyed_generator("ddpm preview", self.settings.seed, i) for i in batch]
            return pipe(len(batch), generators, num_inference_steps=steps, output_type="np").images

        pieces = [images for _, images in BatchLimit("preview", PREVIEW).each(draw, range(PREVIEW))]
        samples = torch.from_numpy(np.concatenate(pieces)).permute(0, 3, 1, 2)
        if distributed.rank() == 0:  # the other processes draw it too, to stay in step
            with atomic(self.previews / f"step_{self.step:07d}.png") as file:
                doubled = to_rgb(samples * 2 - 1).add(1).div(2).repeat_interleave(2, 2).repeat_interleave(2, 3)
                save_image(doubled, file, "PNG", nrow=8, padding=2, pad_value=200 / 255)
