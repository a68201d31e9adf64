"""diffusers' DDPM pipeline, guided."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, ImagePipelineOutput
from huggingface_hub.errors import HTTPError

from nrcg.checks import Rule, check, maybe, one_of, whole
from nrcg.errors import NrcgError
from nrcg.guidance.gradient import frozen
from nrcg.guidance.guidance import ClassifierGuidance
from nrcg.guidance.loop import guided_ddpm
from nrcg.guidance.noise import gaussian_draws
from nrcg.guidance.stabilizers import plain
from nrcg.guidance.step import set_timesteps


def _are_generators(value: Any) -> bool:
    return all(isinstance(each, torch.Generator) for each in (value if isinstance(value, list) else [value]))


RULES = {
    "batch_size": whole(1),
    "generator": maybe(Rule("a torch.Generator or a list of them", _are_generators)),
    "output_type": one_of("pil", "np", "numpy", "pt"),
    "guidance": maybe(Rule("ClassifierGuidance(…)", lambda value: isinstance(value, ClassifierGuidance))),
}


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
            defaults = {"use_safetensors": True, "low_cpu_mem_usage": False}
            return super().from_pretrained(pretrained_model_name_or_path, **{**defaults, **kwargs})
        except (OSError, ValueError, HTTPError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            way_out = "name a diffusers DDPM: a folder with model_index.json, or a hub id and a network to reach it"
            if "safetensors" in str(error):
                way_out = "convert .bin weights with `nrcg get ddpm`, or open them with use_safetensors=False"
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
        """Draw images; without guidance the very ones that `DDPMPipeline` draws. The trajectory is always float32.

        Args:
            batch_size: N, at least 1.
            generator: one for the batch, or a list with one per sample, which then is the same in any batch: up to
                rounding of float32 on a CPU; bfloat16 and other devices round differently in each size.
            num_inference_steps: 1 to T; None takes all T steps of the schedule, but at most 1000.
            output_type: "pil" images, "np" or "numpy" N×H×W×3, or "pt" N×3×H×W, both float32 in [0, 1].
            return_dict: False returns (images, diverged).
            guidance: None, or a `ClassifierGuidance`; it takes no random draws.
            callback_on_step_end: called after each step, as elsewhere in diffusers, with the pipeline, the step's
                number, its timestep and a dict: `latents`, the sample after the step, `pred_original_sample`, x̂_0
                before it, and `gradient`, the guidance gradient before the stabiliser (None where there is no
                guidance), each N×3×H×W; its return value is not used, and what it raises ends the call.

        Returns:
            `GuidedDDPMOutput(images, diverged)`.

        Raises:
            NrcgError: before it draws anything, for arguments of another type or range, a list of generators of
                another length than the batch, timesteps that the scheduler does not have and an interval without any
                of them; in the first guided step, for a classifier, objective or target that does not fit, and for x̂_0
                guidance where ᾱ_t is 0 (see `one_step_denoiser`).
        """
        values = {"batch_size": plain(batch_size), "generator": generator, "output_type": output_type}
        check("pipeline", {**values, "guidance": guidance}, RULES)
        if isinstance(generator, list) and len(generator) != batch_size:
            raise NrcgError(f"generator holds {len(generator)} for batch_size={batch_size}; give one per sample")
        timesteps = set_timesteps(self.scheduler, num_inference_steps)
        if guidance is not None and not any(map(guidance.covers, timesteps)):
            raise NrcgError(
                f"guidance: interval is {guidance.interval}, which holds none of the {len(timesteps)} timesteps from "
                f"{timesteps.max()} to {timesteps.min()}"
            )
        if guidance is not None and guidance.scale == 0:
            guidance = None
        networks = [self.unet] if guidance is None else [self.unet, guidance.classifier]
        for network in networks if guidance else ():
            if any(tensor.is_inference() for tensor in chain(network.parameters(), network.buffers())):
                raise NrcgError(
                    f"{type(network).__name__}: made under torch.inference_mode, which rules out gradients; "
                    "build or load it outside"
                )
        size = self.unet.config.sample_size
        shape = (batch_size, self.unet.config.in_channels, *((size, size) if isinstance(size, int) else size))
        dtype = torch.promote_types(self.unet.dtype, torch.float32)
        count = 1 + int((timesteps > 0).sum())  # x_T, and one for each step but that at t = 0
        on_step_end = callback_on_step_end and partial(callback_on_step_end, self)
        with frozen(*networks), torch.inference_mode(False):
            noise = gaussian_draws(shape, generator, count, self._execution_device, dtype)
            x, diverged = guided_ddpm(
                self.unet, self.scheduler, noise, timesteps, guidance, on_step_end, self.progress_bar
            )
            images = (x / 2 + 0.5).clamp(0, 1)
            if output_type != "pt":
                images = images.cpu().permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        self.maybe_free_model_hooks()
        return GuidedDDPMOutput(images, diverged) if return_dict else (images, diverged)
