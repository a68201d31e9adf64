"""SportBalls: one ball on a white canvas, at a random place, size and rotation."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from nrcg.checks import NAME, SEED, check, listed, number, whole
from nrcg.datasets.balls import BALLS, draw_ball, icon_files, load_icons
from nrcg.datasets.imageset import SPLITS, ImageSet, write_image_set
from nrcg.errors import NrcgError

MASTER = 256  # pixels across the ball that is turned and then reduced; ten times what ends on a canvas
THREE_BALLS = ("baseball", "basketball", "soccer")
SCALES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
BATCH, BATCH_BYTES = 1000, 1 << 28  # most that is held at a time: images, bytes
RULES = {
    "n": whole(1),
    "size": whole(1, 65_536),
    "seed": SEED,
    "ball_pixels": whole(1, 65_536),
    "scales": listed(number(0, 65_536, without=(0,))),
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

    Raises NrcgError for values of another kind, and when a ball could cross the canvas's edge.
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
        self.classes = tuple(icons)
        self.size, self.seed, self.positions = size, seed, positions
        _check_painter(size=size, seed=seed, ball_pixels=ball_pixels, scales=scales, positions=positions)
        self.diameters = _diameters(ball_pixels, scales)
        self._masters = [_on_white(icon) for icon in icons.values()]
        self._sprites: dict[tuple[int, int], list[np.ndarray]] = {}

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


def _diameters(ball_pixels: int, scales: Sequence[float]) -> tuple[int, ...]:
    return tuple(int(ball_pixels * scale) for scale in scales)


def _check_painter(**drawn: Any) -> None:
    """Raise NrcgError unless SportBalls takes these values."""
    check("sportballs", drawn, {key: rule for key, rule in RULES.items() if key in drawn})
    diameters, positions = _diameters(drawn["ball_pixels"], drawn["scales"]), drawn["positions"]
    if min(diameters) < 1:
        raise NrcgError("scales: one draws a ball of no pixel; raise it or ball_pixels")
    reach = positions - 1 + max(diameters)
    if reach > drawn["size"]:
        raise NrcgError(
            f"positions {positions}: with a ball {max(diameters)} pixels wide a ball would reach pixel "
            f"{reach} of a canvas of {drawn['size']}; lower positions, ball_pixels or scales, or raise size"
        )


def check_arguments(
    *,
    n: int,
    size: int = 64,
    seed: int = 0,
    balls: Sequence[str] | None = THREE_BALLS,
    icons: str | Path | None = None,
    ball_pixels: int = 32,
    scales: Sequence[float] = SCALES,
    positions: int = 32,
    valid_fraction: float = 0.2,
) -> tuple[str, ...]:
    """Raise NrcgError, which names the key, for arguments that `generate` refuses; draws nothing, and opens no icon.

    Returns the names of the classes.
    """
    check("sportballs", {"n": n, "valid_fraction": valid_fraction}, RULES)
    _check_painter(size=size, seed=seed, ball_pixels=ball_pixels, scales=scales, positions=positions)
    if round(n * valid_fraction) == n:
        raise NrcgError(f"valid_fraction {valid_fraction}: leaves no image of {n} to train with; lower it")
    return _ball_names(balls, icons)


def _ball_names(balls: Sequence[str] | None, folder: str | Path | None) -> tuple[str, ...]:
    there = BALLS if folder is None else tuple(path.stem for path in icon_files(folder))
    if balls is None:
        return there
    if not listed(NAME).holds(balls):
        raise NrcgError(f"balls {balls!r}: give a list of names; there are {', '.join(there)}")
    for ball in balls:
        if ball not in there:
            raise NrcgError(f"balls: {ball!r} is not among {', '.join(there)} ({folder or 'drawn by nrcg'})")
    if len(set(balls)) < len(balls):
        raise NrcgError(f"balls {', '.join(balls)}: name each class once")
    return tuple(balls)


def choose_icons(balls: Sequence[str] | None, folder: str | Path | None) -> dict[str, Image.Image]:
    """The icons of `balls`, in that order, drawn, or from a folder of PNGs; None is all there are, sorted.

    Raises NrcgError for a ball named twice or not there, and for an icon that cannot be read.
    """
    names = _ball_names(balls, folder)
    if folder is None:
        return {ball: draw_ball(ball, MASTER) for ball in names}
    found = load_icons(folder)
    return {ball: found[ball] for ball in names}


def _check_room(folder: str | Path, n_bytes: int) -> None:
    """Raise NrcgError when the disk of `folder` has no room for so many bytes."""
    nearest = next(place for place in Path(folder).absolute().joinpath("file").parents if place.is_dir())
    free = shutil.disk_usage(nearest).free
    if n_bytes > free:
        raise NrcgError(
            f"{folder}: {n_bytes / 1e9:.3g} GB of images, but its disk has {free / 1e9:.3g} GB free; lower n"
        )


def _batches(painter: SportBalls, n: int) -> Iterator[np.ndarray]:
    """The first `n` images, uint8 b×size×size×3 at a time."""
    step = max(1, min(BATCH, BATCH_BYTES // (3 * painter.size**2)))
    with tqdm(total=n, desc="SportBalls", unit=" images") as bar:
        for start in range(0, n, step):
            batch = np.full((min(step, n - start), painter.size, painter.size, 3), 255, dtype=np.uint8)
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
    drawn = {"ball_pixels": ball_pixels, "scales": scales, "positions": positions}
    check_arguments(n=n, size=size, seed=seed, balls=balls, icons=icons, valid_fraction=valid_fraction, **drawn)
    _check_room(folder, n * size**2 * 3)
    chosen = choose_icons(balls, icons)
    drawn["scales"] = list(scales)
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
