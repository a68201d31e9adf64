"""diffusers' pipeline for U-Nets, with classifier guidance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, ImagePipelineOutput
from huggingface_hub.errors import HTTPError
from torch import nn

from nrcg.checks import Rule, check, listed, maybe, number, one_of, sides, whole
from nrcg.diffusion.denoise import tell
from nrcg.diffusion.draws import Draws, gaussian_draws
from nrcg.diffusion.steps import DDPMSteps, Level, SolverSteps, Timestep, fractions, leaking, set_timesteps
from nrcg.errors import NrcgError
from nrcg.guidance.apply import sphere
from nrcg.guidance.gradient import frozen
from nrcg.guidance.guidance import ClassifierGuidance, Guidance, ValueGuidance
from nrcg.guidance.loop import TENSORS, guided_loop


def _are_generators(value: Any) -> bool:
    return all(isinstance(each, torch.Generator) for each in (value if isinstance(value, list) else [value]))


RULES = {
    "batch_size": whole(1),
    "generator": maybe(Rule("a torch.Generator or a list of them", _are_generators)),
    "output_type": one_of("pil", "np", "numpy", "pt"),
    "guidance": maybe(Rule("ClassifierGuidance(…) or ValueGuidance(…)", lambda value: isinstance(value, Guidance))),
    "callback_on_step_end_tensor_inputs": listed(one_of(*TENSORS), 0),
    "eta": number(0, 1),
    "signal_leak": maybe(number(-1, 1)),
}


@dataclass
class GuidedDDPMOutput(ImagePipelineOutput):
    """`images` in the format `output_type`; `diverged`, a bool tensor N, marks trajectories that became non-finite.

    The images of diverged trajectories are mid-grey.
    """

    diverged: torch.Tensor


class GuidedPipeline(DDPMPipeline):
    """diffusers' `DDPMPipeline` with classifier guidance and any discrete-time scheduler.

    Args:
        unet: a `UNet2DModel`.
        scheduler: a `DDPMScheduler`, or a `DDIMScheduler`, `DPMSolverMultistepScheduler`, `UniPCMultistepScheduler`,
            `DEISMultistepScheduler`, `EulerDiscreteScheduler` or another with one U-Net pass per step.

    On CUDA, float32 follows torch's settings: cuDNN uses TF32, unless `torch.backends.cudnn.allow_tf32` is False. The
    command `nrcg` always computes in IEEE float32.
    """

    def __init__(self, unet: Any, scheduler: Any) -> None:
        super().__init__(unet=unet, scheduler=scheduler)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "GuidedPipeline":
        """Open a diffusers DDPM folder or hub id, optionally with another `scheduler`; NrcgError if that fails.

        Only safetensors weights are loaded, unless `use_safetensors=False`.
        """
        try:
            defaults = {"use_safetensors": True, "low_cpu_mem_usage": False}
            return super().from_pretrained(pretrained_model_name_or_path, **{**defaults, **kwargs})
        except (OSError, ValueError, HTTPError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            way_out = "name a diffusers DDPM: a folder with model_index.json, or a hub id (needs a network)"
            if "safetensors" in str(error):
                way_out = "convert .bin weights with `nrcg get ddpm`, or open them with use_safetensors=False"
            raise NrcgError(f"{pretrained_model_name_or_path}: cannot be opened ({reason}); {way_out}") from error

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Write a folder as `DDPMPipeline` does, so that plain diffusers can open it."""
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
        callback_on_step_end: Callable[["GuidedPipeline", int, Timestep, dict], Any] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents", "pred_original_sample", "gradient"),
        eta: float = 0.0,
        timesteps: Sequence[int] | None = None,
        signal_leak: float | None = None,
    ) -> GuidedDDPMOutput | tuple[Any, torch.Tensor]:
        """Draw images; without guidance identical to those of diffusers. The trajectory is always float32.

        Args:
            batch_size: N, at least 1.
            generator: one for the batch, or a list with one per sample. With a list, a sample is the same in any batch
                up to rounding (coarser in bfloat16 or on a GPU than in float32 on a CPU).
            num_inference_steps: 1 to T; None uses all T steps of the schedule, but at most 1000.
            output_type: "pil" images, "np" or "numpy" N×H×W×3, or "pt" N×C×H×W, both float32 in [0, 1].
            return_dict: False returns the tuple (images, diverged).
            guidance: consumes no draws of `generator`; random draws of guidance are derived from the generator's state.
            class_labels: for a class-conditional U-Net: one class index, or one per sample.
            callback_on_step_end: called after each step with the pipeline, the step's number, its timestep and a dict
                of tensors N×C×H×W. It may return a dict whose `latents` replace the sample.
            callback_on_step_end_tensor_inputs: tensors for the callback: `latents`, the sample after the step;
                `sample`, the sample before it; `pred_original_sample`, x̂_0 before guidance; `gradient`; `direction`,
                the stabilised gradient (both None in unguided steps).
            eta: η of DDIM, 0 to 1; other schedulers ignore it.
            timesteps: descending timesteps, counted from 0, of a scheduler that allows a choice, such as DDPM.
            signal_leak: mean m of the training images, in [−1, 1], for a schedule that leaves a signal at its end:
                x_T is √ᾱ_T · m + √(1 − ᾱ_T) · ε instead of ε (Everaert et al. 2024, arXiv 2309.15842, by the mean).

        Returns:
            `GuidedDDPMOutput(images, diverged)`.

        Raises:
            NrcgError: before sampling, for arguments of another type or range, a number of generators other than
                `batch_size`, an unsupported scheduler or timesteps, an interval without timesteps, and guidance that
                the scheduler does not support; in the first guided step, for a classifier, objective or target that
                does not fit, and for a timestep without signal.
        """
        inputs = callback_on_step_end_tensor_inputs
        given: dict[str, Any] = {"batch_size": batch_size, "generator": generator}
        given |= {"output_type": output_type, "guidance": guidance, "eta": eta, "signal_leak": signal_leak}
        check("pipeline", given | {"callback_on_step_end_tensor_inputs": inputs}, RULES)
        if isinstance(generator, list) and len(generator) != batch_size:
            raise NrcgError(f"generator holds {len(generator)} for batch_size={batch_size}; give one per sample")
        passed = set_timesteps(self.scheduler, num_inference_steps, timesteps)
        if guidance and guidance.scale == 0:
            guidance = None
        seen_by: Any = guidance and guidance.value
        networks = [self.unet, seen_by] if isinstance(seen_by, nn.Module) else [self.unet]
        for network in networks if guidance else ():
            if any(tensor.is_inference() for tensor in chain(network.parameters(), network.buffers())):
                name = type(getattr(network, "classifier", network)).__name__
                raise NrcgError(f"{name}: created under torch.inference_mode, without gradients; load it outside")
        require_fit(self.scheduler, self.unet, guidance)
        if signal_leak is not None and self.scheduler.init_noise_sigma != 1:
            raise NrcgError(
                f"signal_leak: not with {type(self.scheduler).__name__}, which scales its samples; use a DDPM"
            )
        if guidance and not any(guidance.plan(parts := fractions(self.scheduler))):
            raise NrcgError(
                f"guidance: interval {guidance.interval} contains none of the timesteps, which are {parts[0]:g} to "
                f"{parts[-1]:g} of T"
            )
        unet = tell(self.unet, class_labels, batch_size)
        shape = (batch_size, self.unet.config.in_channels, *sides(self.unet.config.sample_size))
        dtype, device = torch.promote_types(self.unet.dtype, torch.float32), self._execution_device

        def on_step_end(number: int, level: Level, tensors: dict[str, Any]) -> torch.Tensor:
            if callback_on_step_end is None:
                return tensors["latents"]
            given, x = {name: tensors[name] for name in inputs}, tensors["latents"]
            returned = callback_on_step_end(self, number, level.t, given)
            rules = dict.fromkeys(inputs, Rule("anything", lambda _: True)) | {"latents": same_shape(x)}
            check("callback_on_step_end", {} if returned is None else returned, rules)
            return x if returned is None else returned.get("latents", x).to(x)

        with frozen(*networks), torch.inference_mode(False):
            if isinstance(self.scheduler, DDPMScheduler):
                count = 1 + int((passed > 0).sum())  # x_T, and one for each step but that at t = 0
                noise = leaking(gaussian_draws(shape, generator, count, device, dtype), self.scheduler, signal_leak)
                steps: Any = DDPMSteps(self.scheduler, noise)
            else:
                noise = leaking(gaussian_draws(shape, generator, 1, device, dtype), self.scheduler, signal_leak)
                steps = SolverSteps(self.scheduler, guidance is not None, noise, generator=generator, eta=eta)
            draws = Draws(shape, generator, device) if guidance and (guidance.copies or guidance.recur) else None
            x, diverged = guided_loop(unet, steps, draws, guidance, on_step_end, self.progress_bar)
            images: Any = (x / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            images = images.cpu().permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        self.maybe_free_model_hooks()
        return GuidedDDPMOutput(images, diverged) if return_dict else (images, diverged)


class GuidedDDPMPipeline(GuidedPipeline):
    """diffusers' `DDPMPipeline` with classifier guidance: `unet` a `UNet2DModel`, `scheduler` a `DDPMScheduler`."""

    def __call__(self, *args: Any, **kwargs: Any) -> GuidedDDPMOutput | tuple[Any, torch.Tensor]:
        """As in `GuidedPipeline`; NrcgError with another scheduler."""
        if not isinstance(self.scheduler, DDPMScheduler):
            name = type(self.scheduler).__name__
            raise NrcgError(f"scheduler: {name} cannot be used; take a DDPMScheduler, or nrcg.GuidedPipeline")
        return super().__call__(*args, **kwargs)


def same_shape(x: torch.Tensor) -> Rule:
    """A tensor of the same shape as x."""
    return Rule(f"a tensor {tuple(x.shape)}", lambda value: isinstance(value, torch.Tensor) and value.shape == x.shape)


def require_fit(scheduler: Any, unet: Any, guidance: Guidance | None) -> None:
    """Raise NrcgError for guidance or a U-Net that the scheduler does not support."""
    if isinstance(scheduler, DDPMScheduler):
        return
    name = type(scheduler).__name__
    if unet.config.out_channels != unet.config.in_channels:
        raise NrcgError(f"scheduler: {name} cannot use the variance that this U-Net predicts; use a DDPMScheduler")
    if guidance and guidance.apply is sphere:
        raise NrcgError(
            f"guidance: apply sphere needs the noise of each step, which {name} does not expose; use a DDPMScheduler"
        )
    if guidance and guidance.recur and hasattr(scheduler, "step_index"):
        raise NrcgError(
            f"guidance: recur needs a scheduler without memory of past steps, unlike {name}; use DDPM or DDIM"
        )
