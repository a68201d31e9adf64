"""What is maximised: one value for each image, from a classifier's logits and the target."""

from collections.abc import Callable
from reprlib import repr as short
from typing import Any

import torch
from torch.nn.functional import log_softmax, logsigmoid

from nrcg.errors import NrcgError
from nrcg.registry import Registry

Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (logits N×C or N×1, target int64 N) → N values
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)

objectives = Registry("objective")


@objectives.register("log_prob")
def log_prob(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """log p(y | image): log softmax(f)_y, or for a single logit z: log σ(z) for target 1, log σ(−z) for target 0."""
    return logsigmoid(logit(logits, target)) if logits.shape[1] == 1 else logit(log_softmax(logits, dim=1), target)


@objectives.register("logit")
def logit(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The target's logit f_y, or for a single logit: z for target 1, −z for target 0."""
    if logits.shape[1] == 1:
        return torch.where(target == 1, logits[:, 0], -logits[:, 0])
    return logits.gather(1, target[:, None])[:, 0]


def objective_values(logits: torch.Tensor, target: Any, objective: str | Objective) -> torch.Tensor:
    """The objective of each image, N values, from logits N×C or N×1 and a class index or N of them."""
    (n, n_logits), target = logits.shape, as_target(target)
    last = max(n_logits, 2) - 1
    if target.ndim == 1 and len(target) != n:
        raise NrcgError(f"guidance: target holds {len(target)} classes for {n} samples; give an int, or one per sample")
    if target.numel() and (target.min() < 0 or target.max() > last):
        raise NrcgError(f"guidance: target {target.tolist()} is not among the classifier's classes 0…{last}")
    values = as_objective(objective)(logits, target.expand(n).to(logits.device))
    if not isinstance(values, torch.Tensor) or values.shape != (n,):
        found = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise NrcgError(f"objective: {name_of(objective)} returned {found} for {n} images; return one for each, N")
    return values


def as_objective(objective: str | Objective) -> Objective:
    """The function of a registered name, or the function given."""
    return objective if callable(objective) else objectives[objective]


def name_of(objective: str | Objective) -> str:
    """What to call an objective in one line."""
    return objective if isinstance(objective, str) else getattr(objective, "__name__", type(objective).__name__)


def as_target(target: Any) -> torch.Tensor:
    """A LongTensor on the CPU, scalar or N; kept there so that checking it never waits for a GPU."""
    try:
        indices = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        indices = None
    if indices is None or indices.ndim > 1 or indices.dtype not in INTEGERS:
        raise NrcgError(f"guidance: target is {short(target)}; it must be a class index, or one per sample")
    return indices.detach().to("cpu", torch.long, copy=True)
