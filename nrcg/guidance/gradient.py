"""The gradient that guides: of a classifier's objective with respect to the noisy image x_t, and nothing else."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from numbers import Integral
from reprlib import repr as short
from typing import Any

import torch
from torch import nn
from torch.nn.functional import log_softmax, logsigmoid

from nrcg.errors import NrcgError
from nrcg.guidance.stabilizers import Stabilizer, check_flag, is_number

INPUTS = ("xt", "x0")
OBJECTIVES = ("log_prob", "logit")
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)


@dataclass(frozen=True, eq=False)
class ClassifierGuidance:
    """What to guide towards, and how.

    classifier   any module from images N×3×H×W in [−1, 1] to logits N×C, or N×1 for a binary one, that passes a
                 gradient back to the images
    target       class index, or N of them, one per sample (a tensor, array or list of integers); binary: 1 is
                 positive, 0 negative
    scale        s of eq. 1, at least 0; 0 equals no guidance
    on           what the classifier sees: "xt", the noisy image itself, or "x0", the one-step prediction x̂_0 (eq. 5),
                 with the gradient taken through the U-Net back to x_t
    objective    "log_prob", log p(target | image), or "logit", the target's logit (binary: ± the one logit)
    stabilizer   None, EMA(…), Adam(…) or anything with their `init` and `update`

    Three ways to save time, which the paper does not have:

    jacobian     False, with on="x0", takes ∂x̂_0/∂x_t for 1/√ᾱ_t: no pass back through the U-Net
    every        k > 1 renews the gradient at every k-th guided step only, counted from the first one; between, the
                 stabiliser is given the last one again
    interval     (low, high) guides at timesteps low ≤ t ≤ high only, counted from 0 as the scheduler does

    Raises NrcgError for a value outside of these, also one of another type.
    """

    classifier: nn.Module
    target: int | Sequence[int] | torch.Tensor
    scale: float
    on: str = "x0"
    objective: str = "log_prob"
    stabilizer: Stabilizer | None = None
    jacobian: bool = True
    every: int = 1
    interval: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.classifier, nn.Module):
            raise NrcgError(f"guidance: classifier is a {type(self.classifier).__name__}; it must be a torch module")
        _as_target(self.target)
        if not (is_number(self.scale) and 0 <= self.scale < float("inf")):
            raise NrcgError(f"guidance: scale is {self.scale!r}; it must be a finite number, at least 0")
        check_choice("on", self.on, INPUTS)
        check_choice("objective", self.objective, OBJECTIVES)
        methods = [getattr(self.stabilizer, name, None) for name in ("init", "update")]
        if isinstance(self.stabilizer, type) or (self.stabilizer is not None and not all(map(callable, methods))):
            raise NrcgError(f"guidance: stabilizer is {self.stabilizer!r}; it must be None, EMA(…) or Adam(…)")
        check_flag("guidance", "jacobian", self.jacobian)
        if not self.jacobian and self.on != "x0":
            raise NrcgError('guidance: jacobian=False needs on="x0"; x_t itself is seen without the U-Net')
        if not (is_number(self.every, Integral) and self.every >= 1):
            raise NrcgError(f"guidance: every is {self.every!r}; it must be an integer, at least 1")
        if self.interval is not None and not _is_interval(self.interval):
            raise NrcgError(
                f"guidance: interval is {self.interval!r}; it must be two integers (low, high) with 0 <= low <= high"
            )

    def __repr__(self) -> str:
        """One line: the network by its class alone, of many targets the first."""
        values = {field.name: repr(getattr(self, field.name)) for field in fields(self)}
        values |= {"classifier": type(self.classifier).__name__, "target": short(_as_target(self.target).tolist())}
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in values.items())})"

    def covers(self, timestep: int | torch.Tensor) -> bool:
        """Whether there is guidance at this time step."""
        return self.interval is None or self.interval[0] <= int(timestep) <= self.interval[1]


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises NrcgError unless `value` is one of `choices`."""
    if value not in choices:
        raise NrcgError(f"guidance: {key} is {value!r}; it must be one of {', '.join(choices)}")


