"""Sample grids (figure 9), and the same seeds side by side across setups and scales. Samples stay pixel-exact."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nrcg.errors import NrcgError
from nrcg.files import read_array, read_json
from nrcg.images import grid
from nrcg.plots.style import GREY, mathtext, save, styled, wrapped

WIDTH_INCHES = 7.2  # of the sheet; the labels of `plot_side_by_side` come on top
LEAST_PIXELS = 1500  # across the sheet: small images are enlarged by a whole factor until they reach it
PAD = 1  # pixels of the samples between two of them
LINES = 225  # grey level between samples, so that white backgrounds show their borders


@dataclass(frozen=True)
class Shard:
    """Samples of consecutive seeds, opened lazily."""

    path: Path
    images: np.ndarray  # uint8 n×H×W×3
    start: int
    diverged: frozenset[int]

    def is_lost(self, index: int) -> bool:
        return self.start + index in self.diverged


def open_shard(path: str | Path) -> Shard:
    """Open NAME.npy with NAME.json beside it; raises NrcgError naming the file that is missing or does not fit."""
    path = Path(path)
    images, card = read_array(path), read_json(path.with_suffix(".json"))
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise NrcgError(f"{path}: {images.dtype} array of shape {images.shape} where uint8 n×H×W×3 belongs")
    try:
        start, stop = card["seeds"]
        diverged = frozenset(card["diverged"])
    except (KeyError, TypeError, ValueError):
        raise NrcgError(f"{path.with_suffix('.json')}: no 'seeds' [start, stop] and 'diverged' list") from None
    if stop - start != len(images):
        raise NrcgError(f"{path}: {len(images)} images, but its card says seeds {start} to {stop}; sample it again")
    return Shard(path, images, start, diverged)


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
    columns  samples a row

    A red frame marks a sample whose trajectory diverged. Raises NrcgError naming the file.
    """
    opened = _same_size(shards)
    cells = [(shard.images[i], shard.is_lost(i)) for shard in opened for i in range(min(n, len(shard.images)))][:n]
    with styled(style):
        fig = _sheet(cells, min(columns, len(cells)), title, note)
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
    """Draw the same seeds under several setups and scales: a row each, a column per seed.

    rows     (label, shard .npy) pairs; all shards start at the same seed
    outputs  .png and .pdf paths
    n        seeds, fewer where a shard holds fewer

    A red frame marks a sample whose trajectory diverged. Raises NrcgError naming the file.
    """
    shards = [open_shard(path) for _, path in rows]
    _same_size([shard.path for shard in shards])
    for shard in shards:
        if shard.start != shards[0].start:
            raise NrcgError(
                f"{shard.path}: seeds start at {shard.start}, those of {shards[0].path} at {shards[0].start}; "
                "a column is one seed, so name shards of the same range"
            )
    columns = min(n, *(len(shard.images) for shard in shards))
    cells = [(shard.images[i], shard.is_lost(i)) for shard in shards for i in range(columns)]
    seeds = [str(shards[0].start + i) for i in range(columns)]
    with styled(style):
        fig = _sheet(cells, columns, title, note, labels=[label for label, _ in rows], heads=seeds)
        save(fig, outputs)
    return fig


def _same_size(paths: Sequence[str | Path]) -> list[Shard]:
    """The shards in the order of their seeds, images all of one size."""
    shards = [open_shard(path) for path in paths]
    if not shards:
        raise NrcgError("no shard to draw; name at least one .npy file")
    for shard in shards:
        if shard.images.shape[1:] != shards[0].images.shape[1:]:
            raise NrcgError(f"{shard.path}: images of another size than those of {shards[0].path}")
    return sorted(shards, key=lambda shard: shard.start)


