"""Four balls, drawn by formula, and the user's own icons.

A ball is a function from the points of the unit sphere to colours, seen from far away along the z axis (x to the right,
y up); so it has no resolution of its own. Seams are bold and colours strong: they must survive a reduction to nine
pixels.
"""

from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from nrcg.datasets.pictures import FORMATS, eight_bits, one_line
from nrcg.errors import NrcgError

WHITE, BLACK = (250, 250, 248), (22, 22, 26)
RED, ORANGE, BLUE, YELLOW = (214, 20, 36), (242, 116, 20), (30, 84, 190), (255, 208, 40)
OUTLINE, OUTLINE_WIDTH = (48, 48, 54), 0.1  # the width in ball radii


def draw_ball(name: str, pixels: int = 512) -> Image.Image:
    """The ball `name`, one of BALLS, as an RGBA square of `pixels` that it fills; transparent outside the circle.

    Shading depends on the distance from the centre alone, so that a turned ball is lit like any other. Raises
    NrcgError for an unknown name.
    """
    if name not in _PAINTERS:
        raise NrcgError(f"ball {name!r}: unknown; use {', '.join(BALLS)}, or a folder of your own icons")
    fine = 2 * pixels  # reduced at the end, for smooth edges
    axis = (2 * np.arange(fine) + 1) / fine - 1
    x, y = np.meshgrid(axis, -axis)
    radius = np.hypot(x, y)
    z = np.sqrt(np.clip(1 - radius**2, 0, None))
    points = np.stack([x, y, z], axis=-1) / np.maximum(radius, 1)[..., None]  # corners borrow the colour of the rim
    colour = _PAINTERS[name](points) * (1 - 0.2 * np.minimum(radius, 1) ** 4)[..., None]
    colour[radius > 1 - OUTLINE_WIDTH] = OUTLINE
    image = np.dstack([colour, np.where(radius <= 1, 255, 0)]).round().astype(np.uint8)
    return Image.fromarray(image).resize((pixels, pixels), Image.Resampling.BOX)


def load_icons(folder: str | Path) -> dict[str, Image.Image]:
    """The PNG files of `folder` as square RGBA images, by file stem, sorted; a narrow one is padded with transparency.

    Raises NrcgError when there is none, or when one is not an image.
    """
    return {path.stem: _load_icon(path) for path in icon_files(folder)}


def icon_files(folder: str | Path) -> list[Path]:
    """The PNG files of `folder`, sorted; their stems are class names. Raises NrcgError when there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise NrcgError(f"{folder}: no such folder of icons")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png")
    if not paths:
        raise NrcgError(f"{folder}: holds no PNG file; put one icon per class there, named after its class")
    return paths


def _load_icon(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=FORMATS) as file:
            icon = eight_bits(file).convert("RGBA")
    except Exception as error:  # PIL raises half a dozen kinds for a damaged file, or one of too many pixels
        raise NrcgError(f"{path}: not a readable image ({one_line(error)}); replace or remove it") from None
    side = max(icon.size)
    square = Image.new("RGBA", (side, side))
    square.paste(icon, ((side - icon.width) // 2, (side - icon.height) // 2))
    return square


def _paint(where: np.ndarray, colour: tuple[int, int, int], under: np.ndarray | tuple[int, int, int]) -> np.ndarray:
    """`colour` where `where` (bool H×W) holds, `under` (H×W×3, or one colour) elsewhere."""
    return np.where(where[..., None], colour, under)


def _turned(points: np.ndarray, axes: tuple[int, int], degrees: float) -> np.ndarray:
    """The points …×3, turned by `degrees` from the first of `axes` toward the second."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turned = points.copy()
    turned[..., axes[0]] = cos * points[..., axes[0]] - sin * points[..., axes[1]]
    turned[..., axes[1]] = sin * points[..., axes[0]] + cos * points[..., axes[1]]
    return turned


