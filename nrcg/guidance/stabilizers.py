"""Stabilisers turn the gradients of a trajectory into a direction (eq. 7 and 8), elementwise.

They are pure, in the style of optax: constants in a frozen object, history in a state that is passed around. Samples
do not affect each other. The docstrings give the direction d; g is the gradient, ᵏ the number of gradients so far.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple, Protocol

import torch

from nrcg.checks import FLAG, check_fields, maybe, number, whole
from nrcg.registry import Registry

DECAY = number(0, 1, without=(1,))
POSITIVE = number(0, without=(0,))

stabilizers = Registry("stabilizer")


class Stabilizer(Protocol):
    """Protocol of a stabiliser; an optional `for_steps(n)` returns the stabiliser for a trajectory of n gradients."""

    def init(self, gradient_like: torch.Tensor) -> Any:
        """The state at the start of a trajectory with gradients N×C×H×W."""

    def update(self, gradient: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """Direction (N×C×H×W) and new state, at every guided step from t = T down; `state` must not be changed."""


class Chain(tuple[Stabilizer, ...]):
    """Stabilisers in sequence, the first applied to the gradient; a list in a config; an empty one does nothing."""

    def init(self, gradient_like: torch.Tensor) -> tuple[Any, ...]:
        return tuple(each.init(gradient_like) for each in self)

    def update(self, gradient: torch.Tensor, state: tuple[Any, ...]) -> tuple[torch.Tensor, tuple[Any, ...]]:
        after = []
        for each, own in zip(self, state, strict=True):
            gradient, own = each.update(gradient, own)
            after.append(own)
        return gradient, tuple(after)

    def for_steps(self, n: int) -> "Chain":
        return Chain(for_steps(each, n) for each in self)


class Moments(NamedTuple):
    """History of a trajectory: number of gradients so far, first and second moment (the latter if used)."""

    steps: int
    m: torch.Tensor
    v: torch.Tensor


@dataclass(frozen=True)
class MovingAverage:
    """Base of averages that start at 0; the decays, fields `beta…`, refer to `steps` guided steps if it is set."""

    steps: Annotated[int | None, maybe(whole(1))] = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_fields(type(self).__name__, self)

    def init(self, gradient_like: torch.Tensor) -> Moments:
        zeros = torch.zeros_like(gradient_like, dtype=torch.promote_types(gradient_like.dtype, torch.float32))
        return Moments(0, zeros, zeros)

    def update(self, gradient: torch.Tensor, state: Moments) -> tuple[torch.Tensor, Moments]:
        gradient = gradient.to(state.m.dtype)  # squares of half-precision gradients would vanish
        return self._direct(gradient, state._replace(steps=state.steps + 1))

    def _direct(self, g: torch.Tensor, state: Moments) -> tuple[torch.Tensor, Moments]:
        raise NotImplementedError  # state.steps counts g already

    def for_steps(self, n: int) -> "MovingAverage":
        """With `steps`, the average with the same memory relative to n steps: β' = β^(steps/n); else unchanged."""
        if self.steps is None:
            return self
        decays = {name: beta ** (self.steps / n) for name, beta in vars(self).items() if name.startswith("beta")}
        return replace(self, steps=n, **decays)


