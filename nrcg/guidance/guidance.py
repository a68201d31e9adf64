"""Guidance as its user states it: what to maximise, and a choice for every slot of a guided step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from inspect import signature
from reprlib import repr as short
from typing import Annotated, Any

import torch
from torch import nn

from nrcg.checks import FLAG, Rule, check_fields, listed, maybe, number, one_of, whole
from nrcg.errors import NrcgError
from nrcg.guidance.inputs import INPUTS
from nrcg.guidance.objectives import ClassValue, Objective, Value, as_target, name_of, objectives
from nrcg.guidance.stabilizers import Stabilizer, stabilizers
from nrcg.registry import call

MODULE = Rule("a torch module", lambda value: isinstance(value, nn.Module))
VALUE = Rule("a function from images to N values", callable)
STABILIZER = Rule(
    "EMA(…), Adam(…), a stabiliser of your own",
    lambda v: not isinstance(v, type) and all(callable(getattr(v, name, None)) for name in ("init", "update")),
)
INTERVAL = Rule(
    "two whole numbers (low, high) with 0 <= low <= high",
    lambda v: listed(whole(0), 2).holds(v) and len(v) == 2 and v[0] <= v[1],
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Guidance:
    """How the gradient of a value is taken and used: what all guidance has; a subclass has a `value` and a `scale`."""

    on: Annotated[str, one_of(*INPUTS)] = "x0"
    stabilizer: Annotated[Stabilizer | None, maybe(STABILIZER)] = None
    jacobian: Annotated[bool, FLAG] = True
    every: Annotated[int, whole(1)] = 1
    interval: Annotated[tuple[int, int] | None, maybe(INTERVAL)] = None

    def __post_init__(self) -> None:
        check_fields("guidance", self)
        if not self.jacobian and self.on != "x0":
            raise NrcgError('guidance: jacobian=False needs on="x0"; x_t itself is seen without the U-Net')

    def __repr__(self) -> str:
        """One line: networks and functions by name alone, of many targets the first."""
        values = {name: getattr(self, name) for name in signature(type(self)).parameters}
        texts = {name: name_of(value) if callable(value) else repr(value) for name, value in values.items()}
        texts |= {"target": short(as_target(values["target"]).tolist())} if "target" in values else {}
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in texts.items())})"

    def covers(self, timestep: int | torch.Tensor) -> bool:
        """Whether there is guidance at this time step, counted from 0."""
        return self.interval is None or self.interval[0] <= int(timestep) <= self.interval[1]


@dataclass(frozen=True, eq=False, repr=False)
class ClassifierGuidance(Guidance):
    """Guidance towards a class, and how.

    Args:
        classifier: any module from images N×3×H×W in [−1, 1] to logits N×C, or N×1 for a binary one, that passes a
            gradient back to the images; `nrcg.adapt` makes one of most others.
        target: class index, or N of them, one per sample (a tensor, array or list of integers); binary: 1 is positive,
            0 negative.
        scale: s of eq. 1, at least 0; 0 equals no guidance.
        objective: "log_prob", log p(target | image), or "logit", the target's logit (binary: ± the one logit), or
            another name registered in `objectives`, or a function (logits N×C or N×1, target int64 N) → N values.
        on: what the classifier sees: "xt", the noisy image itself, or "x0", the one-step prediction x̂_0 (eq. 5), with
            the gradient taken through the U-Net back to x_t.
        stabilizer: None, EMA(…), Adam(…) or anything with the methods of `Stabilizer`.
        jacobian: False, with on="x0", takes ∂x̂_0/∂x_t for 1/√ᾱ_t: no pass back through the U-Net. This, and the two
            below, save time; the paper does not have them.
        every: k > 1 renews the gradient at every k-th guided step only, counted from the first one; between, the
            stabiliser is given the last one again.
        interval: (low, high) guides at timesteps low ≤ t ≤ high only, counted from 0 as the scheduler does.

    Raises:
        NrcgError: for a value outside of these, also one of another type.
    """

    classifier: Annotated[nn.Module, MODULE]
    target: int | Sequence[int] | torch.Tensor
    scale: Annotated[float, number(0)]
    objective: str | Objective = field(default="log_prob", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.value  # noqa: B018  (checks target and objective)

    @cached_property
    def value(self) -> ClassValue:
        """What is maximised."""
        return ClassValue(self.classifier, self.target, self.objective)


@dataclass(frozen=True, eq=False, repr=False)
class ValueGuidance(Guidance):
    """Guidance towards whatever makes a value of each image large, and how.

    Args:
        value: from images N×3×H×W in [−1, 1] to N values, differentiable: a similarity to an embedding, say, or a
            `WeightedSum` of several values, `ClassValue`s among them.
        scale: s of eq. 1, at least 0; 0 equals no guidance.
        on: this, and all further ones, as of `ClassifierGuidance`.

    Raises:
        NrcgError: for a value outside of these, also one of another type.
    """

    value: Annotated[Value, VALUE]
    scale: Annotated[float, number(0)]


def guidance_from(section: Any, classifier: nn.Module, target: Any, scale: float, where: str) -> ClassifierGuidance:
    """The guidance of a config's section, such as {"on": "x0", "stabilizer": {"ema": {"beta": 0.99}}}.

    A registered `objective` or `stabilizer` may also be {name: {argument: value}}. Errors begin with `where`.
    """
    makers: dict[str, Any] = {"objective": partial(objectives.choose, given=2), "stabilizer": _stabilizer}
    with _at(where):
        if isinstance(section, Mapping):
            section = {key: makers[key](value) if key in makers else value for key, value in section.items()}
        return call(ClassifierGuidance, "guidance", section, classifier=classifier, target=target, scale=scale)


def stabilizer_from(section: Any, where: str) -> Stabilizer | None:
    """The stabiliser of a section: a registered name, {name: {argument: value}}, or None."""
    with _at(where):
        return _stabilizer(section)


def _stabilizer(section: Any) -> Stabilizer | None:
    return None if section is None else stabilizers.build(section)


@contextmanager
def _at(where: str) -> Iterator[None]:
    try:
        yield
    except NrcgError as error:
        raise NrcgError(f"{where}: {str(error).removeprefix('guidance: ')}") from None
