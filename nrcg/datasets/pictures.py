"""Picture files of others, as 8 bits a channel."""

import numpy as np
from PIL import Image

DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's grey modes of more than 8 bits, whose conversion clips
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow knows others, some of which start other programs


def eight_bits(image: Image.Image) -> Image.Image:
    """A picture of any mode, with grey of more than 8 bits scaled to 0…255; other modes are returned as they are.

    White is 65535 in 16 bits. Values of the modes I and F have no white of their own: it is 1 where none is above 1
    (F), 255 where none is above 255, and 65535 else. Raises ValueError for values that are negative, above 65535 or not
    finite.
    """
    if image.mode not in DEEP:
        return image
    values = np.asarray(image).astype(np.float64)
    top = values.max(initial=0)
    if not (np.isfinite(values).all() and values.min(initial=0) >= 0 and top <= 65535):
        raise ValueError(f"grey values of mode {image.mode} outside 0 to 65535; save it with 8 bits a channel")
    white = 255 if image.mode in ("I", "F") and top <= 255 else 65535
    white = 1 if image.mode == "F" and top <= 1 else white
    return Image.fromarray((values * (255 / white)).round().astype(np.uint8))


def one_line(error: Exception) -> str:
    """What another library says, as one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
