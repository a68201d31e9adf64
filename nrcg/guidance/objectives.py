"""What is maximised: the objective of each sample, from a classifier's logits and the target."""

from reprlib import repr as short
from typing import Any

import torch
from torch.nn.functional import log_softmax, logsigmoid

from nrcg.errors import NrcgError

OBJECTIVES = ("log_prob", "logit")
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)


def objective_values(logits: torch.Tensor, target: int | torch.Tensor, objective: str) -> torch.Tensor:
    """The guiding objective of each sample, N values.

    log_prob   log softmax(f)_y, or for a single logit z: log σ(z) for target 1, log σ(−z) for target 0
    logit      f_y, or for a single logit: z for target 1, −z for target 0
    """
    n, n_logits = logits.shape
    target = as_target(target)
    n_classes = max(n_logits, 2)
    if target.ndim == 1 and len(target) != n:
        raise NrcgError(f"guidance: target holds {len(target)} classes for {n} samples; give an int, or one per sample")
    if target.numel() and (target.min() < 0 or target.max() >= n_classes):
        raise NrcgError(f"guidance: target {target.tolist()} is not among the classifier's classes 0…{n_classes - 1}")
    target = target.expand(n).to(logits.device)
    if n_logits == 1:
        signed = torch.where(target == 1, logits[:, 0], -logits[:, 0])
        return logsigmoid(signed) if objective == "log_prob" else signed
    scores = log_softmax(logits, dim=1) if objective == "log_prob" else logits
    return scores.gather(1, target[:, None])[:, 0]


def as_target(target: Any) -> torch.Tensor:
    """A LongTensor on the CPU, scalar or N; kept there so that checking it never waits for a GPU."""
    try:
        indices = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        indices = None
    if indices is None or indices.ndim > 1 or indices.dtype not in INTEGERS:
        raise NrcgError(f"guidance: target is {short(target)}; it must be a class index, or one per sample")
    return indices.detach().to("cpu", torch.long, copy=True)
