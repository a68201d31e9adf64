"""Conversion between uint8 images on disk and float images in code, and between colour channels."""

import numpy as np
import torch


def to_float(images: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 N×H×W×3 in 0…255 to float32 N×3×H×W in [−1, 1]."""
    return to_device(images, device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def to_device(array: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """A copy on the device; from pinned memory, since other copies wait for all pending work of a GPU."""
    tensor = torch.from_numpy(np.array(array))  # a copy: memory maps are read-only
    tensor = tensor.pin_memory() if torch.device(device).type == "cuda" else tensor
    return tensor.to(device, non_blocking=True)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Float N×3×H×W in [−1, 1] (clamped to it) to uint8 N×H×W×3, rounded to nearest."""
    return to_pixels(images).cpu().numpy()


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """`to_uint8` as a tensor on the images' device."""
    scaled = images.float().add(1.0).mul(127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1)


LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's mode L


def to_channels(images: torch.Tensor, channels: int) -> torch.Tensor:
    """RGB images N×3×H×W in [−1, 1] with 1 (grey), 3 or 4 (opaque RGBA) channels."""
    if channels == 1:
        return torch.einsum("nchw,c->nhw", images, to_device(np.array(LUMA), images.device).to(images.dtype))[:, None]
    return images if channels == 3 else torch.cat([images, torch.ones_like(images[:, :1])], dim=1)


def to_rgb(images: torch.Tensor) -> torch.Tensor:
    """Images N×1×H×W (grey), N×3×H×W or N×4×H×W (RGBA, on white) in [−1, 1] as N×3×H×W; differentiable."""
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    if images.shape[1] == 3:
        return images
    colours, alpha = images[:, :3], (images[:, 3:] + 1) / 2
    return colours * alpha + (1 - alpha)
