"""Stabilisers: what smooths the guidance gradient along a trajectory (eq. 7 and 8).

They are pure, in the style of optax: constants in a frozen object, history in a state that is passed around.

    state = stabilizer.init(gradient)                       # zero, at the start of every trajectory
    direction, state = stabilizer.update(gradient, state)   # once a step, from t = T down

State and direction have the gradient's shape and its precision, but never less than float32. Everything is
elementwise, so one sample's history never touches another's.
"""

from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, Protocol

import torch

from nrcg.errors import NrcgError


class Stabilizer(Protocol):
    """Anything with these two methods can be given as `stabilizer`."""

    def init(self, gradient_like: torch.Tensor) -> Any: ...

    def update(self, gradient: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]: ...


class Moments(NamedTuple):
    """History of a trajectory: steps taken, first moment, and for Adam the second."""

    steps: int
    m: torch.Tensor
    v: torch.Tensor | None = None


@dataclass(frozen=True)
class Identity:
    """No stabiliser: the direction is the gradient."""

    def init(self, gradient_like: torch.Tensor) -> None:
        return None

    def update(self, gradient: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        return gradient, state


@dataclass(frozen=True)
class EMA:
    """Exponential moving average (eq. 7): m_t = β · m_{t+1} + (1 − β) · g_t, used instead of g_t; m starts at 0.

    Without bias correction, as in the paper: early steps carry no signal and are pulled toward zero. With it, m_t is
    divided by 1 − β^k at the k-th step.

    Raises NrcgError unless 0 ≤ beta < 1 and bias_correction is a bool.
    """

    beta: float = 0.99
    bias_correction: bool = False

    def __post_init__(self) -> None:
        _check_decay("EMA", "beta", self.beta)
        check_flag("EMA", "bias_correction", self.bias_correction)

    def init(self, gradient_like: torch.Tensor) -> Moments:
        return Moments(0, _zeros(gradient_like))

    def update(self, gradient: torch.Tensor, state: Moments) -> tuple[torch.Tensor, Moments]:
        steps = state.steps + 1
        m = self.beta * state.m + (1 - self.beta) * gradient.to(state.m.dtype)
        direction = m / (1 - self.beta**steps) if self.bias_correction else m
        return direction, Moments(steps, m)


@dataclass(frozen=True)
class Adam:
    """Adam's direction (eq. 8): m_t / (√v_t + η), with η = eps and both moments starting at 0:

        m_t = β1 · m_{t+1} + (1 − β1) · g_t
        v_t = β2 · v_{t+1} + (1 − β2) · g_t²

    Without bias correction, as in the paper. With it, m_t and v_t are divided by 1 − β1^k and 1 − β2^k at the k-th
    step, as in Kingma and Ba.

    Raises NrcgError unless 0 ≤ beta1, beta2 < 1, 0 < eps < ∞ and bias_correction is a bool.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-4
    bias_correction: bool = False

    def __post_init__(self) -> None:
        _check_decay("Adam", "beta1", self.beta1)
        _check_decay("Adam", "beta2", self.beta2)
        if not (is_number(self.eps) and 0 < self.eps < float("inf")):
            raise NrcgError(f"Adam: eps is {self.eps!r}; it must be a finite number above 0")
        check_flag("Adam", "bias_correction", self.bias_correction)

    def init(self, gradient_like: torch.Tensor) -> Moments:
        return Moments(0, _zeros(gradient_like), _zeros(gradient_like))

    def update(self, gradient: torch.Tensor, state: Moments) -> tuple[torch.Tensor, Moments]:
        steps = state.steps + 1
        gradient = gradient.to(state.m.dtype)  # squares of half-precision gradients would vanish
        m = self.beta1 * state.m + (1 - self.beta1) * gradient
        v = self.beta2 * state.v + (1 - self.beta2) * gradient.square()
        m_hat, v_hat = m, v
        if self.bias_correction:
            m_hat, v_hat = m / (1 - self.beta1**steps), v / (1 - self.beta2**steps)
        return m_hat / (v_hat.sqrt() + self.eps), Moments(steps, m, v)


def is_number(value: Any, kind: type = Real) -> bool:
    """Whether `value` is a number of this kind, Python's or NumPy's; True and False are none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def check_flag(kind: str, name: str, value: Any) -> None:
    """Raises NrcgError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise NrcgError(f"{kind}: {name} is {value!r}; it must be True or False")


def _check_decay(kind: str, name: str, value: Any) -> None:
    if not (is_number(value) and 0 <= value < 1):
        raise NrcgError(f"{kind}: {name} is {value!r}; it must be a number, at least 0 and below 1")


def _zeros(like: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))
