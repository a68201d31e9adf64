"""Sample grids (figure 9), and the same seeds side by side across setups and scales. Samples stay pixel-exact."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

from nrcg.errors import NrcgError
from nrcg.io.shards import Shard, open_shards
from nrcg.plots.style import GREY, mathtext, save, styled, wrapped
from nrcg.plots.tiles import grid

WIDTH_INCHES = 7.2  # of the sheet; the labels of its rows come on top
LEAST_PIXELS = 1500  # across the sheet: small images are enlarged by a whole factor until they reach it
PAD = 1  # pixels of the samples between two of them
LINES = 150  # grey level of the frames between samples, which show that a blank one is a sample too


@dataclass(frozen=True)
class Cell:
    """A sample on a sheet."""

    image: np.ndarray  # uint8 H×W×3
    lost: bool  # the trajectory diverged
    lines: tuple[tuple[str, bool], ...] = ()  # text below it, and whether it is bold


def plot_grid(
    shards: Sequence[str | Path],
    outputs: Sequence[str | Path],
    *,
    n: int = 256,
    columns: int = 16,
    style: str | Path | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw the first samples by seed, row by row: figure 9.

    shards   .npy files of one point, cards beside them
    outputs  .png and .pdf paths
    n        at most this many samples
    columns  samples per row

    The small print says which seeds these are. A red frame marks a sample whose trajectory diverged. Raises NrcgError
    naming the file.
    """
    opened = same_size(open_shards(shards))
    cells = [cell_of(shard, seed) for shard in opened for seed in shard.seeds[:n]][:n]
    seeds = f"Seeds {opened[0].seeds.start} to {opened[0].seeds.start + len(cells) - 1}, row by row."
    with styled(style):
        fig = draw_sheet(cells, min(columns, len(cells)), title, f"{seeds}\n{note}".strip())
        save(fig, outputs)
    return fig


