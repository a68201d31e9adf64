"""Images laid out side by side. Needs no torch, so that what only draws starts fast."""

import numpy as np


def grid(images: np.ndarray, columns: int, pad: int = 1, background: int = 200) -> np.ndarray:
    """uint8 N×H×W×3 laid out row by row with `pad` pixels between; returns one uint8 H'×W'×3 image."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    shape = (rows * (height + pad) + pad, columns * (width + pad) + pad, channels)
    sheet = np.full(shape, background, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = pad + (i // columns) * (height + pad), pad + (i % columns) * (width + pad)
        sheet[top : top + height, left : left + width] = image
    return sheet
