"""The U-Net's output at x_t, and x̂_0, its one-step prediction of the image."""

from collections.abc import Callable
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import torch

from nrcg.diffusion.steps import PREDICTIONS, Level, Timestep
from nrcg.errors import NrcgError

Denoise = Callable[[torch.Tensor], tuple[torch.Tensor, Any]]  # x_t → x̂_0, and the U-Net's output
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)


@dataclass
class Labelled:
    """A class-conditional U-Net with the same N class labels at every step."""

    unet: Any
    class_labels: torch.Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    def __call__(self, x: torch.Tensor, timestep: Timestep) -> Any:
        self.class_labels = self.class_labels.to(x.device)  # at the first step: a copy to a GPU waits for it
        return self.unet(x, timestep, class_labels=self.class_labels)


def class_indices(value: Any, what: str) -> torch.Tensor:
    """A LongTensor, scalar or N; on the CPU, so that checks never wait for a GPU."""
    try:
        indices = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        indices = None
    if indices is None or indices.ndim > 1 or indices.dtype not in INTEGERS:
        raise NrcgError(f"{what} is {short(value)}; it must be a class index, or one per sample")
    return indices.detach().to("cpu", torch.long, copy=True)


def tell(unet: Any, class_labels: Any, n: int) -> Any:
    """The U-Net for n samples with their class labels (one, or one per sample), if it is class-conditional."""
    conditional = unet.config.get("class_embed_type") or unet.config.get("num_class_embeds")
    if bool(conditional) != (class_labels is not None):
        way = "give it class_labels" if conditional else "leave class_labels out"
        raise NrcgError(f"unet: {'' if conditional else 'not '}class-conditional; {way}")
    if class_labels is None:
        return unet
    labels, count = class_indices(class_labels, "class_labels"), unet.config.get("num_class_embeds")
    if labels.ndim and len(labels) != n:
        raise NrcgError(f"class_labels holds {len(labels)} for {n} samples; give one, or one per sample")
    if count and labels.numel() and not 0 <= labels.min() <= labels.max() < count:
        raise NrcgError(f"class_labels {labels.tolist()}: the classes of the U-Net are 0 to {count - 1}")
    return Labelled(unet, labels.expand(n))


def predict(unet: Any, x: torch.Tensor, timestep: Timestep) -> torch.Tensor:
    """The U-Net's output at x_t (N×C×H×W), in the precision of x.

    N×C×H×W, or N×2C×H×W for a U-Net that also predicts a variance (the second half).
    """
    if isinstance(timestep, torch.Tensor):
        timestep = timestep.to(x.device, non_blocking=True)
    return unet(x.to(unet.dtype), timestep).sample.to(x.dtype)


def pred_original_sample(scheduler: Any, output: torch.Tensor, level: Level, x: torch.Tensor) -> torch.Tensor:
    """x̂_0 as in the scheduler's own `step`: by its prediction type, then thresholded or clipped as configured."""
    return _clipped(scheduler, _unclipped(scheduler, output, level, x))


def pred_epsilon(scheduler: Any, output: torch.Tensor, level: Level, x: torch.Tensor) -> torch.Tensor:
    """ε that the U-Net predicts from x_t, before x̂_0 is clipped."""
    if scheduler.config.prediction_type == "epsilon":
        return output[:, : x.shape[1]]
    a = level.alpha_bar
    return (x - a.sqrt() * _unclipped(scheduler, output, level, x)) / (1 - a).sqrt()


def one_step_denoiser(unet: Any, scheduler: Any, level: Level, jacobian: bool | str = True) -> Denoise:
    """For `image_gradient`: maps x_t to x̂_0 and returns the U-Net's output too, so that it need not run twice.

    jacobian=False replaces ∂x̂_0/∂x_t by 1/√ᾱ_t, as if the predicted noise did not depend on x_t. "identity" replaces
    it by 1 and ignores the clipping: the gradient at x̂_0. Raises NrcgError at a timestep without signal (ᾱ_t = 0, as
    at T with `rescale_betas_zero_snr`) if x̂_0 or the slope would be infinite.
    """
    if level.alpha_bar == 0 and (not jacobian or scheduler.config.prediction_type == "epsilon"):
        what = "x̂_0 of a U-Net that predicts epsilon" if jacobian else "the slope 1/√ᾱ_t of jacobian=False"
        raise NrcgError(
            f"guidance: ᾱ_t is 0 at timestep {int(level.t)}, which makes {what} infinite; leave that timestep out with "
            f'interval=(0, {(int(level.t) - 1) / scheduler.config.num_train_timesteps:.4g}), or use on="xt"'
        )

    def denoise(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.set_grad_enabled(jacobian is True):
            output = predict(unet, x, level.t)
            x0 = _unclipped(scheduler, output, level, x)
        if jacobian == "identity":
            return _clipped(scheduler, x0) + (x - x.detach()), output  # adds zero with slope 1
        if not jacobian:
            x0 = x0 + (x - x.detach()) / level.alpha_bar.sqrt()
        return _clipped(scheduler, x0), output.detach()

    return denoise


def clip_limit(scheduler: Any) -> float | None:
    """The largest magnitude of x̂_0, if it is limited."""
    if scheduler.config.get("thresholding"):
        return 1.0
    return scheduler.config.get("clip_sample_range", 1.0) if scheduler.config.get("clip_sample") else None


def _unclipped(scheduler: Any, output: torch.Tensor, level: Level, x: torch.Tensor) -> torch.Tensor:
    alpha_bar, kind, output = level.alpha_bar, scheduler.config.prediction_type, output[:, : x.shape[1]]
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if kind == "epsilon":
        return (x - noise * output) / signal  # eq. 5
    if kind == "sample":
        return output
    if kind == "v_prediction":
        return signal * x - noise * output
    raise NrcgError(f"scheduler: prediction_type {kind!r} is unknown; use {', '.join(PREDICTIONS)}")


def _clipped(scheduler: Any, x0: torch.Tensor) -> torch.Tensor:
    if scheduler.config.get("thresholding"):
        return scheduler._threshold_sample(x0)
    limit = clip_limit(scheduler)
    return x0 if limit is None else x0.clamp(-limit, limit)
