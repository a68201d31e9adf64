"""What guidance gains and what it costs: distance to the target class against the judge's share, and against time."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nrcg.errors import NrcgError
from nrcg.evaluation.points import Points, read_points
from nrcg.evaluation.uncertainty import NOTE_INTERVAL, mark, mark_notes
from nrcg.plots import WORDS
from nrcg.plots.scales import LOG_DECADES
from nrcg.plots.setups import Setup, known_setups, metric_label, read_setups
from nrcg.plots.style import GREY, File, Page, draws, legend_below, new_figure

SHARE, COST = "accuracy_judge", "unet_evaluations"
APART = 0.05  # of the range of evaluations, between two setups that need as many
ENDS = {"": "value", "_low": "low", "_high": "high"}


@draws("front")
def plot_front(page: Page, csv: File, setups: File, dataset: str | None = None) -> Figure:
    """Distance to the target class against the judge's share, a line for each setup over its scales, and against cost.

    Filled markers are the scales that were chosen, with 95 % intervals; the other scales of a setup are hollow. A star
    is held-out real images of the target class, a cross unguided samples. The cost is in U-Net evaluations per sample,
    a backward pass counted as one.
    """
    scores = read_points(csv, dataset)
    distance = scores.criterion
    if distance is None:
        raise NrcgError(f"{csv}: no guided point has a distance to the target class; score one with the metric fd")
    known = read_setups(setups)
    shown = known_setups(known, scores.reported["setup"], csv, setups)
    rows = _beside(scores.reported, distance)
    marks = [mark(row, distance) for _, row in scores.reported[scores.reported["metric"] == distance].iterrows()]
    notes = [WORDS["front"], f"Bars: {NOTE_INTERVAL}.", scores.note, *mark_notes(marks)]
    fig = new_figure(page.title, page.note, *notes, height=1.25)
    grid = fig.add_gridspec(2, 2, width_ratios=(1.6, 1))
    axes = [fig.add_subplot(grid[:, 0]), fig.add_subplot(grid[0, 1]), fig.add_subplot(grid[1, 1])]
    handles = [_setup(axes, rows[rows["setup"] == setup.name], setup, scores) for setup in shown if setup.guided]
    free = rows[rows["scale"].isna()]
    handles.append(_level(axes, free, "X", "black", next(s.label for s in shown if not s.guided)))
    if len(real := _beside(scores.real, distance)):
        handles.append(_level(axes, real, "*", GREY, f"real images (n = {real['n'].iloc[0]:g})"))
    values = pd.concat([rows["distance"], real["distance"]])
    for ax in (axes[0], axes[2]):
        ax.set_ylabel(textwrap.fill(metric_label(distance), 22))
        if values.min() > 0 and np.log10(values.max() / values.min()) > LOG_DECADES:
            ax.set_yscale("log")
    axes[0].set(xlabel="share of the target class by the judge", xlim=(-0.03, 1.03))
    axes[1].set(ylabel="share by the judge", ylim=(-0.03, 1.05))
    axes[1].tick_params(labelbottom=False)
    axes[2].set_xlabel("U-Net evaluations per sample")
    axes[1].sharex(axes[2])
    legend_below(fig, handles)
    return fig


def _beside(rows: pd.DataFrame, distance: str) -> pd.DataFrame:
    """A row for each point: share, distance and cost, each with the ends of its interval."""
    by_metric = {name: part.set_index(["setup", "scale"]) for name, part in rows.groupby("metric")}
    parts = {SHARE: SHARE, "distance": distance, COST: COST}
    found = {
        f"{name}{end}": by_metric[metric][column]
        for name, metric in parts.items()
        for end, column in ENDS.items()
        if metric in by_metric
    }
    found |= {"n": by_metric[SHARE]["n"]} if SHARE in by_metric else {}
    table = pd.DataFrame(found).reindex(columns=[f"{name}{end}" for name in parts for end in ENDS] + ["n"])
    return table.dropna(subset=[SHARE, "distance"]).reset_index()


def _setup(axes: list[Axes], rows: pd.DataFrame, setup: Setup, scores: Points) -> Line2D:
    """Draw a setup's scales, and the one that was chosen; returns its entry of the legend."""
    rows = rows.sort_values("scale")
    look = {"color": setup.color, "marker": setup.marker}
    axes[0].plot(
        rows[SHARE], rows["distance"], linestyle=setup.linestyle, linewidth=0.9, markerfacecolor="white", **look
    )
    best = rows[rows["scale"] == scores.best.get(setup.name)]
    places = sorted(scores.best)
    shift = APART * (places.index(setup.name) - (len(places) - 1) / 2) if setup.name in places else 0.0
    at = best.assign(at=best[COST] * (1 + shift))
    _bars(axes[0], best, SHARE, "distance", **look)
    _bars(axes[1], at, "at", SHARE, **look)
    _bars(axes[2], at, "at", "distance", **look)
    scale = f", s = {best['scale'].iloc[0]:g}" if len(best) else ""
    return Line2D([], [], linestyle=setup.linestyle, label=f"{setup.label}{scale}", **look)


def _level(axes: list[Axes], rows: pd.DataFrame, marker: str, color: str, label: str) -> Line2D:
    """Draw unguided samples or real images: a point, and levels where the cost is."""
    look = {"color": color, "marker": marker, "markersize": 8}
    _bars(axes[0], rows, SHARE, "distance", **look)
    for ax, value in ((axes[1], SHARE), (axes[2], "distance")):
        ax.axhline(rows[value].iloc[0], color=color, linestyle=":", linewidth=0.9)
        _bars(ax, rows, COST, value, **look)
    return Line2D([], [], linestyle="", label=label, **look)


def _bars(ax: Axes, rows: pd.DataFrame, x: str, y: str, **look: Any) -> None:
    def ends(name: str) -> Any:
        if f"{name}_low" not in rows:
            return None
        low, high = (rows[f"{name}{end}"] for end in ("_low", "_high"))
        return np.nan_to_num(np.array([rows[name] - low, high - rows[name]], float)).clip(min=0)

    ax.errorbar(
        rows[x], rows[y], xerr=ends(x) if x != COST else None, yerr=ends(y), linestyle="", elinewidth=0.8, **look
    )
