"""Direction: stabilisers, which smooth the guidance gradient along a trajectory (eq. 7 and 8), elementwise.

Pure, in the style of optax: constants in a frozen object, history in a state that is passed around.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple, Protocol

import torch

from nrcg.checks import FLAG, check_fields, maybe, number, whole
from nrcg.registry import Registry

DECAY = number(0, 1, without=(1,))

stabilizers = Registry("stabilizer")


class Stabilizer(Protocol):
    """Anything with these methods; it may have a third, `for_steps(n)`: itself for a trajectory of n gradients."""

    def init(self, gradient_like: torch.Tensor) -> Any:
        """The state at the start of a trajectory; N×3×H×W is the shape of its gradients."""

    def update(self, gradient: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """Direction (N×3×H×W) and new state, at every guided step from t = T down; `state` itself is left alone."""


class Moments(NamedTuple):
    """History of a trajectory: steps taken, first and second moment (of `Adam` alone)."""

    steps: int
    m: torch.Tensor
    v: torch.Tensor


class Identity:
    """No stabiliser: the direction is the gradient."""

    def init(self, gradient_like: torch.Tensor) -> None:
        return None

    def update(self, gradient: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        return gradient, state


@dataclass(frozen=True)
class MovingAverage:
    """Base of averages that start at 0; their decays are the fields `beta…`."""

    bias_correction: Annotated[bool, FLAG] = field(default=False, kw_only=True)
    steps: Annotated[int | None, maybe(whole(1))] = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_fields(type(self).__name__, self)

    def init(self, gradient_like: torch.Tensor) -> Moments:
        zeros = torch.zeros_like(gradient_like, dtype=torch.promote_types(gradient_like.dtype, torch.float32))
        return Moments(0, zeros, zeros)

    def for_steps(self, n: int) -> "MovingAverage":
        """With `steps`, the average that remembers the same share of n steps: β' = β^(steps/n); else this one."""
        if self.steps is None:
            return self
        decays = {name: beta ** (self.steps / n) for name, beta in vars(self).items() if name.startswith("beta")}
        return replace(self, steps=n, **decays)


@stabilizers.register("ema")
@dataclass(frozen=True)
class EMA(MovingAverage):
    """Exponential moving average (eq. 7): m_t = β · m_{t+1} + (1 − β) · g_t, used instead of g_t; m starts at 0.

    Args:
        beta: β, at least 0 and below 1.
        bias_correction: divide m_t by 1 − β^k at the k-th step. Without it, as in the paper, early steps carry no
            signal and are pulled toward zero.
        steps: number of guided steps that β is meant for, rescaled to those at hand; None takes β as it is.
    """

    beta: Annotated[float, DECAY] = 0.99

    def update(self, gradient: torch.Tensor, state: Moments) -> tuple[torch.Tensor, Moments]:
        steps = state.steps + 1
        m = self.beta * state.m + (1 - self.beta) * gradient.to(state.m.dtype)
        return m / (1 - self.beta**steps) if self.bias_correction else m, Moments(steps, m, state.v)


@stabilizers.register("adam")
@dataclass(frozen=True)
class Adam(MovingAverage):
    """Adam's direction (eq. 8): m_t / (√v_t + η), with m_t as in eq. 7 and v_t = β2 · v_{t+1} + (1 − β2) · g_t².

    Args:
        beta1: decay of m, at least 0 and below 1.
        beta2: decay of v, at least 0 and below 1.
        eps: η, above 0.
        bias_correction: divide m_t and v_t by 1 − β^k at the k-th step, as Kingma and Ba do, and the paper does not.
        steps: number of guided steps that both decays are meant for, as of `EMA`.
    """

    beta1: Annotated[float, DECAY] = 0.9
    beta2: Annotated[float, DECAY] = 0.999
    eps: Annotated[float, number(0, without=(0,))] = 1e-4

    def update(self, gradient: torch.Tensor, state: Moments) -> tuple[torch.Tensor, Moments]:
        steps = state.steps + 1
        gradient = gradient.to(state.m.dtype)  # squares of half-precision gradients would vanish
        m = m_hat = self.beta1 * state.m + (1 - self.beta1) * gradient
        v = v_hat = self.beta2 * state.v + (1 - self.beta2) * gradient.square()
        if self.bias_correction:
            m_hat, v_hat = m / (1 - self.beta1**steps), v / (1 - self.beta2**steps)
        return m_hat / (v_hat.sqrt() + self.eps), Moments(steps, m, v)


def for_steps(stabilizer: Stabilizer | None, n: int) -> Stabilizer:
    """The stabiliser for a trajectory of n gradients; None is `Identity`, one without `for_steps` is used as it is."""
    if stabilizer is None:
        return Identity()
    return stabilizer.for_steps(n) if hasattr(stabilizer, "for_steps") else stabilizer
