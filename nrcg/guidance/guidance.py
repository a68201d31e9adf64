"""Guidance as the user specifies it: the value to maximise, and a choice for every slot of a guided step."""

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

INPUTS = ("xt", "x0")  # inputs of the classifier
MODULE = Rule("a torch module", lambda value: isinstance(value, nn.Module))
VALUE = Rule("a function from images to N values", callable)
JACOBIAN = Rule(f'{FLAG.words}, or "identity"', lambda value: FLAG.holds(value) or value == "identity")
EVERY = Rule(f"{whole(1).words}, or Compress(…)", lambda value: whole(1).holds(value) or isinstance(value, Compress))
MAKERS: dict[str, Callable[[Any], Any]] = {  # from a section of a config to the object in the slot
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
    """Guidance at one timestep."""

    weight: float
    renew: bool  # whether the gradient is recomputed
    times: int  # how often the step is made


@dataclass(frozen=True, eq=False, kw_only=True)
class Guidance:
    """Base class: how the gradient of a value is computed and used; subclasses add `value` and `scale`.

    A name or a section of a config in a slot is replaced by the object it describes.
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
            raise NrcgError('guidance: jacobian=False needs on="x0"; with on="xt" the U-Net is not in the gradient')

    def __repr__(self) -> str:
        """One line: networks and functions by name, the first of many targets, slots that differ from the default."""
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
        """`image_gradient` of the value at this step, (x, denoise) → Gradient; the copies are drawn once."""
        drawn, value = self.copies and self.copies.draw(level, draws), getattr(self, "value")  # noqa: B009
        return partial(image_gradient, value, copies=drawn, mean=self.copies and self.copies.mean)

    def applied(self, step: Step, direction: torch.Tensor, weight: float, gradient_at: Callable) -> tuple[Any, Any]:
        """x̂_0 of the step, and the shift added to x_{t−1} (None: no shift)."""
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
        """The guidance at each step, given t / T of each; None for unguided steps."""
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
    """Guidance towards a class.

    Args:
        classifier: any differentiable module from images N×3×H×W in [−1, 1] to logits N×C, or N×1 if binary;
            `nrcg.adapt` converts most others.
        target: class index, or N of them, one per sample (a tensor, array or list of integers); binary: 1 is positive,
            0 negative.
        scale: s of eq. 1, at least 0; 0 means no guidance.
        objective: "log_prob", log p(target | image), or "logit", the target's logit (binary: ± the one logit), or
            another name registered in `objectives`, or a function (logits N×C or N×1, target int64 N) → N values.
        on: input of the classifier: "xt", the noisy image, or "x0", the one-step prediction x̂_0 (eq. 5), with the
            gradient taken through the U-Net back to x_t.
        stabilizer: None, EMA(…), Adam(…) or any object with the methods of `Stabilizer`; a list of them is a chain.
        jacobian: with on="x0", False replaces ∂x̂_0/∂x_t by 1/√ᾱ_t and skips the backward pass through the U-Net;
            "identity" replaces it by 1 and ignores the clipping of x̂_0, too.
        copies: Noise(…) or Augment(…): the value is a mean over copies of the classifier's input.
        softplus: β of the softplus that replaces ReLU and related activations in the gradient; None keeps them.
        step_size: factor of the direction, besides the scale.
        schedule: factor as a function of t / T.
        interval: (low, high) guides only where low ≤ t / T ≤ high: (0, 0.6) skips the first 40 % of the steps.
        every: k > 1 recomputes the gradient only at every k-th guided step, starting with the first; in between, the
            stabiliser gets the last one again. Compress(…) guides at few steps.
        apply: the quantity that is shifted: "sample", "x0", "epsilon" or "sphere".
        inner: Inner(…): additional ascent steps on x̂_0.
        recur: Recur(…): repeats guided steps.

    A slot accepts a registered name, {name: {argument: value}}, or your own function or object. The paper uses `on`,
    `objective` and `stabilizer` and leaves the rest at its default. For a new data set, start with on="x0",
    objective={"tempered": {"tau2": 0.5}} or "log_prob", no stabiliser and scale 1, or EMA(0.99, steps=400) and scale 4,
    and with two fifths of the DDPM's steps, dense at low noise (`timesteps`). docs/results/README.md says why.

    Raises:
        NrcgError: for a value of another type or outside its range.
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
        """The value to maximise."""
        seen = self.classifier if self.softplus is None else smoothed(self.classifier, self.softplus)
        return ClassValue(seen, self.target, self.objective)


@dataclass(frozen=True, eq=False, repr=False)
class ValueGuidance(Guidance):
    """Guidance towards a large value of each image.

    Args:
        value: a differentiable function from images N×3×H×W in [−1, 1] to N values, for example the similarity to an
            embedding, or a `WeightedSum` of several values, including `ClassValue`s.
        scale: s of eq. 1, at least 0; 0 means no guidance.
        on: this and all further arguments as in `ClassifierGuidance`.

    Raises:
        NrcgError: for a value of another type or outside its range.
    """

    value: Annotated[Value, VALUE]
    scale: Annotated[float, number(0)]


def guidance_from(section: Any, classifier: nn.Module, target: Any, scale: float, where: str) -> ClassifierGuidance:
    """The guidance for a config's section, such as {"on": "x0", "stabilizer": {"ema": {"beta": 0.99}}}.

    Keys beside a `method` override its slots: {"method": "dps", "interval": [0, 0.5]}. Errors begin with `where`.
    """
    with _at(where):
        given = {"classifier": classifier, "target": target, "scale": scale}
        return call(ClassifierGuidance, "guidance", expanded(section), **given)


def stabilizer_from(section: Any, where: str) -> Stabilizer | None:
    """The stabiliser for a section: a registered name, {name: {argument: value}}, a list of these, or None."""
    with _at(where):
        return None if section is None else make_stabilizer(section)


@contextmanager
def _at(where: str) -> Iterator[None]:
    try:
        yield
    except NrcgError as error:
        raise NrcgError(f"{where}: {str(error).removeprefix('guidance: ')}") from None
