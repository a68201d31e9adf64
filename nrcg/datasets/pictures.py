"""Picture files of others, as 8 bits a channel, and the rules that data sets made of them share."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from nrcg.checks import NAME, Rule, listed, whole
from nrcg.errors import NrcgError, one_line

DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's grey modes of more than 8 bits, whose conversion clips
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow knows others, some of which start other programs
BATCH, BATCH_BYTES = 256, 1 << 28  # most that is held at a time: images, bytes

SIDE = whole(8, 65_536)
PLACE = Rule("a path", lambda value: isinstance(value, Path) or NAME.holds(value))
TWO_CLASSES = Rule(
    "two different names, for the labels 0 and 1",
    lambda value: listed(NAME, 2).holds(value) and len(value) == len(set(value)) == 2,
)


def read_picture(
    file: Path | bytes, where: object, advice: str, *, mode: str = "RGB", upright: bool = False
) -> Image.Image:
    """A picture, from a path or its encoded bytes, in `mode`; `upright` turns it as its EXIF note says.

    Raises NrcgError, which begins with `where` and ends with `advice`, for one that cannot be read.
    """
    try:
        with Image.open(BytesIO(file) if not isinstance(file, Path) else file, formats=FORMATS) as picture:
            return _eight_bits(ImageOps.exif_transpose(picture) if upright else picture).convert(mode)
    except Exception as error:  # PIL raises half a dozen kinds for a damaged file, or one of too many pixels
        raise NrcgError(f"{where}: not a readable image ({one_line(error)}); {advice}") from None


def resized(picture: Image.Image, size: int) -> np.ndarray:
    """uint8 size×size×3: straight to that size, bilinear and antialiased, as torchvision's `Resize((size, size))`."""
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))


def batches(
    make: Callable[[Any], np.ndarray], items: Iterable[Any], *, n: int, size: int, title: str, threads: int
) -> Iterator[np.ndarray]:
    """What `make` makes of each of `n` items, uint8 size×size×3, in order and stacked; 0 threads are one a core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    step, items = max(1, min(BATCH, BATCH_BYTES // (3 * size**2))), iter(items)
    with ThreadPoolExecutor(threads or cores) as pool, tqdm(total=n, desc=title, unit=" images") as bar:
        while some := list(islice(items, step)):
            yield np.stack(list(map(make, some) if threads == 1 else pool.map(make, some)))
            bar.update(len(some))


def _eight_bits(image: Image.Image) -> Image.Image:
    """The picture, grey of more than 8 bits scaled to 0…255: I and F have no white of their own, so the values tell."""
    if image.mode not in DEEP:
        return image
    values = np.asarray(image).astype(np.float64)
    top = values.max(initial=0)
    if not (np.isfinite(values).all() and values.min(initial=0) >= 0 and top <= 65535):
        raise ValueError(f"grey values of mode {image.mode} outside 0 to 65535; save it with 8 bits a channel")
    white = 1 if image.mode == "F" and top <= 1 else 255 if image.mode in ("I", "F") and top <= 255 else 65535
    return Image.fromarray((values * (255 / white)).round().astype(np.uint8))
