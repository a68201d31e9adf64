"""The one place where uint8 images on disk become float images in code, and back."""

import numpy as np
import torch


def to_float(images: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 N×H×W×3 in 0…255 to float32 N×3×H×W in [−1, 1]."""
    tensor = torch.from_numpy(np.array(images)).to(device)  # a copy: memory maps are read-only
    return tensor.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Float N×3×H×W in [−1, 1] (clamped to it) to uint8 N×H×W×3, rounded to nearest."""
    scaled = images.float().add(1.0).mul(127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