def plot_side_by_side(
    rows: Sequence[tuple[str, str | Path]],
    outputs: Sequence[str | Path],
    *,
    n: int = 10,
    style: str | Path | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw the same seeds under several setups and scales: one row each, one column per seed.

    rows     (label, shard .npy) pairs; all shards start at the same seed
    outputs  .png and .pdf paths
    n        seeds, fewer where a shard holds fewer

    A red frame marks a sample whose trajectory diverged. Raises NrcgError naming the file.
    """
    shards = same_size([Shard.open(path) for _, path in rows])
    for shard in shards:
        if shard.seeds.start != shards[0].seeds.start:
            raise NrcgError(
                f"{shard.path}: seeds start at {shard.seeds.start}, those of {shards[0].path} at "
                f"{shards[0].seeds.start}; a column is one seed, so name shards of the same range"
            )
    seeds = min((shard.seeds for shard in shards), key=len)[:n]
    cells = [cell_of(shard, seed) for shard in shards for seed in seeds]
    with styled(style):
        fig = draw_sheet(cells, len(seeds), title, note, labels=[label for label, _ in rows], heads=seeds)
        save(fig, outputs)
    return fig


def same_size(shards: list[Shard]) -> list[Shard]:
    """The shards; raises NrcgError naming one whose images have another size than the first one's."""
    if not shards:
        raise NrcgError("no shard to draw; name at least one .npy file")
    for shard in shards:
        if shard.images.shape[1:] != shards[0].images.shape[1:]:
            raise NrcgError(f"{shard.path}: images of another size than those of {shards[0].path}")
    return shards


def cell_of(shard: Shard, seed: int, lines: tuple[tuple[str, bool], ...] = ()) -> Cell:
    index = seed - shard.seeds.start
    return Cell(shard.images[index], bool(shard.diverged[index]), lines)


def draw_sheet(
    cells: Sequence[Cell],
    columns: int,
    title: str,
    note: str,
    *,
    labels: Sequence[str] = (),
    heads: Sequence[int] = (),
    caption: str = "",
    span: int = 0,
) -> Figure:
    """Samples with whole-number enlargement on whole pixels of the page, text in margins measured to fit it.

    cells    row by row, images of one size
    columns  samples per row
    labels   left of the rows
    heads    seeds above the columns
    caption  left of the cells' lines, in every row that has a label: whose words they are
    span     columns that the page has room for, at least `columns`: a few samples are not blown up to its width

    A cell's lines are broken to its width. Call inside `styled`.
    """
    height, width = cells[0].image.shape[:2]
    room = max(columns, span) * (width + PAD) + PAD
    factor = max(1, -(-LEAST_PIXELS // room))
    dpi = room * factor / WIDTH_INCHES
    texts = [_broken(cell.lines, 0.95 * width * factor, dpi) for cell in cells]
    gap = round((max(map(len, texts)) + 0.5) * _line_points() * dpi / 72) if any(texts) else 0
    sheet = _pixels([cell.image for cell in cells], columns, factor, gap)
    if any(cell.lost for cell in cells):
        note = f"{note}\n" if note else ""
        note += "Red frame: the trajectory diverged; grey stands for the missing sample."
    fig, ax = _page(sheet.shape, room * factor, dpi, title, note, [*labels, caption], bool(heads))
    # Enlarged before, not by the renderer or the PDF viewer, which might smooth. Units are pixels of the samples.
    ax.imshow(sheet, interpolation="none", aspect="auto",
              extent=(0, sheet.shape[1] / factor, sheet.shape[0] / factor, 0))  # fmt: skip
    pitch = height + PAD + (PAD + gap / factor if gap else 0)  # from row to row
    corners = [(PAD + i % columns * (width + PAD), PAD + i // columns * pitch) for i in range(len(cells))]
    for (x, y), cell, lines in zip(corners, cells, texts, strict=True):
        if cell.lost:
            ax.add_patch(Rectangle((x - PAD / 2, y - PAD / 2), width + PAD, height + PAD, fill=False,
                                   edgecolor="#C00000", linewidth=1.0))  # fmt: skip
        for i, (line, bold) in enumerate(lines):
            _annotate(ax, line, (x + width / 2, y + height + PAD), (0, -2 - i * _line_points()), va="top", ha="center",
                      fontsize=matplotlib.rcParams["figure.labelsize"], **_weight(bold))  # fmt: skip
    for label, (_, y) in zip(labels, corners[::columns], strict=False):
        _annotate(ax, label, (0, y + height / 2), (-5, 0), va="center", ha="right")
        if caption:
            _annotate(ax, caption, (0, y + height + PAD), (-5, -2), va="top", ha="right", color=GREY,
                      fontsize=matplotlib.rcParams["figure.labelsize"])  # fmt: skip
    for i, (head, (x, _)) in enumerate(zip(heads, corners, strict=False)):
        _annotate(ax, f"seed {head}" if i == 0 else str(head), (x + width / 2, 0), (0, 2), va="bottom", ha="center",
                  color=GREY, fontsize=matplotlib.rcParams["xtick.labelsize"])  # fmt: skip
    return fig


def _page(
    shape: tuple[int, ...], room: int, dpi: float, title: str, note: str, labels: Sequence[str], heads: bool
) -> tuple[Figure, Axes]:
    """A page with title and note, and axes for a sheet of `shape` pixels where there is room for `room` across."""
    line = round(dpi * matplotlib.rcParams["font.size"] / 72 * 1.5)  # one line of text with air, in pixels
    edge = line // 3
    left = edge + (int(np.ceil(_text_width(labels, dpi) + dpi * 10 / 72)) if any(labels) else 0)
    top = line * (bool(title) + heads) + edge
    note = wrapped(note, WIDTH_INCHES)
    bottom = round(line * 0.85) * (note.count("\n") + 1) + edge if note else edge
    page = (left + room + edge, top + shape[0] + bottom)
    fig = Figure(figsize=(page[0] / dpi, page[1] / dpi), dpi=dpi)
    FigureCanvasAgg(fig)
    ax = fig.add_axes((left / page[0], bottom / page[1], shape[1] / page[0], shape[0] / page[1]))
    ax.set_axis_off()
    if title:
        fig.text(left / page[0], 1 - line / 5 / page[1], mathtext(title), va="top", ha="left",
                 fontsize=matplotlib.rcParams["figure.titlesize"])  # fmt: skip
    if note:
        fig.text(left / page[0], (bottom - line / 5) / page[1], note, va="top", ha="left", color=GREY,
                 fontsize=matplotlib.rcParams["figure.labelsize"])  # fmt: skip
    return fig, ax


def _pixels(images: Sequence[np.ndarray], columns: int, factor: int, gap: int) -> np.ndarray:
    """The enlarged samples, uint8 H'×W'×3; below each row a band of `gap` pixels of the page's colour, for text."""
    step = columns if gap else len(images)
    parts = []
    for start in range(0, len(images), step):
        rows = grid(np.stack(images[start : start + step]), columns, pad=PAD, background=LINES)
        band = np.full((gap, rows.shape[1] * factor, 3), to_rgb(matplotlib.rcParams["figure.facecolor"]))
        parts += [rows.repeat(factor, axis=0).repeat(factor, axis=1), np.uint8(band * 255)]
    return np.concatenate(parts)


def _annotate(ax: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **look: Any) -> None:
    """Text at a place in pixels of the samples, moved by `offset` points."""
    ax.annotate(mathtext(text), at, offset, textcoords="offset points", annotation_clip=False, **look)


def _broken(lines: Sequence[tuple[str, bool]], width: float, dpi: float) -> list[tuple[str, bool]]:
    """The lines broken until each fits `width` pixels at `dpi`: at spaces and underscores, where there are any."""
    broken = []
    for text, bold in lines:
        for most in range(len(text), 0, -1):
            parts = [part.replace("_ ", "_") for part in textwrap.wrap(text.replace("_", "_ "), most)]
            if _text_width(parts, dpi, size=matplotlib.rcParams["figure.labelsize"], **_weight(bold)) <= width:
                break
        broken += [(part, bold) for part in parts]
    return broken


def _weight(bold: bool) -> dict[str, str]:
    return {"weight": "bold", "color": "black"} if bold else {"weight": "normal", "color": GREY}


def _line_points() -> float:
    """A line of the text below a sample, in points."""
    return 1.3 * FontProperties(size=matplotlib.rcParams["figure.labelsize"]).get_size_in_points()


def _text_width(texts: Sequence[str], dpi: float, **font: Any) -> float:
    """Pixels that the widest of the texts needs at `dpi`."""
    probe = Figure(dpi=dpi)
    renderer = FigureCanvasAgg(probe).get_renderer()
    return max(probe.text(0, 0, mathtext(text), **font).get_window_extent(renderer).width for text in texts)
