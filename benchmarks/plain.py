"""The same work as a careful user of diffusers would write it: eager, default layout, frozen networks in eval mode."""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.utils.torch_utils import randn_tensor
from torch.nn.functional import log_softmax, mse_loss
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.networks import Networks
from nrcg.rng import keyed_generator

Generator = torch.Generator | list[torch.Generator] | None
DECAY = 0.99


def autocast(device: torch.device) -> torch.autocast:
    """Networks in bfloat16 on CUDA, as is common; unchanged on a CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def floor(unet: UNet2DModel, batch: int, times: int, *, gradient: bool, bf16: bool) -> dict[str, Callable[[], None]]:
    """The floor: passes of the U-Net alone, by name."""
    size = unet.config.sample_size
    x = torch.zeros(batch, unet.config.in_channels, size, size, device=unet.device).requires_grad_(gradient)

    def passes() -> None:
        for t in range(times):
            with torch.set_grad_enabled(gradient), torch.autocast(x.device.type, torch.bfloat16, bf16):
                output = unet(x, t).sample
            if gradient:
                torch.autograd.grad(output.sum(), x)

    return {f"floor: {times} forward passes{' and input gradients' if gradient else ''}": passes}


def guided(
    parts: Networks, generator: Generator = None, *, batch: int, steps: int, on: str, target: int, scale: float
) -> torch.Tensor:
    """Images N×3×H×W in [0, 1], guided by EMA of the logit's gradient at x̂_0, or by the gradient of log p at x_t."""
    unet, scheduler, size = parts.unet, parts.scheduler, parts.unet.config.sample_size
    scheduler.set_timesteps(steps)
    x = randn_tensor((batch, unet.config.in_channels, size, size), generator=generator, device=unet.device)
    average, decay = torch.zeros_like(x), DECAY if on == "x0" else 0.0
    for t in scheduler.timesteps:
        x.requires_grad_()
        with torch.set_grad_enabled(on == "x0"), autocast(x.device):
            output = unet(x, t).sample.float()
        step = scheduler.step(output, t, x, generator=generator)
        with autocast(x.device):
            logits = parts.classifier(step.pred_original_sample if on == "x0" else x).float()
        objective = logits if on == "x0" else log_softmax(logits, dim=1)
        (gradient,) = torch.autograd.grad(objective[:, target].sum(), x)
        average = decay * average + (1 - decay) * gradient
        x = step.prev_sample.detach() + scale * scheduler._get_variance(t) * average
    return (x / 2 + 0.5).clamp(0, 1)


def unguided(parts: Networks, generator: Generator = None, *, batch: int, steps: int) -> torch.Tensor:
    """Images N×3×H×W in [0, 1] of diffusers' pipeline."""
    pipeline = DDPMPipeline(unet=parts.unet, scheduler=parts.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    with autocast(parts.unet.device):
        return pipeline(batch, generator, num_inference_steps=steps, output_type="pt").images


def ddpm_training(unet: UNet2DModel, scheduler: DDPMScheduler, images: np.ndarray, batch: int) -> Callable[[], None]:
    """Trains one epoch per call on uint8 N×H×W×3, as in diffusers' example."""
    device, velocity = unet.device, scheduler.config.prediction_type == "v_prediction"
    dataset = TensorDataset(torch.from_numpy(images).permute(0, 3, 1, 2))
    loader = DataLoader(dataset, batch, shuffle=True, drop_last=True, pin_memory=device.type == "cuda")
    unet.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4)
    learning_rate = get_cosine_schedule_with_warmup(optimizer, 500, 1000 * len(loader))

    def epoch() -> None:
        for (clean,) in loader:
            clean = clean.to(device, non_blocking=True).float() / 127.5 - 1
            noise = torch.randn_like(clean)
            timesteps = torch.randint(scheduler.config.num_train_timesteps, (batch,), device=device)
            noisy = scheduler.add_noise(clean, noise, timesteps)
            target = scheduler.get_velocity(clean, noise, timesteps) if velocity else noise
            with autocast(device):
                output = unet(noisy, timesteps).sample
            loss = mse_loss(output.float(), target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            learning_rate.step()
            optimizer.zero_grad()

    return epoch


def both_neighbours(
    parts: Networks, images: np.ndarray, labels: np.ndarray, *, target: int, stride: int
) -> dict[int, dict[str, float]]:
    """Accuracy on x̂_0 and sensitivities by t: at each t, x_t and its neighbour below are evaluated, in float32."""
    scheduler, device = parts.scheduler, parts.unet.device
    x0 = torch.from_numpy(images).to(device).permute(0, 3, 1, 2) / 127.5 - 1
    generators = [keyed_generator("forward noise", 0, i) for i in range(len(x0))]  # as ours, to find the same
    noise = torch.stack([torch.randn(x0.shape[1:], generator=generator) for generator in generators]).to(device)

    def evaluate(t: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = x0 if t == 0 else scheduler.add_noise(x0, noise, torch.tensor([t - 1]))
        x = x.detach().requires_grad_()
        seen = scheduler.step(parts.unet(x, t - 1).sample, t - 1, x).pred_original_sample if t else x
        logits = parts.classifier(seen)
        (gradient,) = torch.autograd.grad(log_softmax(logits, dim=1)[:, target].sum(), x)
        return x.detach(), logits.detach(), gradient

    curves = {}
    for t in range(scheduler.config.num_train_timesteps, 0, -stride):
        (x, logits, gradient), below = evaluate(t), evaluate(max(t - stride, 0))
        distance = (x - below[0]).flatten(1).norm(dim=1)
        curves[t] = {
            "accuracy": (logits.argmax(1) == torch.from_numpy(labels).to(device)).float().mean().item(),
            "logit_sensitivity": ((logits - below[1]).norm(dim=1) / distance).mean().item(),
            "gradient_sensitivity": ((gradient - below[2]).flatten(1).norm(dim=1) / distance).mean().item(),
        }
    return curves
