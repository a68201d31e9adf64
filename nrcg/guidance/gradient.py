"""The guiding gradient: of one value per image with respect to the noisy image x_t."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from nrcg.diffusion.denoise import Denoise
from nrcg.errors import NrcgError
from nrcg.guidance.objectives import ClassValue, Value, name_of, one_each


class Gradient(NamedTuple):
    """`gradient` N×C×H×W of `values` N; logits of a `ClassValue`, else None; the second output of `denoise`."""

    gradient: torch.Tensor
    logits: Any
    aside: Any
    values: torch.Tensor


def image_gradient(
    value: Value,
    x: torch.Tensor,
    denoise: Denoise | None = None,
    copies: Callable[[torch.Tensor], Iterable[torch.Tensor]] | None = None,
    mean: str | None = None,
) -> Gradient:
    """∇_x of each image's value, N×C×H×W; with `copies`, of the mean over them.

    The value is of denoise(x), or of x without `denoise`. Works in any grad mode; networks that are not `frozen` cost
    memory.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()  # a clone: an inference tensor could not require a gradient
        seen, aside = (x, None) if denoise is None else denoise(x)
        logits: Any = None
        gradient: torch.Tensor | None = None
        found = []
        for copy in [seen] if copies is None else copies(seen):
            if isinstance(value, ClassValue):
                values, logits = value.evaluate(copy)
            else:
                values = one_each(value(copy.clone()), len(x), value)
            found.append(values)
        if len(found) > 1:
            of_copies = torch.stack(found)
            values = of_copies.logsumexp(0) - math.log(len(found)) if mean == "probability" else of_copies.mean(0)
        if values.requires_grad:
            try:
                (gradient,) = torch.autograd.grad(values.sum(), x, allow_unused=True)  # of x alone, not of any weight
            except RuntimeError as error:
                if "implement" not in str(error):  # "derivative … is not implemented", "must implement … backward"
                    raise
    if gradient is None:
        raise NrcgError(_no_gradient(value, logits, values))
    return Gradient(gradient, None if logits is None else logits.detach(), aside, values.detach())


def _no_gradient(value: Value, logits: Any, values: torch.Tensor) -> str:
    if isinstance(value, ClassValue) and logits.requires_grad and not values.requires_grad:
        name = name_of(value.objective)
        return f"objective: no gradient passes through {name}; make it differentiable, without detach"
    kind, culprit = ("classifier", value.classifier) if isinstance(value, ClassValue) else ("objective", value)
    return (
        f"{kind}: no gradient passes through {name_of(culprit)}; its forward must be differentiable, without no_grad, "
        "detach, argmax or quantised layers"
    )


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Eval mode and no weight gradients inside the context; restores every flag afterwards, also after an error."""
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
