"""The guided sampler: Algorithm 1, and diffusers' DDPM pipeline around it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, ImagePipelineOutput
from torch import nn

from nrcg.errors import NrcgError
from nrcg.guidance.gradient import (
    ClassifierGuidance,
    frozen,
    image_gradient,
    one_step_denoiser,
    pred_original_sample,
    predict,
)
from nrcg.guidance.noise import gaussian_draws
from nrcg.guidance.stabilizers import Identity

OUTPUT_TYPES = ("pil", "np", "pt")
VARIANCE_TYPES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")


@torch.no_grad()
def guided_ddpm(
    unet: nn.Module,
    scheduler: Any,
    noise: Iterator[torch.Tensor],
    timesteps: Iterable[torch.Tensor],
    guidance: ClassifierGuidance | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Algorithm 1. From x_T to x_0 (N×3×H×W, in [−1, 1]), and N flags of trajectories that became non-finite.

    draw x_T ~ N(0, I);  m, v ← 0
    for t = T … 1:
        ε ← ε_θ(x_t, t)
        x̂_0 ← (x_t − √(1 − ᾱ_t) · ε) / √ᾱ_t                               (eq. 5)
        g ← ∇_{x_t} log p(y | x_t or x̂_0)
        g ← stabilise(g)                                                  (eq. 7, 8)
        draw x_{t−1} ~ N(μ_θ(x_t, t) + s · σ_t² · g, σ_t² I)              (eq. 1)
    return x_0

    `noise` yields draws of N(0, I), N×3×H×W: x_T, then one for every step but the last.
    """
    x = next(noise)
    stabilizer = guidance.stabilizer if guidance and guidance.stabilizer else Identity()
    state, gradient = stabilizer.init(x), None
    diverged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for step, t in enumerate(timesteps):
        guided = guidance is not None and guidance.covers(t)
        if guided and (gradient is None or step % guidance.every == 0):
            output, gradient = predict_with_gradient(unet, scheduler, x, t, guidance)
        else:
            output = predict(unet, x, t)
        mean, variance = posterior(scheduler, output, t, x)
        x = mean + variance**0.5 * next(noise) if t > 0 else mean
        if guided:
            direction, state = stabilizer.update(gradient, state)
            x = x + guidance.scale * float(variance) * direction
        diverged = diverged | ~x.isfinite().flatten(1).all(1)
        x = x.masked_fill(diverged[:, None, None, None], 0.0)  # frozen at mid-grey; the others go on
    return x, diverged


def predict_with_gradient(
    unet: nn.Module, scheduler: Any, x: torch.Tensor, t: torch.Tensor, guidance: ClassifierGuidance
) -> tuple[torch.Tensor, torch.Tensor]:
    """The U-Net's output at x_t and the guidance gradient there, by one pass through the U-Net."""
    denoise = None
    if guidance.on == "x0":
        denoise = one_step_denoiser(unet, scheduler, t, guidance.jacobian)
    gradient, _, output = image_gradient(guidance.classifier, x, guidance.target, guidance.objective, denoise)
    return predict(unet, x, t) if output is None else output, gradient


