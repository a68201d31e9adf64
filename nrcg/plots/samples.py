"""Pixel-exact sample grids (figure 9), also of the same seeds across setups and scales."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

from nrcg.checks import check, shown_size, whole
from nrcg.errors import NrcgError
from nrcg.evaluation.points import read_points
from nrcg.io.shards import Shard, open_shards
from nrcg.plots.setups import read_setups
from nrcg.plots.style import GREY, TITLE, File, Page, draws, mathtext, save, styled, wrapped
from nrcg.registry import call

if TYPE_CHECKING:
    from nrcg.datasets.imageset import ImageSet

WIDTH_INCHES = 4.8  # of the sheet, without row labels
LEAST_PIXELS = 1500  # across the sheet: small images are enlarged by a whole factor until they reach it
PAD = 1  # gap between samples, in pixels of the samples
NARROWEST = 18  # characters per line of a row label
LINES = 150  # grey level of the gaps, so that blank samples are visible


@dataclass(frozen=True)
class Cell:
    """A sample on a sheet."""

    image: np.ndarray  # uint8 H×W×3
    lost: bool  # the trajectory diverged
    lines: tuple[tuple[str, bool], ...] = ()  # lines of text below it, and whether they are bold
    unused: bool = False  # an empty place without frame

    @classmethod
    def of(cls, shard: Shard, seed: int, lines: tuple[tuple[str, bool], ...] = ()) -> "Cell":
        index = seed - shard.seeds.start
        return cls(shard.images[index], bool(shard.diverged[index]), lines)


@dataclass(frozen=True)
class Point:
    """The samples of a setup at a scale (None: unguided)."""

    setup: str
    shard: str
    scale: float | None = None


@dataclass(frozen=True)
class JudgedPoint(Point):
    """A point with the classifiers' verdicts."""

    verdicts: str = ""  # CSV


@draws("grid")
def plot_grid(page: Page, shards: list[str], n: int = 256, columns: int = 16) -> Figure:
    """Figure 9: the first samples of a point by seed, row by row.

    A red frame marks a sample whose trajectory diverged.

    Args:
        shards: .npy files of one point, with cards beside them, in any order.
        n: maximum number of samples, with `columns` per row.
    """
    check("grid", {"n": n, "columns": columns}, {"n": whole(1), "columns": whole(1)})
    opened = same_size(open_shards(shards))
    cells = [Cell.of(shard, seed) for shard in opened for seed in shard.seeds[:n]][:n]
    seeds = f"Seeds {opened[0].seeds.start} to {opened[0].seeds.start + len(cells) - 1}, row by row."
    return draw_sheet(cells, min(columns, len(cells)), page.title, f"{seeds}\n{page.note}".strip())


@draws("side_by_side")
def plot_side_by_side(
    page: Page, csv: File, setups: File, points: list[dict], dataset: str | None = None, n: int = 10
) -> Figure:
    """The same seeds under each setup at its best scale: one row per setup, one column per seed.

    A red frame marks a sample whose trajectory diverged.

    Args:
        csv: determines the best scale of each setup; setups without scores are omitted.
        points: {"setup": name, "scale": number or null, "shard": path} per point; all start at the same seed.
        n: number of seeds, at most the size of the smallest shard.
    """
    check("side_by_side", {"n": n}, {"n": whole(1)})
    rows = _best_rows(csv, [call(Point, "points", point) for point in points], setups, dataset)
    shards = same_size([Shard.open(path) for _, path in rows])
    for shard in shards:
        if shard.seeds.start != shards[0].seeds.start:
            starts = f"seeds start at {shard.seeds.start}, those of {shards[0].path} at {shards[0].seeds.start}"
            raise NrcgError(f"{shard.path}: {starts}; name shards of the same range")
    seeds = min((shard.seeds for shard in shards), key=len)[:n]
    cells = [Cell.of(shard, seed) for shard in shards for seed in seeds]
    labels = [label for label, _ in rows]
    return draw_sheet(cells, len(seeds), page.title, page.note, labels=labels, heads=seed_heads(seeds))


def plot_contact_sheet(image_set: "ImageSet", path: File, n: int = 100, columns: int = 10) -> Figure:
    """Draw the first `n` images (at most all) with their class names, as a .png or .pdf file."""
    names, size = [image_set.classes[label] for label in image_set.labels[:n]], shown_size(image_set.card["size"])
    title = f"{image_set.card['name']}: the first {len(names)} of {len(image_set)} images of {size}"
    return plot_named(image_set.images[:n], names, title, path, columns)


def plot_named(images: Iterable[np.ndarray], names: Sequence[str], title: str, path: File, columns: int = 10) -> Figure:
    """Draw images, each uint8 H×W×3, with their class names, as a .png or .pdf file."""
    cells = [Cell(image, lost=False, lines=((name, False),)) for image, name in zip(images, names, strict=True)]
    with styled(None):
        fig = draw_sheet(cells, min(columns, len(cells)), title, "Below each image: its class.", span=columns)
        save(fig, [path])
    return fig