def _sheet(
    cells: Sequence[tuple[np.ndarray, bool]],
    columns: int,
    title: str,
    note: str,
    *,
    labels: Sequence[str] = (),
    heads: Sequence[str] = (),
) -> Figure:
    """Samples with whole-number enlargement on whole pixels of the page, text in margins measured to fit it."""
    sheet = grid(np.stack([image for image, _ in cells]), columns, pad=PAD, background=LINES)
    factor = max(1, -(-LEAST_PIXELS // sheet.shape[1]))
    height, width = sheet.shape[0] * factor, sheet.shape[1] * factor
    dpi = width / WIDTH_INCHES
    if any(lost for _, lost in cells):
        note = f"{note}\n" if note else ""
        note += "Red frame: the trajectory diverged; grey stands for the missing sample."
    line = round(dpi * matplotlib.rcParams["font.size"] / 72 * 1.5)  # one line of text with air, in pixels
    edge = line // 3
    left = edge + _text_width(labels, dpi)
    top = line * (bool(title) + bool(heads)) + edge
    note = wrapped(note, WIDTH_INCHES)
    bottom = round(line * 0.85) * (note.count("\n") + 1) + edge if note else edge
    page = (left + width + edge, top + height + bottom)
    fig = Figure(figsize=(page[0] / dpi, page[1] / dpi), dpi=dpi)
    FigureCanvasAgg(fig)
    ax = fig.add_axes((left / page[0], bottom / page[1], width / page[0], height / page[1]))
    ax.set_axis_off()
    # Enlarged here, not by the renderer or the PDF viewer, which might smooth.
    ax.imshow(sheet.repeat(factor, axis=0).repeat(factor, axis=1), interpolation="none", aspect="auto",
              extent=(0, sheet.shape[1], sheet.shape[0], 0))  # fmt: skip
    _frames(ax, cells, columns)
    _margin_text(ax, cells[0][0].shape, labels, heads)
    if title:
        fig.text(left / page[0], 1 - line / 5 / page[1], mathtext(title), va="top", ha="left",
                 fontsize=matplotlib.rcParams["figure.titlesize"])  # fmt: skip
    if note:
        fig.text(left / page[0], (bottom - line / 5) / page[1], note, va="top", ha="left", color=GREY,
                 fontsize=matplotlib.rcParams["figure.labelsize"])  # fmt: skip
    return fig


def _frames(ax, cells: Sequence[tuple[np.ndarray, bool]], columns: int) -> None:
    for i, (image, lost) in enumerate(cells):
        if lost:
            height, width = image.shape[:2]
            x, y = PAD / 2 + (i % columns) * (width + PAD), PAD / 2 + (i // columns) * (height + PAD)
            ax.add_patch(Rectangle((x, y), width + PAD, height + PAD, fill=False, edgecolor="#C00000", linewidth=1.0))


def _margin_text(ax, shape: tuple[int, ...], labels: Sequence[str], heads: Sequence[str]) -> None:
    """Row labels left of the axes, column heads above them; data coordinates are the samples' pixels."""
    height, width = shape[:2]
    for i, label in enumerate(labels):
        ax.annotate(mathtext(label), (0, PAD + height / 2 + i * (height + PAD)), (-5, 0), va="center", ha="right",
                    textcoords="offset points", annotation_clip=False)  # fmt: skip
    for i, head in enumerate(heads):
        text = f"seed {head}" if i == 0 else head
        ax.annotate(text, (PAD + width / 2 + i * (width + PAD), 0), (0, 2), va="bottom", ha="center", color=GREY,
                    textcoords="offset points", annotation_clip=False,
                    fontsize=matplotlib.rcParams["xtick.labelsize"])  # fmt: skip


def _text_width(labels: Sequence[str], dpi: float) -> int:
    """Pixels that the widest label and its gap need at `dpi`; 0 without labels."""
    if not labels:
        return 0
    probe = Figure(dpi=dpi)
    renderer = FigureCanvasAgg(probe).get_renderer()
    widths = [probe.text(0, 0, mathtext(label)).get_window_extent(renderer).width for label in labels]
    return int(np.ceil(max(widths) + dpi * 10 / 72))