def image_gradient(
    classifier: nn.Module,
    x: torch.Tensor,
    target: int | torch.Tensor,
    objective: str = "log_prob",
    denoise: Callable[[torch.Tensor], tuple[torch.Tensor, Any]] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """∇_x of the objective for each image of a batch, also under `torch.no_grad` and `torch.inference_mode`.

    x         images N×3×H×W, float
    denoise   maps x to the images that the classifier sees, and to anything that shall be handed back with the
              gradient; without it the classifier sees x itself
    returns   gradient N×3×H×W, logits N×C, and what `denoise` handed back (None without it)

    The networks should be `frozen`, or the graph is kept for their weights too. Raises NrcgError for logits or targets
    of the wrong shape or range, and for a classifier that no gradient passes.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()  # a clone: an inference tensor could not require a gradient
        seen, aside = (x, None) if denoise is None else denoise(x)
        logits = classify(classifier, seen)
        values = objective_values(logits, target, objective)
        gradient = _gradient(values, x)
    if gradient is None:
        raise NrcgError(
            f"classifier: no gradient passes {type(classifier).__name__}; its forward must be differentiable, without "
            "no_grad, detach, argmax or quantised layers"
        )
    return gradient, logits.detach(), aside


def _gradient(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
    """∂ Σ values / ∂x, where samples do not mix; None if the values do not depend on x in a way that torch follows."""
    if not values.requires_grad:
        return None
    try:
        return torch.autograd.grad(values.sum(), x, allow_unused=True)[0]  # of x alone, not of any weight
    except RuntimeError as error:
        if "implement" in str(error):  # "derivative … is not implemented", "must implement … backward"
            return None
        raise


def classify(classifier: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Logits N×C in the images' precision, whatever precision the classifier runs in.

    It is given a copy, and may change that in place. Raises NrcgError for an output of another shape.
    """
    dtype = next((p.dtype for p in classifier.parameters() if p.is_floating_point()), images.dtype)
    logits = classifier(images.to(dtype, copy=True))
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(images):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise NrcgError(f"classifier: returned {found} for {len(images)} images; wrap it to return logits N×C or N×1")
    return logits.to(images.dtype)


def objective_values(logits: torch.Tensor, target: int | torch.Tensor, objective: str) -> torch.Tensor:
    """The guiding objective of each sample, N values.

    log_prob   log softmax(f)_y, or for a single logit z: log σ(z) for target 1, log σ(−z) for target 0
    logit      f_y, or for a single logit: z for target 1, −z for target 0
    """
    n, n_logits = logits.shape
    target = _as_target(target)
    n_classes = max(n_logits, 2)
    if target.ndim == 1 and len(target) != n:
        raise NrcgError(f"guidance: target holds {len(target)} classes for {n} samples; give an int, or one per sample")
    if target.numel() and (target.min() < 0 or target.max() >= n_classes):
        raise NrcgError(f"guidance: target {target.tolist()} is not among the classifier's classes 0…{n_classes - 1}")
    target = target.expand(n).to(logits.device)
    if n_logits == 1:
        signed = torch.where(target == 1, logits[:, 0], -logits[:, 0])
        return logsigmoid(signed) if objective == "log_prob" else signed
    scores = log_softmax(logits, dim=1) if objective == "log_prob" else logits
    return scores.gather(1, target[:, None])[:, 0]


def predict(unet: nn.Module, x: torch.Tensor, timestep: int | torch.Tensor) -> torch.Tensor:
    """The U-Net's output in the precision of x, whatever precision the network runs in."""
    if isinstance(timestep, torch.Tensor):
        timestep = timestep.to(x.device, non_blocking=True)
    return unet(x.to(unet.dtype), timestep).sample.to(x.dtype)


def pred_original_sample(
    scheduler: Any, model_output: torch.Tensor, timestep: int | torch.Tensor, sample: torch.Tensor
) -> torch.Tensor:
    """x̂_0 as the scheduler's own `step` sees it: by its prediction type, then thresholded or clipped if it does so.

    epsilon        (x_t − √(1 − ᾱ_t) · ε) / √ᾱ_t   (eq. 5)
    sample         the output itself
    v_prediction   √ᾱ_t · x_t − √(1 − ᾱ_t) · v

    Raises NrcgError for another prediction type.
    """
    return _clipped(scheduler, _unclipped(scheduler, model_output, timestep, sample))


def _unclipped(
    scheduler: Any, model_output: torch.Tensor, timestep: int | torch.Tensor, sample: torch.Tensor
) -> torch.Tensor:
    signal, noise = _signal_and_noise(scheduler, timestep)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (sample - noise * model_output) / signal
    if kind == "sample":
        return model_output
    if kind == "v_prediction":
        return signal * sample - noise * model_output
    raise NrcgError(f"scheduler: prediction_type {kind!r} is unknown; use epsilon, sample or v_prediction")


def _clipped(scheduler: Any, x0: torch.Tensor) -> torch.Tensor:
    if scheduler.config.thresholding:
        return scheduler._threshold_sample(x0)
    if scheduler.config.clip_sample:
        return x0.clamp(-scheduler.config.clip_sample_range, scheduler.config.clip_sample_range)
    return x0


def _signal_and_noise(scheduler: Any, timestep: int | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """√ᾱ_t and √(1 − ᾱ_t)."""
    alpha_bar = scheduler.alphas_cumprod[timestep].clone()  # never an inference tensor: autograd keeps it
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def one_step_denoiser(
    unet: nn.Module, scheduler: Any, timestep: int | torch.Tensor, jacobian: bool = True
) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """For `image_gradient`: maps x_t to x̂_0, and hands the U-Net's output back so that it need not run twice.

    Without `jacobian`, the gradient does not go through the U-Net: ∂x̂_0/∂x_t is taken for 1/√ᾱ_t, as if the noise
    that the U-Net finds in x_t did not depend on it (whatever it predicts).

    Raises NrcgError at a timestep without any signal (ᾱ_t = 0, as at T with `rescale_betas_zero_snr`) where x̂_0 or its
    slope would be infinite: for a U-Net that predicts epsilon, and without `jacobian`.
    """
    if scheduler.alphas_cumprod[timestep] == 0 and (not jacobian or scheduler.config.prediction_type == "epsilon"):
        what = "x̂_0 of a U-Net that predicts epsilon" if jacobian else "the slope 1/√ᾱ_t of jacobian=False"
        raise NrcgError(
            f"guidance: ᾱ_t is 0 at timestep {int(timestep)}, which makes {what} infinite; leave that timestep out "
            f'with interval=(0, {int(timestep) - 1}), or use on="xt"'
        )

    def denoise(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.set_grad_enabled(jacobian):
            output = predict(unet, x, timestep)
            x0 = _unclipped(scheduler, output, timestep, x)
        if not jacobian:
            signal, _ = _signal_and_noise(scheduler, timestep)
            x0 = x0 + (x - x.detach()) / signal  # adds zero, and the slope
        return _clipped(scheduler, x0), output.detach()

    return denoise


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Eval mode and no gradient for any weight inside; every single flag as it was afterwards, also on an error."""
    children = [child for module in modules for child in module.modules()]
    training = [(child, child.training) for child in children if hasattr(child, "training")]  # frozen TorchScript: none
    trainable = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    try:
        for module in modules:
            module.eval()
        for weight in trainable:
            weight.requires_grad_(False)
        yield
    finally:
        for child, flag in training:
            child.training = flag
        for weight in trainable:
            weight.requires_grad_(True)


def _as_target(target: Any) -> torch.Tensor:
    """A LongTensor on the CPU, scalar or N; kept there so that checking it never waits for a GPU."""
    try:
        indices = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        indices = None
    if indices is None or indices.ndim > 1 or indices.dtype not in INTEGERS:
        raise NrcgError(f"guidance: target is {short(target)}; it must be a class index, or one per sample")
    return indices.detach().to("cpu", torch.long, copy=True)


def _is_interval(interval: Any) -> bool:
    return (
        isinstance(interval, tuple | list)
        and len(interval) == 2
        and all(is_number(bound, Integral) for bound in interval)
        and 0 <= interval[0] <= interval[1]
    )
