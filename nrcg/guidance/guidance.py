"""Guidance as its user states it: what to maximise, and a choice for every slot of a guided step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from inspect import signature
from reprlib import repr as short
from typing import Annotated, Any, NamedTuple

import torch
from torch import nn

from nrcg.checks import FLAG, FRACTIONS, Rule, check_fields, maybe, number, one_of, whole
from nrcg.diffusion.draws import Draws
from nrcg.diffusion.steps import Level
from nrcg.errors import NrcgError
from nrcg.guidance.apply import Compress, Inner, Recur, applications
from nrcg.guidance.copies import copies
from nrcg.guidance.gradient import Gradient, image_gradient
from nrcg.guidance.objectives import ClassValue, Value, name_of
from nrcg.guidance.sizes import Step, schedules, step_sizes
from nrcg.guidance.smooth import smoothed
from nrcg.guidance.stabilizers import Stabilizer, make_stabilizer
from nrcg.methods import expanded
from nrcg.registry import call

INPUTS = ("xt", "x0")  # what the classifier sees
MODULE = Rule("a torch module", lambda value: isinstance(value, nn.Module))
VALUE = Rule("a function from images to N values", callable)
JACOBIAN = Rule(f'{FLAG.words}, or "identity"', lambda value: FLAG.holds(value) or value == "identity")
EVERY = Rule(f"{whole(1).words}, or Compress(…)", lambda value: whole(1).holds(value) or isinstance(value, Compress))
MAKERS: dict[str, Callable[[Any], Any]] = {  # of what a slot's section describes
    "stabilizer": make_stabilizer,
    "copies": lambda section: section if callable(getattr(section, "draw", None)) else copies.build(section),
    "step_size": lambda section: step_sizes.choose(section, given=2),
    "schedule": lambda section: schedules.choose(section, given=1),
    "apply": lambda section: applications.choose(section, given=3),
    "every": lambda section: call(Compress, "every", section) if isinstance(section, Mapping) else section,
    "inner": lambda section: call(Inner, "inner", section) if isinstance(section, Mapping) else section,
    "recur": lambda section: call(Recur, "recur", section) if isinstance(section, Mapping) else section,
}


class Planned(NamedTuple):
    """What guidance does at a timestep."""

    weight: float
    renew: bool  # whether it takes a new gradient
    times: int  # that the step is made


@dataclass(frozen=True, eq=False, kw_only=True)
class Guidance:
    """How the gradient of a value is taken and used: what all guidance has; a subclass has a `value` and a `scale`.

    A slot that is a name or a section of a config becomes what it describes.
    """

    on: Annotated[str, one_of(*INPUTS)] = "x0"
    stabilizer: Any = None
    jacobian: Annotated[bool | str, JACOBIAN] = True
    copies: Any = None
    step_size: Any = "variance"
    schedule: Any = "constant"
    interval: Annotated[Sequence[float] | None, maybe(FRACTIONS)] = None
    every: Annotated[Any, EVERY] = 1
    apply: Any = "sample"
    inner: Annotated[Any, maybe(Rule("Inner(…)", lambda v: isinstance(v, Inner)))] = None
    recur: Annotated[Any, maybe(Rule("Recur(…)", lambda v: isinstance(v, Recur)))] = None

    def __post_init__(self) -> None:
        for name, make in MAKERS.items():
            if (section := getattr(self, name)) is not None:
                object.__setattr__(self, name, make(section))
        check_fields("guidance", self)
        if self.jacobian is not True and self.on != "x0":
            raise NrcgError('guidance: jacobian=False needs on="x0"; x_t itself is seen without the U-Net')

    def __repr__(self) -> str:
        """One line: networks and functions by name alone, of many targets the first; slots that are not at default."""
        parameters = signature(type(self)).parameters.values()
        values = {each.name: getattr(self, each.name) for each in parameters}
        texts = {name: name_of(value) if callable(value) else repr(value) for name, value in values.items()}
        for each in parameters:
            if each.default is not each.empty and texts[each.name] in (each.default, repr(each.default)):
                del texts[each.name]
        if isinstance(self, ClassifierGuidance):
            texts["target"] = short(self.value.target.tolist())
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in texts.items())})"

    def gradients(self, level: Level, draws: Draws | None) -> Callable[..., Gradient]:
        """`image_gradient` of the value at this step, (x, denoise) → Gradient; its copies are drawn once."""
        drawn, value = self.copies and self.copies.draw(level, draws), getattr(self, "value")  # noqa: B009
        return partial(image_gradient, value, copies=drawn, mean=self.copies and self.copies.mean)

    def applied(self, step: Step, direction: torch.Tensor, weight: float, gradient_at: Callable) -> tuple[Any, Any]:
        """x̂_0 of the step, and what is added to x_{t−1}, None for nothing."""
        size = getattr(self, "scale") * weight * self.step_size(step, direction)  # noqa: B009
        x0, shift = self.apply(step, size, direction)
        if self.inner:
            delta = self.inner.delta(step.x0, weight, gradient_at)
            if self.inner.apply == "x0":
                return x0 + delta, shift
            delta = step.level.alpha_bar_before.sqrt() * delta
            shift = delta if shift is None else shift + delta
        return x0, shift

    def plan(self, progress: Sequence[float]) -> list[Planned | None]:
        """What to do at each step, of which t / T is given; None where there is no guidance."""
        covered = [k for k, u in enumerate(progress) if _within(u, self.interval)]
        compressed = self.every.weights(len(covered)) if isinstance(self.every, Compress) else None
        plan: list[Planned | None] = [None] * len(progress)
        for k, step in enumerate(covered):
            u, weight = progress[step], 1 if compressed is None else compressed[k]
            times = self.recur.times if self.recur and _within(u, self.recur.interval) else 1
            if weight:
                plan[step] = Planned(weight * self.schedule(u), compressed is not None or k % self.every == 0, times)
        return plan


def _within(u: float, interval: Sequence[float] | None) -> bool:
    return interval is None or interval[0] <= u <= interval[1]


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
        stabilizer: None, EMA(…), Adam(…) or anything with the methods of `Stabilizer`; a list of them is a chain.
        jacobian: False, with on="x0", takes ∂x̂_0/∂x_t for 1/√ᾱ_t: no pass back through the U-Net. "identity" takes it
            for 1, past the clipping of x̂_0 too.
        copies: Noise(…) or Augment(…): the value is a mean over copies of what the classifier sees.
        softplus: β of the softplus that stands for ReLU and its kin in the gradient; None leaves the classifier.
        step_size: what the direction is multiplied with, besides the scale.
        schedule: a factor by t / T.
        interval: (low, high) guides where low ≤ t / T ≤ high only: (0, 0.6) leaves out the first 40 % of the way.
        every: k > 1 renews the gradient at every k-th guided step only, counted from the first one; between, the
            stabiliser is given the last one again. Compress(…) guides at few steps.
        apply: what is shifted: "sample", "x0", "epsilon" or "sphere".
        inner: Inner(…): ascent steps on x̂_0 itself besides.
        recur: Recur(…): makes guided steps several times.

    A slot takes a registered name, {name: {argument: value}}, or a function or object of one's own. The paper uses
    `on`, `objective` and `stabilizer`; all else is at its default there.

    Raises:
        NrcgError: for a value outside of these, also one of another type.
    """

    classifier: Annotated[nn.Module, MODULE]
    target: int | Sequence[int] | torch.Tensor
    scale: Annotated[float, number(0)]
    objective: Any = field(default="log_prob", kw_only=True)
    softplus: Annotated[float | None, maybe(number(0, without=(0,)))] = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.value  # noqa: B018  (checks target, objective and softplus)

    @cached_property
    def value(self) -> ClassValue:
        """What is maximised."""
        seen = self.classifier if self.softplus is None else smoothed(self.classifier, self.softplus)
        return ClassValue(seen, self.target, self.objective)


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

    With a `method` the section changes that one's slots: {"method": "dps", "interval": [0, 0.5]}. Errors begin with
    `where`.
    """
    with _at(where):
        given = {"classifier": classifier, "target": target, "scale": scale}
        return call(ClassifierGuidance, "guidance", expanded(section), **given)


def stabilizer_from(section: Any, where: str) -> Stabilizer | None:
    """The stabiliser of a section: a registered name, {name: {argument: value}}, a list of such, or None."""
    with _at(where):
        return None if section is None else make_stabilizer(section)


@contextmanager
def _at(where: str) -> Iterator[None]:
    try:
        yield
    except NrcgError as error:
        raise NrcgError(f"{where}: {str(error).removeprefix('guidance: ')}") from None
