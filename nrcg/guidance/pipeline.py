"""diffusers' DDPM pipeline, guided."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, ImagePipelineOutput
from huggingface_hub.errors import HTTPError
from torch import nn

from nrcg.errors import NrcgError
from nrcg.guidance.gradient import frozen
from nrcg.guidance.guidance import ClassifierGuidance
from nrcg.guidance.loop import guided_ddpm
from nrcg.guidance.noise import gaussian_draws
from nrcg.guidance.stabilizers import is_number

OUTPUT_TYPES = ("pil", "np", "numpy", "pt")
DEFAULT_STEPS = 1000  # as in diffusers, where the schedule is as long
VARIANCE_TYPES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")


@dataclass
class GuidedDDPMOutput(ImagePipelineOutput):
    """`images` as asked for by `output_type`, and `diverged`, a bool tensor N: True where the image is mere grey."""

    diverged: torch.Tensor


class GuidedDDPMPipeline(DDPMPipeline):
    """diffusers' `DDPMPipeline` with classifier guidance: `unet` a `UNet2DModel`, `scheduler` a `DDPMScheduler`."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "GuidedDDPMPipeline":
        """Open a diffusers DDPM folder or hub id; safetensors only, unless `use_safetensors` says otherwise.

        Raises NrcgError where there is none, or none with safetensors.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **{"use_safetensors": True, **kwargs})
        except (OSError, ValueError, HTTPError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            way_out = "name a diffusers DDPM: a folder with model_index.json, or a hub id and a network to reach it"
            if "safetensors" in str(error):
                way_out = "convert .bin weights with `nrcg import-ddpm`, or open them with use_safetensors=False"
            raise NrcgError(f"{pretrained_model_name_or_path}: cannot be opened ({reason}); {way_out}") from error

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Write a folder as `DDPMPipeline` does, so that everything in diffusers opens it."""
        DDPMPipeline(unet=self.unet, scheduler=self.scheduler).save_pretrained(save_directory, *args, **kwargs)

    def __call__(
        self,
        batch_size: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        guidance: ClassifierGuidance | None = None,
        callback_on_step_end: Callable[["GuidedDDPMPipeline", int, torch.Tensor, dict], Any] | None = None,
    ) -> GuidedDDPMOutput | tuple[Any, torch.Tensor]:
        """Draw images; without guidance the very ones that `DDPMPipeline` draws.

        generator     one for the batch, or a list with one per sample. With a list, a sample is the same in any batch:
                      up to rounding of float32 on a CPU; bfloat16 and other devices round differently in each size
        num_inference_steps   1 to T; None takes all T steps of the schedule, but at most 1000
        output_type   "pil" images, "np" or "numpy" N×H×W×3, or "pt" N×3×H×W, both float32 in [0, 1]
        guidance      None, or a `ClassifierGuidance`; it takes no random draws
        callback_on_step_end   called after each step, as elsewhere in diffusers, with the pipeline, the step's number,
                               its timestep and a dict: `latents`, the sample after the step, `pred_original_sample`,
                               x̂_0 before it, and `gradient`, the guidance gradient before the stabiliser (None where
                               there is no guidance), each N×3×H×W; its return value is not used, and what it raises
                               ends the call
        returns       `GuidedDDPMOutput(images, diverged)`, or that as a tuple without `return_dict`

        The trajectory is float32 even if the networks are not. Raises NrcgError, before it draws anything, for
        arguments of another type or range, a list of generators of another length than the batch, timesteps that the
        scheduler does not have and an interval without any of them; and, in the first guided step, for a classifier or
        target that does not fit, and for x̂_0 guidance where ᾱ_t is 0 (see `one_step_denoiser`).
        """
        if output_type not in OUTPUT_TYPES:
            raise NrcgError(f"output_type is {output_type!r}; it must be one of {', '.join(OUTPUT_TYPES)}")
        if not (is_number(batch_size, Integral) and batch_size >= 1):
            raise NrcgError(f"batch_size is {batch_size!r}; it must be an integer, at least 1")
        generators = generator if isinstance(generator, list) else [] if generator is None else [generator]
        if not all(isinstance(each, torch.Generator) for each in generators):
            raise NrcgError(f"generator is {generator!r}; it must be None, a torch.Generator or a list of them")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise NrcgError(f"generator holds {len(generator)} for batch_size={batch_size}; give one per sample")
        if guidance is not None and not isinstance(guidance, ClassifierGuidance):
            raise NrcgError(f"guidance is a {type(guidance).__name__}; it must be None or ClassifierGuidance(…)")
        _refuse_unknown_variance(self.scheduler)
        timesteps = _set_timesteps(self.scheduler, num_inference_steps)
        if guidance is not None and not any(map(guidance.covers, timesteps)):
            raise NrcgError(
                f"guidance: interval is {guidance.interval}, which holds none of the {len(timesteps)} timesteps from "
                f"{timesteps.max()} to {timesteps.min()}"
            )
        if guidance is not None and guidance.scale == 0:
            guidance = None
        networks = [self.unet]
        if guidance is not None:
            networks.append(guidance.classifier)
            _refuse_inference_tensors(networks)
        with frozen(*networks), torch.inference_mode(False):
            noise = gaussian_draws(
                self._image_shape(batch_size),
                generator,
                count=1 + int((timesteps > 0).sum()),  # x_T, and one for each step but that at t = 0
                device=self._execution_device,
                dtype=torch.promote_types(self.unet.dtype, torch.float32),
            )
            steps, on_step_end = self.progress_bar(timesteps), None
            if callback_on_step_end is not None:
                on_step_end = partial(callback_on_step_end, self)
            x, diverged = guided_ddpm(self.unet, self.scheduler, noise, steps, guidance, on_step_end)
            images = _present(x, output_type)
        self.maybe_free_model_hooks()
        return GuidedDDPMOutput(images, diverged) if return_dict else (images, diverged)

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


def _set_timesteps(scheduler: Any, steps: int | None) -> torch.Tensor:
    """The scheduler's timesteps, t counted from 0 and downwards, for so many inference steps."""
    n = len(scheduler.alphas_cumprod)
    steps = min(DEFAULT_STEPS, n) if steps is None else steps
    if not (is_number(steps, Integral) and 1 <= steps <= n):
        raise NrcgError(f"num_inference_steps is {steps!r}; it must be an integer from 1 to {n}, the scheduler's own T")
    try:
        with torch.inference_mode(False):
            scheduler.set_timesteps(steps)
    except ValueError as error:
        raise NrcgError(f"scheduler: {error}") from None
    if scheduler.timesteps.max() >= n:
        raise NrcgError(
            f"scheduler: {steps} steps with steps_offset={scheduler.config.steps_offset} start at timestep "
            f"{scheduler.timesteps.max()}, but alphas_cumprod ends at {n - 1}; take fewer steps or a smaller offset"
        )
    return scheduler.timesteps


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
