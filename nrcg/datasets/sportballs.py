"""SportBalls: one ball on a white canvas, at a random position, size and rotation.

`icons/` holds the project's four balls, 256 pixels wide, transparent outside the circle. Bold seams and strong colours
survive a reduction to nine pixels; the shading depends only on the distance from the centre, so that rotation does not
change the lighting.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image

from nrcg.checks import NAME, SEED, check_fields, listed, maybe, number, whole
from nrcg.datasets.imageset import SPLITS, ImageSet, write_image_set
from nrcg.datasets.kinds import kinds
from nrcg.datasets.names import distinct
from nrcg.datasets.pictures import PLACE, SIDE, batches, read_picture
from nrcg.errors import NrcgError

ICONS = Path(__file__).with_name("icons")
MASTER = 256  # width in pixels of the ball before rotation and reduction; ten times that on a canvas
THREE_BALLS = ("baseball", "basketball", "soccer")
SCALES = listed(number(0, 65_536, without=(0,)))


@kinds.register("sportballs")
@dataclass(frozen=True)
class SportBalls:
    """Balls on a canvas; classes alternate, which balances them, and image i depends only on (seed, i)."""

    n: Annotated[int, whole(1)] = 100_000  # number of images; 12 288 bytes each at 64×64
    size: Annotated[int, SIDE] = 64  # width and height of the canvas in pixels
    seed: Annotated[int, SEED] = 0  # 0 … 2⁶⁴ − 1
    ball: Annotated[Sequence[str] | None, maybe(listed(NAME))] = None  # classes by label; None: all icons (ours: three)
    icons: Annotated[str | Path | None, maybe(PLACE)] = None  # folder of PNGs named after their classes; None: ours
    ball_pixels: Annotated[int, whole(1, 65_536)] = 32  # a ball is int(ball_pixels * scale) pixels wide
    scale: Annotated[Sequence[float], SCALES] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # scales, drawn uniformly
    positions: Annotated[int, whole(1)] = 32  # left and top edge of a ball are uniform on 0 … positions − 1
    valid_fraction: Annotated[float, number(0, 1, without=(1,))] = 0.2  # share of n, the last images, for validation

    def __post_init__(self) -> None:
        check_fields("sportballs", self)

    def check(self) -> list[str]:
        if min(self._diameters) < 1:
            raise NrcgError("scale: a ball would be 0 pixels wide; raise scale or ball_pixels")
        reach = self.positions - 1 + max(self._diameters)
        if reach > self.size:
            raise NrcgError(
                f"positions {self.positions}: a ball {max(self._diameters)} pixels wide would reach pixel "
                f"{reach} of a canvas of {self.size}; lower positions, ball_pixels or scale, or raise size"
            )
        if round(self.n * self.valid_fraction) == self.n:
            raise NrcgError(f"valid_fraction {self.valid_fraction}: leaves no training images of {self.n}; lower it")
        return list(self._files)

    def make(self, folder: Path, threads: int = 0) -> ImageSet:
        nearest = next(place for place in folder.absolute().joinpath("file").parents if place.is_dir())
        free, needed = shutil.disk_usage(nearest).free / 1e9, self.n * self.size**2 * 3 / 1e9
        if needed > free:
            raise NrcgError(f"{folder}: needs {needed:.3g} GB, but its disk has {free:.3g} GB free; lower n")
        split = np.full(self.n, SPLITS["train"])
        split[self.n - round(self.n * self.valid_fraction) :] = SPLITS["valid"]
        return write_image_set(
            folder,
            batches(self.image, range(self.n), n=self.n, size=self.size, title="SportBalls", threads=1),
            np.arange(self.n) % len(self._icons),
            split,
            name="sportballs",
            classes=list(self._icons),
            seed=self.seed,
            parameters={
                "ball_pixels": self.ball_pixels,
                "scales": [float(scale) for scale in self.scale],
                "positions": self.positions,
                "valid_fraction": float(self.valid_fraction),
                "icons": {name: hashlib.sha256(icon.tobytes()).hexdigest() for name, icon in self._icons.items()},
            },
        )

    def image(self, i: int) -> np.ndarray:
        """Image i, uint8 size×size×3."""
        # The raw stream of the counter-based Philox generator is stable across numpy versions.
        words = np.random.Philox(key=self.seed + (i << 64)).random_raw(4)
        ranges = (len(self._diameters), 360, self.positions, self.positions)
        scale, degrees, left, top = (int(word) * n >> 64 for word, n in zip(words, ranges, strict=True))
        sprite = self._sprite(i % len(self._masters), degrees)[scale]
        canvas = np.full((self.size, self.size, 3), 255, dtype=np.uint8)
        canvas[top : top + len(sprite), left : left + len(sprite)] = sprite
        return canvas

    @cached_property
    def _sprite(self) -> Callable[[int, int], list[np.ndarray]]:
        """The ball of a class, rotated by whole degrees, in all diameters: uint8 d×d×3 on white; cached."""

        @cache
        def sprite(label: int, degrees: int) -> list[np.ndarray]:
            turned = self._masters[label].rotate(degrees, Image.Resampling.BICUBIC, fillcolor="white")
            return [np.asarray(turned.resize((d, d), Image.Resampling.LANCZOS)) for d in self._diameters]

        return sprite

    @cached_property
    def _diameters(self) -> list[int]:
        return [int(self.ball_pixels * scale) for scale in self.scale]

    @cached_property
    def _files(self) -> dict[str, Path]:
        """The icon files by class name, in the order of the labels."""
        folder = ICONS if self.icons is None else Path(self.icons)
        if not folder.is_dir():
            raise NrcgError(f"icons {folder}: no such folder")
        there = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".png"}
        if not there:
            raise NrcgError(f"icons {folder}: holds no PNG file; put one icon per class there, named after its class")
        names = self.ball or (THREE_BALLS if self.icons is None else list(there))
        for name in names:
            if name not in there:
                raise NrcgError(f"ball: {name!r} is not among {', '.join(there)} ({self.icons or 'nrcg'})")
        return {name: there[name] for name in distinct(names, "ball")}

    @cached_property
    def _icons(self) -> dict[str, Image.Image]:
        """RGBA squares by class name; a narrow icon is padded with transparency."""
        icons = {}
        for name, path in self._files.items():
            icon = read_picture(path, path, "replace or remove it", mode="RGBA")
            icons[name] = Image.new("RGBA", (max(icon.size), max(icon.size)))
            icons[name].paste(icon, ((max(icon.size) - icon.width) // 2, (max(icon.size) - icon.height) // 2))
        return icons

    @cached_property
    def _masters(self) -> list[Image.Image]:
        """The icons as RGB on white, MASTER pixels wide; rotation cuts off everything outside the inscribed circle."""
        white = [Image.alpha_composite(Image.new("RGBA", icon.size, "white"), icon) for icon in self._icons.values()]
        return [icon.convert("RGB").resize((MASTER, MASTER), Image.Resampling.LANCZOS) for icon in white]
