"""How guidance is applied: to the sample, to x̂_0, to ε, or within the noise's sphere; inner steps and recurrences."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import torch

from nrcg.checks import FRACTIONS, check_fields, maybe, number, one_of, whole
from nrcg.guidance.sizes import Step
from nrcg.guidance.stabilizers import norm
from nrcg.registry import Registry

# (step, size, direction) → x̂_0 of the step, and the shift added to x_{t−1} (None: no shift)
Apply = Callable[[Step, Any, torch.Tensor], tuple[torch.Tensor, Any]]

applications = Registry("apply")


@applications.register("sample")
def sample(step: Step, size: Any, direction: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """x_{t−1} + size · d in a DDPM (eq. 1); with other schedulers, the x̂_0 that shifts a DDPM's mean by the same."""
    return step.x0, size * direction


@applications.register("x0")
def x0(step: Step, size: Any, direction: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """x̂_0 + size · d, without further clipping; ε follows from the new x̂_0."""
    return step.x0 + size * direction, None


@applications.register("epsilon")
def epsilon(step: Step, size: Any, direction: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """ε − √(1 − ᾱ_t) · size · d, i.e. x̂_0 + (1 − ᾱ_t) / √ᾱ_t · size · d."""
    a = step.level.alpha_bar
    return step.x0 + (1 - a) / a.sqrt() * size * direction, None


@applications.register("sphere")
def sphere(step: Step, size: Any, direction: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """The noise σ_t z becomes r · unit(σ_t z + size · (r · unit(d) − σ_t z)), r = √n · σ_t (DSG, arXiv 2402.03201).

    `size`, from 0 to 1, is the weight of the direction. Steps with σ_t = 0 stay unguided.
    """
    if step.spread is None:
        return step.x0, None
    radius = direction[0].numel() ** 0.5 * step.variance**0.5
    mixed = step.spread + size * (radius * direction / norm(direction) - step.spread)
    return step.x0, radius * mixed / norm(mixed) - step.spread


@dataclass(frozen=True)
class Inner:
    """K ascent steps on x̂_0 in each guided step, without the U-Net: Δ ← Δ + μ · ∇ℓ(x̂_0 + Δ).

    Args:
        steps: K.
        scale: μ.
        apply: "sample", x_{t−1} + √ᾱ_{t−1} · Δ (TFG), or "x0", x̂_0 + Δ (UGD).
    """

    steps: Annotated[int, whole(1)] = 4
    scale: Annotated[float, number(0)] = 1.0
    apply: Annotated[str, one_of("sample", "x0")] = "sample"

    def __post_init__(self) -> None:
        check_fields("guidance: inner", self)

    def delta(self, x0: torch.Tensor, weight: float, gradient_at: Callable) -> torch.Tensor:
        """Δ, with gradients from `gradient_at(x̂_0)` and μ multiplied by `weight`."""
        delta = torch.zeros_like(x0)
        for _ in range(self.steps):
            delta = delta + self.scale * weight * gradient_at(x0 + delta).gradient
        return delta


@dataclass(frozen=True)
class Recur:
    """Repeats each guided step; before each repetition x_{t−1} is noised back to t.

    Args:
        times: R, how often a step is made in total.
        interval: (low, high); only steps with low ≤ t / T ≤ high are repeated.
    """

    times: Annotated[int, whole(1)] = 2
    interval: Annotated[tuple[float, float] | None, maybe(FRACTIONS)] = None

    def __post_init__(self) -> None:
        check_fields("guidance: recur", self)


@dataclass(frozen=True)
class Compress:
    """Guides at G of N steps, more densely early on: steps ⌊N · (i / G)ᵏ⌋, i = 0 … G − 1.

    The weight of a guided step is the number of steps until the next one (arXiv 2408.11194, second form).

    Args:
        share: G / N.
        power: k, at least 1.
    """

    share: Annotated[float, number(0, 1, without=(0,))] = 0.2
    power: Annotated[float, number(1)] = 2.0

    def __post_init__(self) -> None:
        check_fields("guidance: every: compress", self)

    def weights(self, n: int) -> list[int]:
        """The weight of each of n steps; 0 without guidance."""
        count = max(1, int(self.share * n + 1e-9))  # a product that rounds to just below an integer is that integer
        places = sorted({int(n * (i / count) ** self.power + 1e-9) for i in range(count)})
        weights = [0] * n
        for place, following in pairwise([*places, n]):
            weights[place] = following - place
        return weights