def _best_rows(csv: File, given: list[Point], setups: File, dataset: str | None) -> list[tuple[str, str]]:
    """(label, shard) of the unguided samples and of each setup at its best scale, in the order of the setups.

    A label has the judge's share of the target class among all reported samples, if known.
    """
    scores, shards, rows = read_points(csv, dataset), {(p.setup, p.scale): p.shard for p in given}, []
    judged = scores.reported[scores.reported["metric"] == "accuracy_judge"]
    shares = {(row.setup, row.scale if row.scale >= 0 else None): row.value for row in judged.itertuples()}
    unguided = set(scores.reported["setup"][scores.reported["scale"].isna()])
    for setup in read_setups(setups).values():
        scale = scores.best.get(setup.name)
        if scale is None and setup.name not in unguided:
            continue
        at, label = ("no scale", "") if scale is None else (f"scale {scale:g}", f", s = {scale:g}")
        if (setup.name, scale) not in shards:
            raise NrcgError(f"no shard of {setup.name} at {at}; add it to `points`")
        share = shares.get((setup.name, scale))
        label += "" if share is None else f"; judge\u00a0{100 * share:.0f}\u00a0%"
        rows.append((f"{setup.label}{label}", shards[setup.name, scale]))
    if not rows:
        raise NrcgError(f"{csv}: no setup of {setups}; name the setups of these scores")
    return rows


def same_size(shards: list[Shard]) -> list[Shard]:
    """The shards; NrcgError if their images differ in size."""
    for shard in shards:
        if shard.images.shape[1:] != shards[0].images.shape[1:]:
            raise NrcgError(f"{shard.path}: images differ in size from those of {shards[0].path}")
    return shards


