"""Reading of picture files with 8 bits per channel, and common rules of data sets made from them."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageFile, ImageOps
from tqdm import tqdm

from nrcg.checks import NAME, Rule, listed, one_of, one_or_two, sides, whole
from nrcg.datasets.names import one_name
from nrcg.errors import NrcgError, one_line

DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's grey modes with more than 8 bits; converting clips
BATCH, BATCH_BYTES = 256, 1 << 28  # images and bytes in memory at a time, at most

SIDE = whole(8, 65_536)
SIZE = one_or_two(SIDE)  # [height, width]
FIT = one_of("resize", "crop")
PLACE = Rule("a path", lambda value: isinstance(value, Path) or NAME.holds(value))
COLOUR = Rule(
    "a colour: a name that Pillow knows, such as white, or #rrggbb",
    lambda value: (
        isinstance(value, str)
        and (value.lower() in ImageColor.colormap or bool(re.fullmatch("#[0-9a-fA-F]{6}", value)))
    ),
)
TWO_CLASSES = Rule(
    "two different names, for the labels 0 and 1",
    lambda value: listed(NAME, 2).holds(value) and len(value) == len(set(map(one_name, value))) == 2,
)


@cache
def formats() -> tuple[str, ...]:
    """Pillow's formats, except those it only recognises or reads with another program (EPS, with Ghostscript)."""
    Image.init()
    stubs = {
        name
        for name, (factory, _) in Image.OPEN.items()
        if isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)
    }
    return tuple(name for name in Image.OPEN if name not in {*stubs, "EPS", "MPEG"})


@cache
def suffixes() -> frozenset[str]:
    """Suffixes, in lower case and with the dot, of files for `read_picture`."""
    known = {*formats(), "MPO"}  # Pillow opens it as JPEG
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in known)


def read_picture(
    file: Path | bytes,
    where: object,
    advice: str,
    *,
    mode: str = "RGB",
    upright: bool = False,
    background: str | None = None,
) -> Image.Image:
    """The first picture of a file (path or bytes) in `mode`; `upright` applies its EXIF orientation.

    Transparent pixels are composited on `background`; None drops the transparency. Raises NrcgError, which begins with
    `where` and ends with `advice`, if the picture cannot be read.
    """
    try:
        with Image.open(BytesIO(file) if not isinstance(file, Path) else file, formats=formats()) as picture:
            turned = ImageOps.exif_transpose(picture) if upright else picture
            return opaque(turned, background) if background is not None else _eight_bits(turned).convert(mode)
    except Exception as error:  # PIL raises many kinds for damaged or huge files
        raise NrcgError(f"{where}: not a readable image ({one_line(error)}); {advice}") from None


def opaque(picture: Image.Image, background: str) -> Image.Image:
    """The picture as RGB with 8 bits per channel, composited on a colour where it is transparent."""
    picture = _eight_bits(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    below = Image.new("RGBA", picture.size, background)
    return Image.alpha_composite(below, picture.convert("RGBA")).convert("RGB")


def fitted(picture: Image.Image, size: int | Sequence[int], fit: str) -> np.ndarray:
    """uint8 H×W×3 of an RGB picture, resized bilinearly with antialiasing, as in torchvision.

    "resize" is `Resize((height, width))` and does not keep the aspect ratio; "crop" keeps it: `Resize` of the side that
    is shorter relative to this size, then `CenterCrop((height, width))`.
    """
    height, width = sides(size)
    if fit == "resize":
        return resized(picture, size)
    wide = picture.width * height >= picture.height * width
    tall = height if wide else width * picture.height // picture.width
    broad = height * picture.width // picture.height if wide else width
    left, top = round((broad - width) / 2), round((tall - height) / 2)
    return resized(picture, (tall, broad))[top : top + height, left : left + width]


def resized(picture: Image.Image, size: int | Sequence[int]) -> np.ndarray:
    """uint8 H×W×3, resized as by torchvision's `Resize((height, width))`: bilinear, antialiased."""
    return np.asarray(picture.resize(sides(size)[::-1], Image.Resampling.BILINEAR))


def batches(
    make: Callable[[Any], np.ndarray],
    items: Iterable[Any],
    *,
    n: int,
    size: int | Sequence[int],
    title: str,
    threads: int,
) -> Iterator[np.ndarray]:
    """make(item), uint8 H×W×3, for `n` items in order, stacked in batches; 0 threads means one per core."""
    height, width = sides(size)
    step, items = max(1, min(BATCH, BATCH_BYTES // (3 * height * width))), iter(items)
    with ThreadPoolExecutor(threads or cores()) as pool, tqdm(total=n, desc=title, unit=" images") as bar:
        while some := list(islice(items, step)):
            yield np.stack(list(map(make, some) if threads == 1 else pool.map(make, some)))
            bar.update(len(some))


def cores() -> int:
    """Number of CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """The picture with deep grey scaled to 0…255; modes I and F define no white, so it is guessed from the values."""
    if image.mode not in DEEP:
        return image
    values = np.asarray(image).astype(np.float64)
    top = values.max(initial=0)
    if not (np.isfinite(values).all() and values.min(initial=0) >= 0 and top <= 65535):
        raise ValueError(f"grey values of mode {image.mode} outside 0 to 65535; save it with 8 bits per channel")
    white = 1 if image.mode == "F" and top <= 1 else 255 if image.mode in ("I", "F") and top <= 255 else 65535
    return Image.fromarray((values * (255 / white)).round().astype(np.uint8))
