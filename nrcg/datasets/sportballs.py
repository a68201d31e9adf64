"""SportBalls: one ball on a white canvas, at a random place, size and rotation."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from nrcg.checks import SEED, Rule, check, listed, maybe, number, whole
from nrcg.datasets.balls import BALLS, draw_ball, load_icons
from nrcg.datasets.imageset import SPLITS, ImageSet, write_image_set
from nrcg.errors import NrcgError

MASTER = 256  # pixels across the ball that is turned and then reduced; ten times what ends on a canvas
THREE_BALLS = ("baseball", "basketball", "soccer")
SCALES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
BATCH = 1000  # images held at a time
TEXT = Rule("a text", lambda value: isinstance(value, str))
RULES = {
    "n": whole(1),
    "size": whole(1),
    "seed": SEED,
    "balls": maybe(listed(TEXT)),
    "icons": maybe(Rule("a path", lambda value: isinstance(value, str | Path))),
    "ball_pixels": whole(1),
    "scales": listed(number(0, without=(0,))),
    "positions": whole(1),
    "valid_fraction": number(0, 1, without=(1,)),
}


class SportBalls:
    """Draws image i from (seed, i) alone; the sprites it needs on the way are kept.

    icons        RGBA squares by class name; the order gives the labels
    size         canvas width and height, pixels
    seed         0 … 2⁶⁴ − 1
    ball_pixels  ball diameter at scale 1; a ball is drawn int(ball_pixels * scale) pixels wide
    scales       drawn from uniformly
    positions    left and top edge of the ball are each uniform on 0 … positions − 1

    Raises NrcgError when a ball could cross the canvas's edge.
    """

    def __init__(
        self,
        icons: dict[str, Image.Image],
        *,
        size: int = 64,
        seed: int = 0,
        ball_pixels: int = 32,
        scales: Sequence[float] = SCALES,
        positions: int = 32,
    ):
        drawn = {"size": size, "seed": seed, "ball_pixels": ball_pixels, "scales": scales, "positions": positions}
        check("sportballs", drawn, RULES)
        self.classes = tuple(icons)
        self.size, self.seed, self.positions = size, seed, positions
        self.diameters = tuple(int(ball_pixels * scale) for scale in scales)
        self._check()
        self._masters = [_on_white(icon) for icon in icons.values()]
        self._sprites: dict[tuple[int, int], list[np.ndarray]] = {}

    def _check(self) -> None:
        if not self.diameters or min(self.diameters) < 1:
            raise NrcgError("scales: none, or one that draws a ball of no pixel; raise it or ball_pixels")
        reach = self.positions - 1 + max(self.diameters)
        if reach > self.size:
            raise NrcgError(
                f"positions {self.positions}: with a ball {max(self.diameters)} pixels wide a ball would reach pixel "
                f"{reach} of a canvas of {self.size}; lower positions, ball_pixels or scales, or raise size"
            )

    def label(self, i: int) -> int:
        """Class of image i: the classes take turns, which balances them exactly."""
        return i % len(self.classes)

    def image(self, i: int) -> np.ndarray:
        """Image i, uint8 size×size×3."""
        canvas = np.full((self.size, self.size, 3), 255, dtype=np.uint8)
        self.paint(i, canvas)
        return canvas

    def paint(self, i: int, canvas: np.ndarray) -> None:
        """Put the ball of image i on `canvas`, uint8 size×size×3, white."""
        # One block of the counter-based Philox generator, whose raw stream numpy keeps from version to version.
        words = np.random.Philox(key=self.seed + (i << 64)).random_raw(4)
        ranges = (len(self.diameters), 360, self.positions, self.positions)
        scale, degrees, left, top = (int(word) * n >> 64 for word, n in zip(words, ranges, strict=True))
        sprite = self._sprite(self.label(i), degrees)[scale]
        canvas[top : top + len(sprite), left : left + len(sprite)] = sprite

    def _sprite(self, label: int, degrees: int) -> list[np.ndarray]:
        """The ball, turned, in all diameters: uint8 d×d×3, on white."""
        if (label, degrees) not in self._sprites:
            turned = self._masters[label].rotate(degrees, Image.Resampling.BICUBIC, fillcolor="white")
            sizes = [turned.resize((d, d), Image.Resampling.LANCZOS) for d in self.diameters]
            self._sprites[label, degrees] = [np.asarray(image) for image in sizes]
        return self._sprites[label, degrees]


def _on_white(icon: Image.Image) -> Image.Image:
    """An RGBA icon as RGB on white, MASTER pixels wide: on a white canvas nothing needs to be blended later.

    What lies outside the icon's inscribed circle is cut off as it turns; a ball has nothing there.
    """
    white = Image.new("RGBA", icon.size, "white")
    return Image.alpha_composite(white, icon).convert("RGB").resize((MASTER, MASTER), Image.Resampling.LANCZOS)


def choose_icons(balls: Sequence[str] | None, folder: str | Path | None) -> dict[str, Image.Image]:
    """The icons of `balls`, in that order, drawn, or from a folder of PNGs; None is all there are, sorted.

    Raises NrcgError for a ball named twice or not there.
    """
    found = load_icons(folder) if folder is not None else None
    names = _chosen_names(balls, BALLS if found is None else tuple(found), folder)
    return {ball: draw_ball(ball, MASTER) if found is None else found[ball] for ball in names}


def _chosen_names(balls: Sequence[str] | None, there: Sequence[str], folder: str | Path | None) -> Sequence[str]:
    balls = there if balls is None else tuple(balls)
    for ball in balls:
        if ball not in there:
            raise NrcgError(f"balls: {ball!r} is not among {', '.join(there)} ({folder or 'drawn by nrcg'})")
    if not balls or len(set(balls)) < len(balls):
        raise NrcgError(f"balls {', '.join(balls) or '(none)'}: name each class once, and at least one")
    return balls


def check_sportballs(**arguments: Any) -> None:
    """Raise NrcgError for arguments of `generate` that it would refuse; draws nothing."""
    check("sportballs", arguments, RULES)
    folder = arguments.get("icons")
    there = BALLS if folder is None else tuple(load_icons(folder))
    _chosen_names(arguments.get("balls", THREE_BALLS), there, folder)
    drawn = ("size", "seed", "ball_pixels", "scales", "positions")
    SportBalls({}, **{key: arguments[key] for key in drawn if key in arguments})


def _batches(painter: SportBalls, n: int) -> Iterator[np.ndarray]:
    """The first `n` images, uint8 BATCH×size×size×3 at a time."""
    with tqdm(total=n, desc="SportBalls", unit=" images") as bar:
        for start in range(0, n, BATCH):
            batch = np.full((min(BATCH, n - start), painter.size, painter.size, 3), 255, dtype=np.uint8)
            for i, canvas in enumerate(batch, start):
                painter.paint(i, canvas)
                bar.update()
            yield batch


def generate(
    folder: str | Path,
    *,
    n: int,  # images; 12 288 bytes each at 64×64
    size: int = 64,
    seed: int = 0,
    balls: Sequence[str] | None = THREE_BALLS,  # classes in label order; None is all there are
    icons: str | Path | None = None,  # a folder of PNGs instead of the project's own balls
    ball_pixels: int = 32,
    scales: Sequence[float] = SCALES,
    positions: int = 32,
    valid_fraction: float = 0.2,  # of n, the last images: the validation split
) -> ImageSet:
    """Write a SportBalls image set; the other parameters are SportBalls's. Raises NrcgError for values that clash."""
    check("sportballs", {"n": n, "valid_fraction": valid_fraction}, RULES)
    chosen = choose_icons(balls, icons)
    drawn = {"ball_pixels": ball_pixels, "scales": list(scales), "positions": positions}
    painter = SportBalls(chosen, size=size, seed=seed, **drawn)
    split = np.full(n, SPLITS["train"])
    split[n - round(n * valid_fraction) :] = SPLITS["valid"]
    digests = {name: hashlib.sha256(icon.tobytes()).hexdigest() for name, icon in chosen.items()}
    return write_image_set(
        folder,
        _batches(painter, n),
        np.arange(n) % len(chosen),
        split,
        name="sportballs",
        classes=tuple(chosen),
        seed=seed,
        parameters={**drawn, "valid_fraction": valid_fraction, "icons": digests},
    )
