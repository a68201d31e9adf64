"""Smooth activations: a copy of a classifier with softplus in place of ReLU, used for the gradient only (EluCD)."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn
from torch.nn.functional import softplus

from nrcg.errors import NrcgError

# Each activation as a formula in ReLU r: (input, r, module) → output; r becomes softplus.
OF_RELU: dict[type[nn.Module], Callable] = {
    nn.ReLU: lambda x, r, _: r(x),
    nn.ReLU6: lambda x, r, _: r(x) - r(x - 6),
    nn.LeakyReLU: lambda x, r, own: r(x) - own.negative_slope * r(-x),
    nn.Hardsigmoid: lambda x, r, _: (r(x + 3) - r(x - 3)) / 6,
    nn.Hardswish: lambda x, r, _: x * (r(x + 3) - r(x - 3)) / 6,
}


class Smoothed(nn.Module):
    """One activation, with softplus_β(x) = log(1 + e^{βx}) / β for each ReLU in it."""

    def __init__(self, own: nn.Module, beta: float) -> None:
        super().__init__()
        self.own, self.beta = own, beta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return OF_RELU[type(self.own)](x, lambda y: softplus(y, beta=self.beta), self.own)


def smoothed(classifier: nn.Module, beta: float) -> nn.Module:
    """A copy with smooth activations; NrcgError without any ReLU-like module to replace."""
    copy = nn.ModuleList([deepcopy(classifier)])
    places = [(name, child) for name, child in copy.named_modules(remove_duplicate=False) if type(child) in OF_RELU]
    if not places:
        kin = ", ".join(kind.__name__ for kind in OF_RELU)
        raise NrcgError(f"guidance: softplus: {type(classifier).__name__} has no module among {kin} to make smooth")
    for name, child in places:
        copy.set_submodule(name, Smoothed(child, beta))
    return copy[0]
