"""Objectives to maximise: one value per image, from a classifier's logits and the target or from any function."""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import nn
from torch.nn.functional import log_softmax, logsigmoid, softplus

from nrcg.checks import number
from nrcg.diffusion.denoise import class_indices
from nrcg.errors import NrcgError
from nrcg.registry import Registry

Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (logits N×C or N×1, target int64 N) → N values
Value = Callable[[torch.Tensor], torch.Tensor]  # images N×C×H×W in [−1, 1] → N values

objectives = Registry("objective")


@objectives.register("log_prob")
def log_prob(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """log p(y | image): log softmax(f)_y; for a single logit z, log σ(z) for target 1 and log σ(−z) for target 0."""
    return logsigmoid(logit(logits, target)) if logits.shape[1] == 1 else logit(log_softmax(logits, dim=1), target)


@objectives.register("logit")
def logit(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The target's logit f_y; for a single logit z, z for target 1 and −z for target 0."""
    if logits.shape[1] == 1:
        return torch.where(target == 1, logits[:, 0], -logits[:, 0])
    return logits.gather(1, target[:, None])[:, 0]


@objectives.register("tempered")
def tempered(
    logits: torch.Tensor,
    target: torch.Tensor,
    tau1: Annotated[float, number(0)] = 1.0,
    tau2: Annotated[float, number(0)] = 0.5,
) -> torch.Tensor:
    """log(e^{τ1·f_y} / Σ_i e^{τ2·f_i}) (EluCD, ICLR 2024); (1, 1) is log p, (1, 0) the logit minus log C.

    A single logit z counts as two, 0 and z. `tau1` and `tau2` are τ1 and τ2, at least 0.
    """
    if logits.shape[1] == 1:
        f_y = logit(logits, target)
        return tau1 * f_y - softplus(tau2 * f_y)
    return tau1 * logit(logits, target) - (tau2 * logits).logsumexp(1)


class ClassValue(nn.Module):
    """A classifier's score of a class: images N×C×H×W in [−1, 1] → N values.

    Args:
        classifier: any module from images to logits N×C, or N×1 if binary.
        target: class index, or N of them, one per sample; binary: 1 is positive, 0 negative.
        objective: "log_prob", "logit", another name registered in `objectives`, or a function (logits, target) → N
            values.

    Raises:
        NrcgError: for an invalid target or objective; when called, also for logits of another shape, a target outside
            their classes, and an objective that does not return N values.
    """

    def __init__(self, classifier: nn.Module, target: Any, objective: str | Objective = "log_prob") -> None:
        super().__init__()
        self.classifier, self.target, self.objective = classifier, class_indices(target, "guidance: target"), objective
        self._fitted: tuple[Any, Any] = (None, None)
        as_objective(objective)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.evaluate(images)[0]

    def evaluate(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The values and their logits, in the images' precision."""
        logits = self._logits(images)
        key = *logits.shape, logits.device
        if self._fitted[0] != key:  # once per trajectory: a copy to a GPU waits for the GPU
            self._fitted = key, fitted(self.target, *key)
        return one_each(as_objective(self.objective)(logits, self._fitted[1]), len(images), self.objective), logits

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        """Logits N×C of a copy of the images, which the classifier may change in place."""
        dtype = next((p.dtype for p in self.classifier.parameters() if p.is_floating_point()), images.dtype)
        logits = self.classifier(images.to(dtype, copy=True))
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(images):
            found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise NrcgError(
                f"classifier: returned {found} for {len(images)} images instead of logits N×C or N×1; try nrcg.adapt"
            )
        return logits.to(images.dtype)


class WeightedSum(nn.Module):
    """A weighted sum of values, such as "attribute A and not B": images N×C×H×W in [−1, 1] → N values.

    Args:
        terms: pairs of a weight (negative to avoid something) and a value: a `ClassValue` or any other function from
            images to N values.
    """

    def __init__(self, *terms: tuple[float, Value]) -> None:
        super().__init__()
        wrong = not terms or any(
            not (isinstance(term, tuple) and len(term) == 2 and number().holds(term[0]) and callable(term[1]))
            for term in terms
        )
        if wrong:
            raise NrcgError("WeightedSum: give pairs (weight, function from images to N values), at least one")
        self.weights, self.values = [float(weight) for weight, _ in terms], [value for _, value in terms]
        self.networks = nn.ModuleList(value for value in self.values if isinstance(value, nn.Module))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        terms = zip(self.weights, self.values, strict=True)
        return torch.stack([weight * one_each(value(images), len(images), value) for weight, value in terms]).sum(0)


def fitted(target: torch.Tensor, n: int, n_logits: int, device: torch.device) -> torch.Tensor:
    """The target of each of n images, N on the device; refuses classes that the logits lack."""
    last = max(n_logits, 2) - 1
    if target.ndim == 1 and len(target) != n:
        raise NrcgError(f"guidance: target holds {len(target)} classes for {n} samples; give an int, or one per sample")
    if target.numel() and (target.min() < 0 or target.max() > last):
        raise NrcgError(f"guidance: target {target.tolist()} is not among the classifier's classes 0…{last}")
    return target.expand(n).to(device, copy=True)  # a copy: the target may be an inference tensor


def one_each(values: Any, n: int, of: Any) -> torch.Tensor:
    """The values of n images, N; refuses another shape."""
    if not isinstance(values, torch.Tensor) or values.shape != (n,):
        found = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise NrcgError(f"objective: {name_of(of)} returned {found} for {n} images; return one value per image, N")
    return values


def as_objective(objective: str | Objective) -> Objective:
    """The function for a registered name or {name: {argument: value}}; functions pass through."""
    return objective if callable(objective) else objectives.choose(objective, given=2)


def name_of(objective: str | Callable) -> str:
    """The name of an objective, for messages."""
    return objective if isinstance(objective, str) else getattr(objective, "__name__", type(objective).__name__)
