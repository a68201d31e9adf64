"""Guidance as its user states it: a classifier, a target, and a choice for every slot of a guided step."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from reprlib import repr as short
from typing import Any

import torch
from torch import nn

from nrcg.checks import FLAG, Rule, listed, number, one_of, whole
from nrcg.errors import NrcgError
from nrcg.guidance.inputs import INPUTS
from nrcg.guidance.objectives import Objective, as_objective, as_target, name_of
from nrcg.guidance.stabilizers import Stabilizer, check_fields


def _is_stabilizer(value: Any) -> bool:
    methods = [callable(getattr(value, name, None)) for name in ("init", "update")]
    return value is None or (all(methods) and not isinstance(value, type))


def _is_interval(value: Any) -> bool:
    return value is None or (listed(whole(0), 2).holds(value) and len(value) == 2 and value[0] <= value[1])


RULES = {
    "scale": number(0),
    "on": one_of(*INPUTS),
    "stabilizer": Rule("None, EMA(…), Adam(…) or a stabiliser of your own", _is_stabilizer),
    "jacobian": FLAG,
    "every": whole(1),
    "interval": Rule("two whole numbers (low, high) with 0 <= low <= high, or None", _is_interval),
}


@dataclass(frozen=True, eq=False)
class ClassifierGuidance:
    """What to guide towards, and how.

    Args:
        classifier: any module from images N×3×H×W in [−1, 1] to logits N×C, or N×1 for a binary one, that passes a
            gradient back to the images.
        target: class index, or N of them, one per sample (a tensor, array or list of integers); binary: 1 is positive,
            0 negative.
        scale: s of eq. 1, at least 0; 0 equals no guidance.
        on: what the classifier sees: "xt", the noisy image itself, or "x0", the one-step prediction x̂_0 (eq. 5), with
            the gradient taken through the U-Net back to x_t.
        objective: "log_prob", log p(target | image), or "logit", the target's logit (binary: ± the one logit), or
            another name registered in `objectives`, or a function (logits N×C or N×1, target int64 N) → N values.
        stabilizer: None, EMA(…), Adam(…) or anything with the methods of `Stabilizer`.
        jacobian: False, with on="x0", takes ∂x̂_0/∂x_t for 1/√ᾱ_t: no pass back through the U-Net. This, and the two
            below, save time; the paper does not have them.
        every: k > 1 renews the gradient at every k-th guided step only, counted from the first one; between, the
            stabiliser is given the last one again.
        interval: (low, high) guides at timesteps low ≤ t ≤ high only, counted from 0 as the scheduler does.

    Raises:
        NrcgError: for a value outside of these, also one of another type.
    """

    classifier: nn.Module
    target: int | Sequence[int] | torch.Tensor
    scale: float
    on: str = "x0"
    objective: str | Objective = "log_prob"
    stabilizer: Stabilizer | None = None
    jacobian: bool = True
    every: int = 1
    interval: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.classifier, nn.Module):
            raise NrcgError(f"guidance: classifier is a {type(self.classifier).__name__}; it must be a torch module")
        as_target(self.target)
        as_objective(self.objective)
        check_fields("guidance", self, RULES)
        if not self.jacobian and self.on != "x0":
            raise NrcgError('guidance: jacobian=False needs on="x0"; x_t itself is seen without the U-Net')

    def __repr__(self) -> str:
        """One line: the network by its class alone, of many targets the first."""
        values = {field.name: repr(getattr(self, field.name)) for field in fields(self)}
        values |= {"classifier": type(self.classifier).__name__, "target": short(as_target(self.target).tolist())}
        values |= {} if isinstance(self.objective, str) else {"objective": name_of(self.objective)}
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in values.items())})"

    def covers(self, timestep: int | torch.Tensor) -> bool:
        """Whether there is guidance at this time step, counted from 0."""
        return self.interval is None or self.interval[0] <= int(timestep) <= self.interval[1]
