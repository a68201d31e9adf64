"""The size of a step along the direction, and its schedule over the trajectory."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch

from nrcg.checks import Rule, number
from nrcg.diffusion.steps import Level
from nrcg.guidance.stabilizers import norm, rms
from nrcg.registry import Registry


class Step(NamedTuple):
    """State of a guided step before guidance is applied; N×C×H×W unless noted."""

    level: Level
    progress: float  # t / T
    variance: torch.Tensor  # σ_t², a scalar or N×C×H×W
    largest_variance: float  # of the trajectory, where it is not learned
    x0: torch.Tensor  # x̂_0
    epsilon: torch.Tensor  # ε that the U-Net predicts from x_t
    values: torch.Tensor  # ℓ of each sample, N
    spread: torch.Tensor | None  # σ_t · z, the step's noise; None if there is none, or the scheduler draws it


StepSize = Callable[[Step, torch.Tensor], Any]  # (step, direction) → one number, or one per sample, N×1×1×1
Schedule = Callable[[float], float]  # t / T, from 1 at the start of sampling to 0 at its end → a factor

step_sizes = Registry("step_size")
schedules = Registry("schedule")

KNOTS = Rule(
    "two or more pairs [t / T, factor] with t / T rising within 0 to 1",
    lambda knots: (
        isinstance(knots, list | tuple)
        and len(knots) >= 2
        and all(isinstance(knot, list | tuple) and len(knot) == 2 and all(map(number().holds, knot)) for knot in knots)
        and all(0 <= low[0] < high[0] <= 1 for low, high in pairwise(knots))
    ),
)


@step_sizes.register("variance")
def variance(step: Step, direction: torch.Tensor) -> float | torch.Tensor:
    """σ_t², the variance of the reverse step (eq. 1)."""
    return step.variance if step.variance.ndim else float(step.variance)


@step_sizes.register("constant")
def constant(*_: Any) -> float:
    """1."""
    return 1.0


@step_sizes.register("inverse_signal")
def inverse_signal(step: Step, direction: torch.Tensor) -> float:
    """1/√α_t, α_t = ᾱ_t / ᾱ_{t−1} (TFG, Adam-guidance)."""
    return float((1 - step.level.beta).rsqrt())


@step_sizes.register("signal")
def signal(step: Step, direction: torch.Tensor) -> float:
    """√ᾱ_t (FreeDoM)."""
    return float(step.level.alpha_bar.sqrt())


@step_sizes.register("signal_before")
def signal_before(step: Step, direction: torch.Tensor) -> float:
    """√ᾱ_{t−1}: as if d were added to x̂_0 and ε kept (MPGD in TFG's code)."""
    return float(step.level.alpha_bar_before.sqrt())


@step_sizes.register("unit")
def unit(step: Step, direction: torch.Tensor) -> torch.Tensor:
    """1 / RMS(d) per sample (MPGD)."""
    return 1 / rms(direction)


@step_sizes.register("inverse_value")
def inverse_value(step: Step, direction: torch.Tensor) -> torch.Tensor:
    """1 / |ℓ| per sample (DPS), with |ℓ| at least 1e-8."""
    return 1 / step.values.abs().clamp(min=1e-8)[:, None, None, None]


@step_sizes.register("polyak")
def polyak(step: Step, direction: torch.Tensor) -> torch.Tensor:
    """‖ε‖ / ‖d‖² per sample; 0 where ‖d‖ is below 1e-6 (arXiv 2403.12404)."""
    return torch.where(norm(direction) < 1e-6, 0.0, norm(step.epsilon) / norm(direction).square())


@step_sizes.register("variance_and_sine")
def variance_and_sine(
    step: Step, direction: torch.Tensor, gamma: Annotated[float, number(0)] = 0.3
) -> float | torch.Tensor:
    """σ_t² + γ · max σ² · sin(π t / T) (EluCD); `gamma` is γ, at least 0."""
    return variance(step, direction) + gamma * step.largest_variance * math.sin(math.pi * step.progress)


schedules.register("constant")(constant)


@schedules.register("linear")
def linear(u: float, start: Annotated[float, number()] = 1.0, end: Annotated[float, number()] = 0.0) -> float:
    """From `start` at t = T to `end` at t = 0."""
    return end + (start - end) * u


@schedules.register("sine")
def sine(u: float) -> float:
    """sin(π t / T), largest in the middle."""
    return math.sin(math.pi * u)


@schedules.register("knots")
def knots(u: float, points: Annotated[Sequence[Sequence[float]], KNOTS]) -> float:
    """Linear interpolation between `points`, pairs [t / T, factor] with rising t / T; constant outside them."""
    times, factors = zip(*points, strict=True)
    return float(np.interp(u, times, factors))