def _baseball(points: np.ndarray) -> np.ndarray:
    """White; the seam is (a cos t + b cos 3t, a sin t − b sin 3t, 2√(ab) sin 2t), on the sphere since a + b = 1."""
    a, b, t = 0.72, 0.28, np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    x, y, z = a * np.cos(t) + b * np.cos(3 * t), a * np.sin(t) - b * np.sin(3 * t), 2 * np.sqrt(a * b) * np.sin(2 * t)
    seam = np.stack([x, y, z], axis=-1)
    along = np.cumsum(np.linalg.norm(np.diff(seam, axis=0, append=seam[:1]), axis=1))
    distance, nearest = cKDTree(seam).query(_turned(points, (0, 1), 45))
    phase = 44 * along[nearest] / along[-1] - 2.2 * distance  # slanted: the stitches form chevrons
    return _paint((distance < 0.055) | ((distance < 0.2) & (phase % 1 < 0.42)), RED, WHITE)


def _basketball(points: np.ndarray) -> np.ndarray:
    """Orange; ribs on the great circles x = 0 and y = 0 and on |x| = 0.45 + 0.45 y², which bow toward the centre."""
    x, y = points[..., 0], points[..., 1]
    bow = (np.abs(x) - 0.45 - 0.45 * y**2) / np.hypot(1, 0.9 * y)  # over the gradient's length: ribs of even width
    return _paint(np.min([np.abs(x), np.abs(y), np.abs(bow)], axis=0) < 0.065, BLACK, ORANGE)


def _soccer(points: np.ndarray) -> np.ndarray:
    """White; pentagons and seams of a truncated icosahedron, the pentagons black and a little larger than true."""
    golden = (1 + 5**0.5) / 2
    pentagons = [v for s in (1, -1) for g in (golden, -golden) for v in [(0, s, g), (s, g, 0), (g, 0, s)]]
    pentagons = np.array(pentagons) / np.hypot(1, golden)
    adjacent = pentagons @ pentagons.T > 0.4
    triples = [t for t in combinations(range(12), 3) if all(adjacent[i, j] for i, j in combinations(t, 2))]
    hexagons = np.array([pentagons[list(t)].sum(axis=0) for t in triples])
    hexagons /= np.linalg.norm(hexagons, axis=1, keepdims=True)
    points = _turned(points, (1, 2), -np.rad2deg(np.arctan(1 / golden)) - 13)  # a pentagon near the middle
    # A point belongs to the face whose plane it would meet first; 0.939 for 0.932 would be true.
    to_pentagon = (points @ pentagons.T / 0.932).max(axis=-1)
    to_hexagons = np.sort(points @ hexagons.T / 0.915, axis=-1)
    seam = to_hexagons[..., -1] - to_hexagons[..., -2] < 0.045
    return _paint((to_pentagon > to_hexagons[..., -1]) | seam, BLACK, WHITE)


def _volleyball(points: np.ndarray) -> np.ndarray:
    """Six sides as of a cube, three panels each: yellow, blue and white."""
    points = _turned(_turned(points, (0, 2), 40), (1, 2), 31)
    side = np.abs(points).argmax(axis=-1)
    height = np.take_along_axis(points, side[..., None], axis=-1)
    across = np.take_along_axis(points, (side[..., None] + 1) % 3, axis=-1) / np.abs(height)
    panel = across[..., 0]
    second, first = np.sort(np.abs(points), axis=-1)[..., 1:].transpose(2, 0, 1)
    seam = (np.abs(np.abs(panel) - 1 / 3) < 0.06) | (first - second < 0.06)
    colour = _paint(panel > 1 / 3, YELLOW, _paint(panel < -1 / 3, BLUE, WHITE))
    return _paint(seam, OUTLINE, colour)


_PAINTERS = {"baseball": _baseball, "basketball": _basketball, "soccer": _soccer, "volleyball": _volleyball}
BALLS = tuple(_PAINTERS)
