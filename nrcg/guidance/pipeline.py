"""diffusers' DDPM pipeline, guided."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, ImagePipelineOutput
from huggingface_hub.errors import HTTPError
from torch import nn

from nrcg.checks import Rule, check, maybe, one_of, sides, whole
from nrcg.errors import NrcgError
from nrcg.guidance.gradient import frozen
from nrcg.guidance.guidance import ClassifierGuidance, Guidance, ValueGuidance
from nrcg.guidance.inputs import tell
from nrcg.guidance.loop import guided_ddpm
from nrcg.guidance.noise import gaussian_draws
from nrcg.guidance.step import set_timesteps


def _are_generators(value: Any) -> bool:
    return all(isinstance(each, torch.Generator) for each in (value if isinstance(value, list) else [value]))


RULES = {
    "batch_size": whole(1),
    "generator": maybe(Rule("a torch.Generator or a list of them", _are_generators)),
    "output_type": one_of("pil", "np", "numpy", "pt"),
    "guidance": maybe(Rule("ClassifierGuidance(…) or ValueGuidance(…)", lambda value: isinstance(value, Guidance))),
}


@dataclass
class GuidedDDPMOutput(ImagePipelineOutput):
    """`images` as asked for by `output_type`, and `diverged`, a bool tensor N: True where the image is mere grey."""

    diverged: torch.Tensor


class GuidedDDPMPipeline(DDPMPipeline):
    """diffusers' `DDPMPipeline` with classifier guidance: `unet` a `UNet2DModel`, `scheduler` a `DDPMScheduler`."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "GuidedDDPMPipeline":
        """Open a diffusers DDPM folder or hub id: safetensors only, unless `use_safetensors=False`; else NrcgError."""
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
        guidance: ClassifierGuidance | ValueGuidance | None = None,
        class_labels: int | Sequence[int] | torch.Tensor | None = None,
        callback_on_step_end: Callable[["GuidedDDPMPipeline", int, torch.Tensor, dict], Any] | None = None,
    ) -> GuidedDDPMOutput | tuple[Any, torch.Tensor]:
        """Draw images; without guidance the very ones that `DDPMPipeline` draws. The trajectory is always float32.

        Args:
            batch_size: N, at least 1.
            generator: one for the batch, or a list with one per sample, which then is the same in any batch, up to
                rounding: of float32 on a CPU; coarser in bfloat16 and on other devices.
            num_inference_steps: 1 to T; None takes all T steps of the schedule, but at most 1000.
            output_type: "pil" images, "np" or "numpy" N×H×W×3, or "pt" N×C×H×W, both float32 in [0, 1].
            return_dict: False returns (images, diverged).
            guidance: takes no random draws.
            class_labels: of a class-conditional U-Net, the class that it is told: an index, or one per sample.
            callback_on_step_end: called after each step with the pipeline, the step's number, its timestep and a dict,
                each N×C×H×W: `latents`, the sample after the step, `pred_original_sample`, x̂_0 before it, and
                `gradient`, of the guidance before the stabiliser (None without). What it returns is not used.

        Returns:
            `GuidedDDPMOutput(images, diverged)`.

        Raises:
            NrcgError: before it draws anything, for arguments of another type or range, another number of generators
                than samples, timesteps that the scheduler does not have and an interval without any of them; in the
                first guided step, for a classifier, objective or target that does not fit, and as `one_step_denoiser`.
        """
        given = {"batch_size": batch_size, "generator": generator, "output_type": output_type, "guidance": guidance}
        check("pipeline", given, RULES)
        if isinstance(generator, list) and len(generator) != batch_size:
            raise NrcgError(f"generator holds {len(generator)} for batch_size={batch_size}; give one per sample")
        timesteps = set_timesteps(self.scheduler, num_inference_steps)
        if guidance and not any(map(guidance.covers, timesteps)):
            first, last = timesteps.max(), timesteps.min()
            raise NrcgError(
                f"guidance: interval is {guidance.interval}, with none of the timesteps from {first} to {last}"
            )
        if guidance and guidance.scale == 0:
            guidance = None
        seen_by: Any = getattr(guidance, "classifier", guidance and guidance.value)
        networks = [self.unet, seen_by] if isinstance(seen_by, nn.Module) else [self.unet]
        for network in networks if guidance else ():
            if any(tensor.is_inference() for tensor in chain(network.parameters(), network.buffers())):
                name = type(network).__name__
                raise NrcgError(f"{name}: made under torch.inference_mode, without gradients; load it outside")
        unet = tell(self.unet, class_labels, batch_size)
        shape = (batch_size, self.unet.config.in_channels, *sides(self.unet.config.sample_size))
        dtype = torch.promote_types(self.unet.dtype, torch.float32)
        count = 1 + int((timesteps > 0).sum())  # x_T, and one for each step but that at t = 0
        on_step_end = callback_on_step_end and partial(callback_on_step_end, self)
        with frozen(*networks), torch.inference_mode(False):
            noise = gaussian_draws(shape, generator, count, self._execution_device, dtype)
            how = guidance, on_step_end, self.progress_bar
            x, diverged = guided_ddpm(unet, self.scheduler, noise, timesteps, *how)
            images: Any = (x / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            images = images.cpu().permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        self.maybe_free_model_hooks()
        return GuidedDDPMOutput(images, diverged) if return_dict else (images, diverged)
