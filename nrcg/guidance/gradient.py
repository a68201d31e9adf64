"""The gradient that guides: of one value per image with respect to the noisy image x_t, and nothing else."""

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
    """`gradient` N×C×H×W of `values` N; logits of a `ClassValue`, else None; what `denoise` handed back besides."""

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
    """∇_x of each image's value, a batch N×C×H×W; over `copies` of what is seen, of their `mean`.

    Without `denoise` x itself is seen. In any grad mode; it takes memory where a network is not `frozen`.
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
        return f"objective: no gradient passes {name_of(value.objective)}; make it differentiable, without detach"
    kind, culprit = ("classifier", value.classifier) if isinstance(value, ClassValue) else ("objective", value)
    return (
        f"{kind}: no gradient passes {name_of(culprit)}; its forward must be differentiable, without no_grad, detach, "
        "argmax or quantised layers"
    )


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
