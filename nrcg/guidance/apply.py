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

# (step, size, direction) → x̂_0 of the step, and what is added to x_{t−1} (None for nothing)
Apply = Callable[[Step, Any, torch.Tensor], tuple[torch.Tensor, Any]]

applications = Registry("apply")


@applications.register("sample")
def sample(step: Step, size: Any, direction: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """x_{t−1} + size · d, in a DDPM (eq. 1); another scheduler takes the x̂_0 that would shift a DDPM's mean so."""
    return step.x0, size * direction


@applications.register("x0")
def x0(step: Step, size: Any, direction: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """x̂_0 + size · d, not clipped again; ε becomes that of the new x̂_0."""
    return step.x0 + size * direction, None


@applications.register("epsilon")
def epsilon(step: Step, size: Any, direction: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """ε − √(1 − ᾱ_t) · size · d, which is x̂_0 + (1 − ᾱ_t) / √ᾱ_t · size · d."""
    a = step.level.alpha_bar
    return step.x0 + (1 - a) / a.sqrt() * size * direction, None


@applications.register("sphere")
def sphere(step: Step, size: Any, direction: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """The noise σ_t z becomes r · unit(σ_t z + size · (r · unit(d) − σ_t z)), r = √n · σ_t (DSG, arXiv 2402.03201).

    Size, from 0 to 1, is the share of the direction. Where σ_t is 0 nothing changes.
    """
    if step.spread is None:
        return step.x0, None
    radius = direction[0].numel() ** 0.5 * step.variance**0.5
    mixed = step.spread + size * (radius * direction / norm(direction) - step.spread)
    return step.x0, radius * mixed / norm(mixed) - step.spread


@dataclass(frozen=True)
class Inner:
    """K ascent steps on x̂_0 itself in each guided step: Δ ← Δ + μ · ∇ℓ(x̂_0 + Δ), by the classifier alone.

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
        """Δ, from `gradient_at` of an x̂_0; μ is times `weight`."""
        delta = torch.zeros_like(x0)
        for _ in range(self.steps):
            delta = delta + self.scale * weight * gradient_at(x0 + delta).gradient
        return delta


@dataclass(frozen=True)
class Recur:
    """Each guided step is made several times, from x_{t−1} noised back to t but for the last time.

    Args:
        times: R.
        interval: (low, high) recurs where low ≤ t / T ≤ high only.
    """

    times: Annotated[int, whole(1)] = 2
    interval: Annotated[tuple[float, float] | None, maybe(FRACTIONS)] = None

    def __post_init__(self) -> None:
        check_fields("guidance: recur", self)


@dataclass(frozen=True)
class Compress:
    """Guides at few steps, denser early, and so much harder: of N steps those numbered ⌊N · (i / G)ᵏ⌋, i = 0 … G − 1.

    Each weighs as many steps as there are until the next one (arXiv 2408.11194, its second form).

    Args:
        share: G / N.
        power: k, at least 1.
    """

    share: Annotated[float, number(0, 1, without=(0,))] = 0.2
    power: Annotated[float, number(1)] = 2.0

    def __post_init__(self) -> None:
        check_fields("guidance: every: compress", self)

    def weights(self, n: int) -> list[int]:
        """Of each of n steps; 0 where there is no guidance."""
        count = max(1, int(self.share * n + 1e-9))  # a product that rounds to just below an integer is that integer
        places = sorted({int(n * (i / count) ** self.power + 1e-9) for i in range(count)})
        weights = [0] * n
        for place, following in pairwise([*places, n]):
            weights[place] = following - place
        return weights
