"""Where the networks run."""

import torch

from nrcg.errors import NrcgError


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA when there is one, else the CPU. Raises NrcgError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise NrcgError(f"--device {name}: unknown; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise NrcgError(f"--device {name}: this machine shows no CUDA device; use --device auto or cpu")
    return device