def posterior(
    scheduler: Any, model_output: torch.Tensor, timestep: int | torch.Tensor, sample: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of p_θ(x_{t−1} | x_t), as the scheduler's own `step` has them to the bit; t counts from 0.

    μ_θ = √ᾱ_{t−1} · β_t / (1 − ᾱ_t) · x̂_0 + √α_t · (1 − ᾱ_{t−1}) / (1 − ᾱ_t) · x_t     (Ho et al. 2020, eq. 7)
    σ_t² = (1 − ᾱ_{t−1}) / (1 − ᾱ_t) · β_t, and 0 at t = 0      fixed_small, fixed_small_log
    σ_t² = β_t                                                  fixed_large, fixed_large_log

    With fewer inference than training steps, t − 1 is the next of the scheduler's time steps, and
    α_t = 1 − β_t = ᾱ_t / ᾱ_{t−1}. Raises NrcgError for a learned variance, or another scheduler.
    """
    before = scheduler.previous_timestep(timestep)
    alpha_bar = scheduler.alphas_cumprod[timestep]
    alpha_bar_before = scheduler.alphas_cumprod[before] if before >= 0 else scheduler.one
    alpha = alpha_bar / alpha_bar_before
    beta = 1 - alpha
    x0 = pred_original_sample(scheduler, model_output, timestep, sample)
    mean = alpha_bar_before**0.5 * beta / (1 - alpha_bar) * x0
    mean = mean + alpha**0.5 * (1 - alpha_bar_before) / (1 - alpha_bar) * sample
    small = scheduler.config.variance_type in ("fixed_small", "fixed_small_log")
    return mean, (1 - alpha_bar_before) / (1 - alpha_bar) * beta if small else beta


@dataclass
class GuidedDDPMOutput(ImagePipelineOutput):
    """`images` as asked for by `output_type`, and `diverged`, a bool tensor N: True where the image is mere grey."""

    diverged: torch.Tensor


class GuidedDDPMPipeline(DDPMPipeline):
    """diffusers' `DDPMPipeline` with classifier guidance: `unet` a `UNet2DModel`, `scheduler` a `DDPMScheduler`."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs: Any) -> "GuidedDDPMPipeline":
        """Open a diffusers DDPM folder or hub id; safetensors only, unless `use_safetensors` says otherwise."""
        return super().from_pretrained(pretrained_model_name_or_path, **{"use_safetensors": True, **kwargs})

    def __call__(
        self,
        batch_size: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int = 1000,
        output_type: str = "pil",
        return_dict: bool = True,
        guidance: ClassifierGuidance | None = None,
        callback_on_step_end: Callable[["GuidedDDPMPipeline", int, torch.Tensor, dict], Any] | None = None,
    ) -> GuidedDDPMOutput | tuple[Any, torch.Tensor]:
        """Draw images; without guidance the very ones that `DDPMPipeline` draws.

        generator     one for the batch, or a list with one per sample, which makes a sample the same in any batch
        output_type   "pil" images, "np" N×H×W×3 or "pt" N×3×H×W, both float32 in [0, 1]
        guidance      None, or a `ClassifierGuidance`; it takes no random draws
        callback_on_step_end   called after each step, as elsewhere in diffusers, with the pipeline, the step's number,
                               its time step and {}; what it returns is not used, what it raises ends the call
        returns       `GuidedDDPMOutput(images, diverged)`, or that as a tuple without `return_dict`

        The trajectory is float32 even if the networks are not. Raises NrcgError for an unknown output type, a list of
        generators of another length than the batch, and guidance that does not fit the networks.
        """
        if output_type not in OUTPUT_TYPES:
            raise NrcgError(f"output_type is {output_type!r}; it must be one of {', '.join(OUTPUT_TYPES)}")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise NrcgError(f"generator holds {len(generator)} for batch_size={batch_size}; give one per sample")
        if guidance is not None and guidance.scale == 0:
            guidance = None
        _refuse_unknown_variance(self.scheduler)
        networks = [self.unet]
        if guidance is not None:
            networks.append(guidance.classifier)
            _refuse_inference_tensors(networks)
        with frozen(*networks), torch.inference_mode(False):
            self.scheduler.set_timesteps(num_inference_steps)
            noise = gaussian_draws(
                self._image_shape(batch_size),
                generator,
                count=num_inference_steps,
                device=self._execution_device,
                dtype=torch.promote_types(self.unet.dtype, torch.float32),
            )
            timesteps = self._steps(callback_on_step_end)
            x, diverged = guided_ddpm(self.unet, self.scheduler, noise, timesteps, guidance)
            images = _present(x, output_type)
        self.maybe_free_model_hooks()
        return GuidedDDPMOutput(images, diverged) if return_dict else (images, diverged)

    def _steps(self, callback: Callable | None) -> Iterator[torch.Tensor]:
        for step, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
            yield t
            if callback is not None:
                callback(self, step, t, {})

    def _image_shape(self, batch_size: int) -> tuple[int, ...]:
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return batch_size, self.unet.config.in_channels, height, width


def _present(x: torch.Tensor, output_type: str) -> Any:
    images = (x / 2 + 0.5).clamp(0, 1)
    if output_type == "pt":
        return images
    array = images.cpu().permute(0, 2, 3, 1).numpy()
    return DDPMPipeline.numpy_to_pil(array) if output_type == "pil" else array


def _refuse_unknown_variance(scheduler: Any) -> None:
    variance_type = getattr(scheduler.config, "variance_type", None)
    if not isinstance(scheduler, DDPMScheduler) or variance_type not in VARIANCE_TYPES:
        raise NrcgError(
            f"scheduler: {type(scheduler).__name__} with variance_type {variance_type!r} cannot be used; take a "
            f"DDPMScheduler with one of {', '.join(VARIANCE_TYPES)}"
        )


def _refuse_inference_tensors(networks: list[nn.Module]) -> None:
    for network in networks:
        if any(tensor.is_inference() for tensor in chain(network.parameters(), network.buffers())):
            raise NrcgError(
                f"{type(network).__name__}: made under torch.inference_mode, which rules out gradients; "
                "build or load it outside"
            )
