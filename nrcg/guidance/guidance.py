"""Guidance as its user states it: a classifier, a target, and a choice for every slot of a guided step."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from reprlib import repr as short
from typing import Any

import torch
from torch import nn

from nrcg.errors import NrcgError
from nrcg.guidance.inputs import INPUTS
from nrcg.guidance.objectives import OBJECTIVES, as_target
from nrcg.guidance.stabilizers import Stabilizer, check_flag, is_number


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
        as_target(self.target)
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
        values |= {"classifier": type(self.classifier).__name__, "target": short(as_target(self.target).tolist())}
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in values.items())})"

    def covers(self, timestep: int | torch.Tensor) -> bool:
        """Whether there is guidance at this time step."""
        return self.interval is None or self.interval[0] <= int(timestep) <= self.interval[1]


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises NrcgError unless `value` is one of `choices`."""
    if value not in choices:
        raise NrcgError(f"guidance: {key} is {value!r}; it must be one of {', '.join(choices)}")


def _is_interval(interval: Any) -> bool:
    return (
        isinstance(interval, tuple | list)
        and len(interval) == 2
        and all(is_number(bound, Integral) for bound in interval)
        and 0 <= interval[0] <= interval[1]
    )
