"""The gradient that guides: of one value per image with respect to the noisy image x_t, and nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nrcg.errors import NrcgError
from nrcg.guidance.objectives import ClassValue, Value, name_of, one_each

Denoise = Callable[[torch.Tensor], tuple[torch.Tensor, Any]]  # x_t → what the classifier sees, and something besides


def image_gradient(value: Value, x: torch.Tensor, denoise: Denoise | None = None) -> tuple[torch.Tensor, Any, Any]:
    """∇_x of each image's value, a batch N×C×H×W; logits of a `ClassValue`; what `denoise` handed back besides.

    Without `denoise` x itself is seen. In any grad mode; it takes memory where a network is not `frozen`.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()  # a clone: an inference tensor could not require a gradient
        seen, aside = (x, None) if denoise is None else denoise(x)
        logits: Any = None
        gradient: torch.Tensor | None = None
        if isinstance(value, ClassValue):
            values, logits = value.evaluate(seen)
            kind, name, objective = "classifier", name_of(value.classifier), name_of(value.objective)
        else:
            values = one_each(value(seen.clone()), len(x), value)
            kind = "objective"
            name = objective = name_of(value)
        if values.requires_grad:
            try:
                (gradient,) = torch.autograd.grad(values.sum(), x, allow_unused=True)  # of x alone, not of any weight
            except RuntimeError as error:
                if "implement" not in str(error):  # "derivative … is not implemented", "must implement … backward"
                    raise
        elif logits is not None and logits.requires_grad:
            raise NrcgError(f"objective: no gradient passes {objective}; make it differentiable, without detach")
    if gradient is None:
        raise NrcgError(
            f"{kind}: no gradient passes {name}; its forward must be differentiable, without no_grad, detach, argmax "
            "or quantised layers"
        )
    return gradient, None if logits is None else logits.detach(), aside


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
