"""Sampling trajectories of each setup: x̂_0, gradients and clipping from noise to image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from nrcg.checks import check, whole
from nrcg.errors import NrcgError
from nrcg.io.traces import TraceFile
from nrcg.plots import WORDS
from nrcg.plots.samples import Cell, draw_sheet, seed_heads
from nrcg.plots.setups import Setup, known_setups, read_setups
from nrcg.plots.style import File, Page, draws, legend_below, mathtext, new_figure
from nrcg.registry import call

DECADES = 4  # of lengths that an axis shows, at most
QUARTILES = (0.25, 0.5, 0.75)
MOVING_PIXELS, MOST_MOVING = 600, 8  # across the samples of an animation, and how many
PANELS = {  # measured: what it is
    "gradient_norm": "gradient: length",
    "direction_norm": "stabilised, times s: length",
    "gradient_cosine": "gradient: cosine to last step's",
    "direction_cosine": "stabilised: cosine to last step's",
    "clipped": "x̂₀: share at the limits",
}


@dataclass(frozen=True)
class Traced:
    """The trace of a setup at a scale (None: unguided)."""

    setup: str
    trace: str
    scale: float | None = None


@dataclass(frozen=True)
class Row:
    """A trace to draw."""

    setup: Setup
    scale: float | None
    file: TraceFile

    @property
    def label(self) -> str:
        return self.setup.label + ("" if self.scale is None else f", s = {self.scale:g}")


def animate_trajectory(page: Page, traces: list[dict], setups: File, **_: Any) -> Iterator[Image.Image]:
    """One picture per time, with one row per setup and one column per sample; the final samples are last."""
    rows = _rows(traces, setups)
    seeds, title = rows[0].file.seeds[:MOST_MOVING], page.title and f"{page.title}: "
    for k, time in enumerate([*_times(rows[0].file), "the samples"]):
        cells = [_cell(row.file, seed, k) for row in rows for seed in seeds]
        now = f"{title}{time if k == len(rows[0].file.times) else f't = {time}'}"
        labels, heads = [row.label for row in rows], seed_heads(seeds)
        fig = draw_sheet(cells, len(seeds), now, page.note, labels=labels, heads=heads, least=MOVING_PIXELS)
        fig.canvas.draw()  # type: ignore[attr-defined]
        yield Image.fromarray(np.asarray(fig.canvas.buffer_rgba())).convert("RGB")  # type: ignore[attr-defined]


@draws("trajectory", movie=animate_trajectory)
def plot_trajectory(page: Page, traces: list[dict], setups: File, columns: int = 11, n: int = 2) -> Figure:
    """x̂_0 over time, from the first step on the left to the sample on the right, with rows by setup.

    With the suffix .webp or .gif it is an animation with one row per setup and one column per sample.

    Args:
        traces: {"setup": name, "scale": number or null, "trace": path} each, made by `nrcg measure trace`.
        columns: number of times including the final sample, at most those in the traces.
        n: number of samples per setup, the first of its trace.
    """
    check("trajectory", {"columns": columns, "n": n}, {"columns": whole(2), "n": whole(1)})
    rows = _rows(traces, setups)
    first = rows[0].file
    frames = np.linspace(0, len(first.times), min(columns, len(first.times) + 1)).round().astype(int)
    seeds, times = first.seeds[:n], _times(first)
    cells = [_cell(row.file, seed, k) for row in rows for seed in seeds for k in frames]
    heads = [f"t = {times[0]}", *(times[k] for k in frames[1:-1]), "sample"]
    labels = [row.label if seed == seeds[0] else "" for row in rows for seed in seeds]
    shown = WORDS["trajectory"]["strip"].format(seeds=", ".join(map(str, seeds)), total=first.total)
    return draw_sheet(cells, len(frames), page.title, f"{shown}\n{page.note}".strip(), labels=labels, heads=heads)


@draws("trajectory_curves")
def plot_trajectory_curves(page: Page, traces: list[dict], setups: File) -> Figure:
    """Norms of gradients, cosines between steps and the share of clipped values over time, one line per setup.

    Lines are medians over samples; quartile ranges are shaded. Diverged samples are excluded.

    Args:
        traces: as in `trajectory`.
    """
    rows = _rows(traces, setups)
    words = WORDS["trajectory"]["curves"].format(n=rows[0].file.n_seeds, decades=DECADES)
    fig = new_figure(page.title, words, page.note, height=1.9)
    fig.get_layout_engine().set(w_pad=0.1)
    grid = fig.subplots(3, 2, sharex=True)
    panels = dict(zip(PANELS, grid.flat, strict=False))
    for name, ax in panels.items():
        _panel(ax, name, rows)
    for ax in (panels["clipped"], panels["direction_cosine"]):
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("t / T")
    grid[0, 0].set_xlim(max(row.file.table["time"].max() for row in rows), 0)
    grid[2, 1].set_axis_off()
    legend_below(fig, [Line2D([], [], **_look(row), label=row.label) for row in rows])
    return fig


def _panel(ax: Axes, name: str, rows: Sequence[Row]) -> None:
    found = {i: curve for i, row in enumerate(rows) if len(curve := _quartiles(row, name))}
    largest = max((curve.to_numpy().max() for curve in found.values()), default=1.0)
    floor = largest * 10.0**-DECADES if name.endswith("_norm") else -1.0
    for i, curve in found.items():
        low, middle, high = (curve[q].clip(lower=floor) for q in QUARTILES)
        color, every = rows[i].setup.color, max(1, len(curve) // 6)
        ax.fill_between(curve.index, low, high, color=color, alpha=0.13, linewidth=0)
        ax.plot(curve.index, middle, **_look(rows[i]), markevery=(int((i + 0.5) / len(rows) * every), every))
    ax.set_title(mathtext(PANELS[name]), fontsize=matplotlib.rcParams["axes.labelsize"])
    if name.endswith("_norm"):
        least = min((curve.to_numpy().min() for curve in found.values()), default=floor)
        ax.set_yscale("log")
        ax.set_ylim(max(least, floor) / 1.5, largest * 1.2)
    elif name.endswith("_cosine"):
        ax.set_ylim(min(-0.25, *(curve[0.5].min() for curve in found.values()), 0), 1.03)
        ax.axhline(0, color="#999999", linewidth=0.8, zorder=1)
    else:
        ax.set_ylim(0, 1)


def _quartiles(row: Row, name: str) -> pd.DataFrame:
    """QUARTILES over samples that did not diverge, by descending t / T; empty if nothing was measured."""
    factor = row.scale if name == "direction_norm" and row.scale is not None else 1.0
    kept = row.file.table[~row.file.table["seed"].isin(row.file.diverged)]
    found = kept.groupby("time", sort=False)[name].quantile(list(QUARTILES)).unstack()
    return factor * found[found[0.5].notna()].sort_index(ascending=False)


def _look(row: Row) -> dict[str, Any]:
    setup = row.setup
    return {"color": setup.color, "linestyle": setup.linestyle, "marker": setup.marker, "markersize": 3.5}


def _rows(traces: Sequence[dict], setups: File) -> list[Row]:
    """The opened traces in the order of the setups; NrcgError if their times or seeds differ."""
    given = [call(Traced, "traces", each) for each in traces]
    if not given:
        raise NrcgError("no traces; name at least one, made by `nrcg measure trace`")
    shown = known_setups(read_setups(setups), [each.setup for each in given], "traces", setups)
    rows = [
        Row(setup, each.scale, TraceFile.open(each.trace))
        for setup in shown
        for each in given
        if each.setup == setup.name
    ]
    first = rows[0].file
    for file in (row.file for row in rows):
        if (file.times, file.total, file.seeds, file.n_seeds, file.frames.shape) != (
            first.times, first.total, first.seeds, first.n_seeds, first.frames.shape,
        ):  # fmt: skip
            raise NrcgError(f"{file.path}: times, seeds or sizes differ from {first.path}; trace the same samples")
    return rows


def _cell(file: TraceFile, seed: int, frame: int) -> Cell:
    """A frame of a sample, with a red border if the trajectory diverged."""
    return Cell(file.frames[frame, seed - file.seeds.start], seed in file.diverged)


def _times(file: TraceFile) -> list[str]:
    """t of each frame except the last."""
    return [f"{time * file.total:.6g}" for time in file.times]
