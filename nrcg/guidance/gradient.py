"""The gradient that guides: of a classifier's objective with respect to the noisy image x_t, and nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nrcg.errors import NrcgError
from nrcg.guidance.objectives import Objective, name_of, objective_values

Denoise = Callable[[torch.Tensor], tuple[torch.Tensor, Any]]  # x_t → what the classifier sees, and something besides


def image_gradient(
    classifier: nn.Module,
    x: torch.Tensor,
    target: Any,
    objective: str | Objective = "log_prob",
    denoise: Denoise | None = None,
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """∇_x of the objective for each image of a batch N×3×H×W, logits N×C, and what `denoise` handed back besides.

    Without `denoise` the classifier sees x itself. In any grad mode; it takes memory where a network is not `frozen`.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()  # a clone: an inference tensor could not require a gradient
        seen, aside = (x, None) if denoise is None else denoise(x)
        logits = _classify(classifier, seen)
        values, gradient = objective_values(logits, target, objective), None
        if values.requires_grad:
            try:
                (gradient,) = torch.autograd.grad(values.sum(), x, allow_unused=True)  # of x alone, not of any weight
            except RuntimeError as error:
                if "implement" not in str(error):  # "derivative … is not implemented", "must implement … backward"
                    raise
        elif logits.requires_grad:
            raise NrcgError(
                f"objective: no gradient passes {name_of(objective)}; make it differentiable, without detach"
            )
    if gradient is None:
        raise NrcgError(
            f"classifier: no gradient passes {type(classifier).__name__}; its forward must be differentiable, without "
            "no_grad, detach, argmax or quantised layers"
        )
    return gradient, logits.detach(), aside


def _classify(classifier: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Logits N×C in the images' precision, of a copy that the classifier may change in place."""
    dtype = next((p.dtype for p in classifier.parameters() if p.is_floating_point()), images.dtype)
    logits = classifier(images.to(dtype, copy=True))
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(images):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise NrcgError(f"classifier: returned {found} for {len(images)} images; wrap it to return logits N×C or N×1")
    return logits.to(images.dtype)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Eval mode and no gradient for any weight inside; every single flag as it was afterwards, also on an error."""
    everything = nn.ModuleList(modules)
    training = [(child, child.training) for child in everything.modules() if hasattr(child, "training")]  # TorchScript
    trainable = [weight for weight in everything.parameters() if weight.requires_grad]
    try:
        everything.eval()
        for weight in trainable:
            weight.requires_grad_(False)
        yield
    finally:
        for child, flag in training:
            child.training = flag
        for weight in trainable:
            weight.requires_grad_(True)
