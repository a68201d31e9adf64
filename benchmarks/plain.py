"""The same work as a careful user of diffusers and pytorch-fid would write it, without this library.

Ordinary, not slow on purpose: networks are frozen and in eval mode, autograd runs where a gradient is needed only, and
`DDPMScheduler.step` gives x̂_0. Eager, in the default memory layout, one random generator for the batch, on the device.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.utils.torch_utils import randn_tensor
from torch import nn
from torch.nn.functional import log_softmax, mse_loss
from torch.utils.data import DataLoader, TensorDataset

Generator = torch.Generator | list[torch.Generator]


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Networks in bfloat16 for `bf16`; as they are for `fp32`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def start(unet: UNet2DModel, batch: int, generator: Generator) -> torch.Tensor:
    size = unet.config.sample_size
    return randn_tensor((batch, unet.config.in_channels, size, size), generator=generator, device=unet.device)


def guided_on_x0(
    unet: UNet2DModel,
    classifier: nn.Module,
    scheduler: DDPMScheduler,
    generator: Generator,
    *,
    batch: int,
    steps: int,
    target: int,
    scale: float,
    decay: float,
    precision: str = "fp32",
) -> torch.Tensor:
    """Images N×3×H×W in [0, 1]: guided by the logit at x̂_0, the gradient through the U-Net, its moving average."""
    scheduler.set_timesteps(steps)
    x = start(unet, batch, generator)
    average = torch.zeros_like(x)
    for t in scheduler.timesteps:
        x.requires_grad_()
        with autocast(x.device, precision):
            output = unet(x, t).sample.float()
        step = scheduler.step(output, t, x, generator=generator)
        with autocast(x.device, precision):
            logits = classifier(step.pred_original_sample)
        (gradient,) = torch.autograd.grad(logits[:, target].sum(), x)
        average = decay * average + (1 - decay) * gradient
        x = step.prev_sample.detach() + scale * scheduler._get_variance(t) * average
    return (x / 2 + 0.5).clamp(0, 1)


def guided_on_xt(
    unet: UNet2DModel,
    classifier: nn.Module,
    scheduler: DDPMScheduler,
    generator: Generator,
    *,
    batch: int,
    steps: int,
    target: int,
    scale: float,
    precision: str = "fp32",
) -> torch.Tensor:
    """Images N×3×H×W in [0, 1]: guided by log p at the noisy image, which a robust classifier understands."""
    scheduler.set_timesteps(steps)
    x = start(unet, batch, generator)
    for t in scheduler.timesteps:
        x.requires_grad_()
        with autocast(x.device, precision):
            log_p = log_softmax(classifier(x).float(), dim=1)[:, target]
        (gradient,) = torch.autograd.grad(log_p.sum(), x)
        x = x.detach()
        with torch.no_grad(), autocast(x.device, precision):
            output = unet(x, t).sample.float()
        x = scheduler.step(output, t, x, generator=generator).prev_sample
        x = x + scale * scheduler._get_variance(t) * gradient
    return (x / 2 + 0.5).clamp(0, 1)


def unguided(
    unet: UNet2DModel,
    scheduler: DDPMScheduler,
    generator: Generator,
    *,
    batch: int,
    steps: int,
    precision: str = "fp32",
) -> torch.Tensor:
    """Images N×3×H×W in [0, 1] of diffusers' own pipeline."""
    pipeline = DDPMPipeline(unet=unet, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    with autocast(unet.device, precision):
        return pipeline(batch, generator, num_inference_steps=steps, output_type="pt").images


def ddpm_training(
    unet: UNet2DModel, scheduler: DDPMScheduler, images: np.ndarray, *, batch: int, precision: str = "fp32"
) -> Callable[[], torch.Tensor]:
    """Trains for an epoch a call on uint8 images N×H×W×3, as diffusers' example of unconditional training does.

    The call returns the loss of the last step.
    """
    device, kind = unet.device, scheduler.config.prediction_type
    dataset = TensorDataset(torch.from_numpy(images).permute(0, 3, 1, 2))
    loader = DataLoader(dataset, batch, shuffle=True, drop_last=True, pin_memory=device.type == "cuda")
    unet.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4)
    learning_rate = get_cosine_schedule_with_warmup(optimizer, 500, 1000 * len(loader))

    def epoch() -> torch.Tensor:
        for (clean,) in loader:
            clean = clean.to(device, non_blocking=True).float() / 127.5 - 1
            noise = torch.randn_like(clean)
            timesteps = torch.randint(scheduler.config.num_train_timesteps, (batch,), device=device)
            noisy = scheduler.add_noise(clean, noise, timesteps)
            target = noise if kind == "epsilon" else scheduler.get_velocity(clean, noise, timesteps)
            with autocast(device, precision):
                output = unet(noisy, timesteps).sample
            loss = mse_loss(output.float(), target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            learning_rate.step()
            optimizer.zero_grad()
        return loss.detach()

    return epoch


def both_neighbours(
    unet: UNet2DModel,
    classifier: nn.Module,
    scheduler: DDPMScheduler,
    x0: torch.Tensor,
    noise: torch.Tensor,
    labels: torch.Tensor,
    *,
    target: int,
    stride: int = 1,
    precision: str = "fp32",
) -> dict[int, dict[str, float]]:
    """Accuracy on x̂_0 and sensitivities by t: at each t, x_t and its neighbour below are evaluated.

    x0, noise   N×3×H×W, images in [−1, 1] and the noise of each; labels N
    """

    def evaluate(t: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = x0 if t == 0 else scheduler.add_noise(x0, noise, torch.tensor([t - 1]))
        x = x.detach().requires_grad_()
        seen = x
        if t:
            with autocast(x.device, precision):
                output = unet(x, t - 1).sample.float()
            seen = scheduler.step(output, t - 1, x).pred_original_sample
        with autocast(x.device, precision):
            logits = classifier(seen).float()
        (gradient,) = torch.autograd.grad(log_softmax(logits, dim=1)[:, target].sum(), x)
        return x.detach(), logits.detach(), gradient

    curves = {}
    for t in range(scheduler.config.num_train_timesteps, 0, -stride):
        x, logits, gradient = evaluate(t)
        x_below, logits_below, gradient_below = evaluate(max(t - stride, 0))
        distance = (x - x_below).flatten(1).norm(dim=1)
        curves[t] = {
            "accuracy": (logits.argmax(1) == labels).float().mean().item(),
            "logit_sensitivity": ((logits - logits_below).norm(dim=1) / distance).mean().item(),
            "gradient_sensitivity": ((gradient - gradient_below).flatten(1).norm(dim=1) / distance).mean().item(),
        }
    return curves


def inception_statistics(
    files: Sequence[Path], inception: nn.Module, *, batch: int, workers: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of pytorch-fid's 2 048 features of PNG files, by pytorch-fid."""
    from pytorch_fid.fid_score import calculate_activation_statistics

    return calculate_activation_statistics(list(files), inception, batch, 2048, device, workers)


def feature_statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of features N×D, as pytorch-fid takes them."""
    return np.mean(features, axis=0), np.cov(features, rowvar=False)