def draw_sheet(
    cells: Sequence[Cell], columns: int, title: str, note: str, *, labels: Sequence[str] = (),
    heads: Sequence[str] = (), captions: Sequence[str] = (), span: int = 0, least: int = LEAST_PIXELS,
) -> Figure:  # fmt: skip
    """Samples enlarged by an integer factor on whole pixels of the page, with margins that fit the text.

    `labels` are left of the rows, wrapped to the row height; `heads` above the columns; `captions` left of the cells'
    lines, which are wrapped to the cell width. The page has space for max(`span`, `columns`) columns and is at least
    `least` pixels wide.
    """
    height, width = cells[0].image.shape[:2]
    room = max(columns, span) * (width + PAD) + PAD
    factor = max(1, -(-least // room))
    dpi = room * factor / WIDTH_INCHES
    labels = [_narrow(label, height * factor / dpi) for label in labels]
    cells = [*cells, *[replace(cells[0], lost=False, lines=(), unused=True)] * (-len(cells) % columns)]
    texts = [_broken(cell.lines, 0.95 * width * factor, dpi) for cell in cells]
    gap = round((max(map(len, texts)) + 0.5) * _line_points() * dpi / 72) if any(texts) else 0
    sheet, pitch = _pixels(cells, columns, factor, gap)
    if any(cell.lost for cell in cells):
        note = f"{note}\nRed frame: the trajectory diverged; the sample is replaced by grey.".strip()
    fig, ax = _page(sheet.shape, room * factor, dpi, title, note, [*labels, *captions], bool(heads))
    # Already enlarged, since the renderer would smooth. Units are pixels of the samples.
    ax.imshow(sheet, interpolation="none", aspect="auto",
              extent=(0, sheet.shape[1] / factor, sheet.shape[0] / factor, 0))  # fmt: skip
    corners = [(PAD + i % columns * (width + PAD), PAD + i // columns * pitch / factor) for i in range(len(cells))]
    for (x, y), cell, lines in zip(corners, cells, texts, strict=True):
        if cell.lost:
            corner, look = (x - PAD / 2, y - PAD / 2), {"fill": False, "edgecolor": "#C00000", "linewidth": 1.0}
            ax.add_patch(Rectangle(corner, width + PAD, height + PAD, **look))
        for i, (line, bold) in enumerate(lines):
            below = (x + width / 2, y + height + PAD), (0, -2 - i * _line_points())
            _annotate(ax, line, *below, va="top", ha="center", **_look(bold))
    for label, (_, y) in zip(labels, corners[::columns], strict=False):
        _annotate(ax, label, (0, y + height / 2), (-5, 0), va="center", ha="right")
        for i, caption in enumerate(captions):
            below = (0, y + height + PAD), (-5, -2 - i * _line_points())
            _annotate(ax, caption, *below, va="top", ha="right", **_look(False))
    look = {"va": "bottom", "ha": "center", "color": GREY, "fontsize": matplotlib.rcParams["xtick.labelsize"]}
    for head, (x, _) in zip(heads, corners, strict=False):
        _annotate(ax, head, (x + width / 2, 0), (0, 2), **look)
    return fig


def seed_heads(seeds: Sequence[int]) -> list[str]:
    """Column heads for seeds."""
    return [f"seed {seeds[0]}", *map(str, seeds[1:])]


def _page(
    shape: tuple[int, ...], room: int, dpi: float, title: str, note: str, labels: Sequence[str], heads: bool
) -> tuple[Figure, Axes]:
    """A page with title, note, and axes for a sheet of `shape` pixels; `room` is the width reserved for it."""
    line = round(dpi * matplotlib.rcParams["font.size"] / 72 * 1.5)  # one line of text with spacing, in pixels
    edge = line // 3
    left = edge + (int(np.ceil(_text_width(labels, dpi) + dpi * 10 / 72)) if any(labels) else 0)
    inches = (left + room) / dpi
    title, note = wrapped(title, inches, TITLE) if title else "", wrapped(note, inches)
    top = line * (bool(title) + title.count("\n") + heads) + edge
    bottom = round(_line_points() * dpi / 72) * (note.count("\n") + 1) + 2 * edge if note else edge
    page = (left + room + edge, top + shape[0] + bottom)
    fig = Figure(figsize=(page[0] / dpi, page[1] / dpi), dpi=dpi)
    FigureCanvasAgg(fig)
    ax = fig.add_axes((left / page[0], bottom / page[1], shape[1] / page[0], shape[0] / page[1]))
    ax.set_axis_off()
    large, small = (matplotlib.rcParams[f"figure.{part}size"] for part in ("title", "label"))
    fig.text(edge / page[0], 1 - line / 5 / page[1], title, va="top", fontsize=large)
    fig.text(edge / page[0], (bottom - edge) / page[1], note, va="top", fontsize=small, color=GREY)
    return fig, ax


def _pixels(cells: Sequence[Cell], columns: int, factor: int, gap: int) -> tuple[np.ndarray, int]:
    """The enlarged samples, uint8 H'×W'×3, with `gap` blank pixels below each row, and the height per row."""
    rows, (height, width), pad = -(-len(cells) // columns), cells[0].image.shape[:2], PAD * factor
    pitch = height * factor + pad + (pad + gap if gap else 0)
    shape = (rows * pitch + (0 if gap else pad), columns * (width * factor + pad) + pad, 3)
    sheet = np.full(shape, LINES, np.uint8)
    page = np.uint8(np.multiply(to_rgb(matplotlib.rcParams["figure.facecolor"]), 255))
    for i, cell in enumerate(cells):
        top, left = pad + i // columns * pitch, pad + i % columns * (width * factor + pad)
        if cell.unused:  # a frame at its left or above belongs to a sample there
            first = left if i % columns and not cells[i - 1].unused else left - pad
            above = top if i >= columns and not gap and not cells[i - columns].unused else top - pad
            sheet[above : top + height * factor + pad, first : left + width * factor + pad] = page
        else:
            large = cell.image.repeat(factor, 0).repeat(factor, 1)
            sheet[top:, left:][: height * factor, : width * factor] = large
    for end in range(pitch, shape[0] + 1, pitch) if gap else ():
        sheet[end - gap : end] = page
    return sheet, pitch


def _annotate(ax: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **look: Any) -> None:
    """Text at a position in pixels of the samples, shifted by `offset` points."""
    ax.annotate(mathtext(text), at, offset, textcoords="offset points", annotation_clip=False, **look)


def _broken(lines: Sequence[tuple[str, bool]], width: float, dpi: float) -> list[tuple[str, bool]]:
    """The lines wrapped to `width` pixels at `dpi`, preferably at spaces and underscores."""
    broken = []
    for text, bold in lines:
        for most in range(len(text), 0, -1):
            parts = [part.replace("_ ", "_") for part in textwrap.wrap(text.replace("_", "_ "), most)]
            if _text_width(parts, dpi, **_look(bold)) <= width:
                break
        broken += [(part, bold) for part in parts]
    return broken


def _narrow(label: str, inches: float) -> str:
    """The label in the lines that a row of this height has room for, at most, none shorter than it need be."""
    label = label.replace(" = ", "\u00a0=\u00a0").replace(" of ", "\u00a0of\u00a0")  # these stay together
    most = max(1, int(inches * 72 / (1.2 * matplotlib.rcParams["font.size"])))
    widths = range(NARROWEST, max(NARROWEST, len(label)) + 1)
    lines = next(lines for width in widths if len(lines := textwrap.wrap(label, width)) <= most)
    return "\n".join(lines).replace("\u00a0", " ")


def _look(bold: bool) -> dict[str, Any]:
    look = {"weight": "bold", "color": "black"} if bold else {"weight": "normal", "color": GREY}
    return look | {"fontsize": matplotlib.rcParams["figure.labelsize"]}


def _line_points() -> float:
    """Line height of the text below samples, in points."""
    return 1.3 * FontProperties(size=matplotlib.rcParams["figure.labelsize"]).get_size_in_points()


def _text_width(texts: Sequence[str], dpi: float, **font: Any) -> float:
    """Width in pixels of the widest text at `dpi`."""
    probe = Figure(dpi=dpi)
    renderer = FigureCanvasAgg(probe).get_renderer()
    return max(probe.text(0, 0, mathtext(text), **font).get_window_extent(renderer).width for text in texts)