def _average(beta: float, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    return beta * old + (1 - beta) * new


@stabilizers.register("ema")
@dataclass(frozen=True)
class EMA(MovingAverage):
    """Exponential moving average (eq. 7): d = m_t = β · m_{t+1} + (1 − β) · g_t; m starts at 0.

    Args:
        beta: β, at least 0 and below 1.
        bias_correction: divide m_t by 1 − βᵏ. Without it, as in the paper, early directions are pulled toward zero.
        steps: number of guided steps that β refers to; β is rescaled to the actual number. None uses β as given.
    """

    beta: Annotated[float, DECAY] = 0.99
    bias_correction: Annotated[bool, FLAG] = field(default=False, kw_only=True)

    def _direct(self, g: torch.Tensor, state: Moments) -> tuple[torch.Tensor, Moments]:
        m = _average(self.beta, state.m, g)
        return m / (1 - self.beta**state.steps) if self.bias_correction else m, state._replace(m=m)


@stabilizers.register("adam")
@dataclass(frozen=True)
class Adam(MovingAverage):
    """Adam's direction (eq. 8): m_t / (√v_t + η), with m_t as in eq. 7 and v_t = β2 · v_{t+1} + (1 − β2) · g_t².

    Args:
        beta1: decay of m, at least 0 and below 1; with 0 it is RMSProp.
        beta2: decay of v, at least 0 and below 1.
        eps: η, above 0.
        bias_correction: divide m_t and v_t by 1 − βᵏ, as Kingma and Ba do; the paper does not.
        steps: as in `EMA`, for both decays.
    """

    beta1: Annotated[float, DECAY] = 0.9
    beta2: Annotated[float, DECAY] = 0.999
    eps: Annotated[float, POSITIVE] = 1e-4
    bias_correction: Annotated[bool, FLAG] = field(default=False, kw_only=True)

    def _direct(self, g: torch.Tensor, state: Moments) -> tuple[torch.Tensor, Moments]:
        m = m_hat = _average(self.beta1, state.m, g)
        v = v_hat = _average(self.beta2, state.v, g.square())
        if self.bias_correction:
            m_hat, v_hat = m / (1 - self.beta1**state.steps), v / (1 - self.beta2**state.steps)
        return m_hat / (v_hat.sqrt() + self.eps), state._replace(m=m, v=v)


@stabilizers.register("rmsprop")
@dataclass(frozen=True)
class RMSProp(MovingAverage):
    """RMSProp (Hinton 2012): d = g / (√v + ε), v = β · v + (1 − β) · g²; `eps` is ε, `steps` as in `EMA`."""

    beta: Annotated[float, DECAY] = 0.99
    eps: Annotated[float, POSITIVE] = 1e-8

    def _direct(self, g: torch.Tensor, state: Moments) -> tuple[torch.Tensor, Moments]:
        v = _average(self.beta, state.v, g.square())
        return g / (v.sqrt() + self.eps), state._replace(v=v)


@stabilizers.register("adabelief")
@dataclass(frozen=True)
class AdaBelief(MovingAverage):
    """AdaBelief (Zhuang et al. 2020): d = m̂ / (√v̂ + ε), v = β2 · v + (1 − β2) · (g − m)² + ε."""

    beta1: Annotated[float, DECAY] = 0.9
    beta2: Annotated[float, DECAY] = 0.999
    eps: Annotated[float, POSITIVE] = 1e-8

    def _direct(self, g: torch.Tensor, state: Moments) -> tuple[torch.Tensor, Moments]:
        m = _average(self.beta1, state.m, g)
        v = _average(self.beta2, state.v, (g - m).square()) + self.eps
        m_hat, v_hat = m / (1 - self.beta1**state.steps), v / (1 - self.beta2**state.steps)
        return m_hat / (v_hat.sqrt() + self.eps), state._replace(m=m, v=v)


@stabilizers.register("lion")
@dataclass(frozen=True)
class Lion(MovingAverage):
    """Lion (Chen et al. 2023): d = sign(β1 · m + (1 − β1) · g), then m = β2 · m + (1 − β2) · g; `steps` as in `EMA`."""

    beta1: Annotated[float, DECAY] = 0.9
    beta2: Annotated[float, DECAY] = 0.99

    def _direct(self, g: torch.Tensor, state: Moments) -> tuple[torch.Tensor, Moments]:
        return _average(self.beta1, state.m, g).sign(), state._replace(m=_average(self.beta2, state.m, g))


@stabilizers.register("nesterov")
@dataclass(frozen=True)
class Nesterov(MovingAverage):
    """Nesterov's momentum, as an average: m = β · m + (1 − β) · g, d = β · m + (1 − β) · g."""

    beta: Annotated[float, DECAY] = 0.9

    def _direct(self, g: torch.Tensor, state: Moments) -> tuple[torch.Tensor, Moments]:
        m = _average(self.beta, state.m, g)
        return _average(self.beta, m, g), state._replace(m=m)


@stabilizers.register("momentum")
@dataclass(frozen=True)
class Momentum(MovingAverage):
    """d = (1 + α) · g − α · m, then m = β · m + (1 − β) · g; m starts at g (arXiv 2602.20360, there for a velocity).

    Args:
        alpha: α > 0 extrapolates away from the average, α < 0 smooths; α = −β is `EMA` except for the start.
        beta: β.
        steps: as in `EMA`; α stays.
    """

    alpha: Annotated[float, number(-1)] = 0.5
    beta: Annotated[float, DECAY] = 0.6

    def _direct(self, g: torch.Tensor, state: Moments) -> tuple[torch.Tensor, Moments]:
        m = g if state.steps == 1 else state.m
        return (1 + self.alpha) * g - self.alpha * m, state._replace(m=_average(self.beta, m, g))


class Memoryless:
    """Base of stabilisers that use only the current gradient."""

    def __post_init__(self) -> None:
        check_fields(type(self).__name__, self)

    def init(self, gradient_like: torch.Tensor) -> None:
        return None

    def update(self, gradient: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        return self._direct(gradient), state

    def _direct(self, g: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


@stabilizers.register("sign")
@dataclass(frozen=True)
class Sign(Memoryless):
    """d = sign(g)."""

    def _direct(self, g: torch.Tensor) -> torch.Tensor:
        return g.sign()


@stabilizers.register("unit")
@dataclass(frozen=True)
class Unit(Memoryless):
    """d = g / RMS(g) per sample; 0 for g = 0."""

    def _direct(self, g: torch.Tensor) -> torch.Tensor:
        return g / rms(g)


@stabilizers.register("clip")
@dataclass(frozen=True)
class Clip(Memoryless):
    """d = min(1, r / ‖g‖) · g per sample; `radius` is r, above 0."""

    radius: Annotated[float, POSITIVE] = 1.0

    def _direct(self, g: torch.Tensor) -> torch.Tensor:
        return g * (self.radius / norm(g)).clamp(max=1)


def norm(batch: torch.Tensor) -> torch.Tensor:
    """‖·‖ per sample, N×1×1×1; at least 1e-18, below which squares vanish in float32."""
    return torch.linalg.vector_norm(batch, dim=(1, 2, 3), keepdim=True).clamp(min=1e-18)


def rms(batch: torch.Tensor) -> torch.Tensor:
    """Root of the mean square per sample, N×1×1×1."""
    return norm(batch) / batch[0].numel() ** 0.5


def make_stabilizer(section: Any) -> Stabilizer:
    """The stabiliser for a name, {name: {argument: value}} or a list of these (a chain); objects pass through."""
    if isinstance(section, list | tuple):
        return section if isinstance(section, Chain) else Chain(map(make_stabilizer, section))
    if isinstance(section, type) or not all(callable(getattr(section, name, None)) for name in ("init", "update")):
        return stabilizers.build(section)
    return section


def for_steps(stabilizer: Stabilizer | None, n: int) -> Stabilizer:
    """The stabiliser for a trajectory of n gradients; None is an empty chain. Without `for_steps` it is unchanged."""
    stabilizer = Chain() if stabilizer is None else stabilizer
    return stabilizer.for_steps(max(n, 1)) if hasattr(stabilizer, "for_steps") else stabilizer
