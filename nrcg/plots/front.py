"""Benefit and cost of guidance: distance to the target class against the judge's share and against cost."""

import textwrap
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nrcg.errors import NrcgError
from nrcg.evaluation.points import REAL, REJECTION, read_points
from nrcg.evaluation.uncertainty import NOTE_INTERVAL, mark_notes
from nrcg.plots import WORDS
from nrcg.plots.scales import log_axis, log_bottom, worst_mark
from nrcg.plots.setups import Setup, known_setups, metric_label, read_setups
from nrcg.plots.style import GREY, File, Page, draws, legend_below, new_figure

SHARE, COST = "accuracy_judge", "unet_evaluations"
APART = 0.03  # offset between setups of equal cost, as a share of the cost axis
ENDS = {"": "value", "_low": "low", "_high": "high"}


class Panel(NamedTuple):
    """Axes and the columns on them."""

    ax: Axes
    x: str
    y: str


@draws("front")
def plot_front(
    page: Page, csv: File, setups: File, dataset: str | None = None, only: list[str] | None = None
) -> Figure:
    """Distance to the target class against the judge's share, one line per setup over its scales, and against cost.

    Filled markers with 95 % intervals are the chosen scales; hollow markers are other scales. A star marks held-out
    real images of the target class, a cross unguided samples, a plus those unguided samples that the guiding classifier
    assigns to the target class (rejection sampling). Cost is the number of U-Net evaluations per sample; a backward
    pass counts as one, and rejected samples count.

    Args:
        only: the guided setups to draw; all by default.
    """
    scores = read_points(csv, dataset)
    distance = scores.criterion
    if distance is None:
        raise NrcgError(f"{csv}: no guided point has a distance to the target class; score one with the metric fd")
    known = read_setups(setups)
    shown = known_setups(known, scores.reported["setup"], csv, setups)
    if only is not None:
        known_setups(known, only, "only", setups)
    parts = (scores.reported, scores.real, scores.rejection)
    rows, real, accepted = (_beside(part, distance) for part in parts)
    rows = rows[rows["scale"].isna() | rows["setup"].isin(known if only is None else only)]
    if rows["scale"].isna().all():
        raise NrcgError(f"{csv}: no guided point has both {distance!r} and {SHARE!r} in column 'metric'; score one")
    costed = bool(rows[COST].notna().any())
    distances = pd.concat(parts).query("metric == @distance")
    marks = {str(name): worst_mark(part) for name, part in distances.groupby("setup")}
    marks = {name: mark for name, mark in marks.items() if name in {REAL, REJECTION, *rows["setup"]}}
    values = pd.concat([rows["distance"], real["distance"], accepted["distance"]])
    bottom = log_bottom(values)
    notes = [WORDS["front"], WORDS["cost"] if costed else "", f"Bars: {NOTE_INTERVAL}.", scores.note]
    notes += [WORDS["cut_bars"]] if bottom and (rows["distance_low"] < bottom).any() else []
    fig = new_figure(page.title, page.note, *notes, *mark_notes(marks.values()), height=1.25)
    panels, chosen = _panels(fig, costed), _chosen(rows, scores.best)
    handles = []
    for setup in shown:
        if setup.guided and len(part := rows[rows["setup"] == setup.name]):
            best = chosen[chosen["setup"] == setup.name]
            handles.append(_setup(panels, part.sort_values("scale"), best, setup, marks[setup.name]))
    if len(free := rows[rows["scale"].isna()]):
        name = free["setup"].iloc[0]
        handles.append(_level(panels, free, "X", "black", f"{known[name].label}{marks[name]}"))
    if len(accepted):
        label = f"rejection sampling{marks[REJECTION]} (n = {accepted['n'].iloc[0]:g})"
        handles.append(_level(panels, accepted, "P", "black", label))
    if len(real):
        handles.append(_level(panels, real, "*", GREY, f"real images{marks[REAL]} (n = {real['n'].iloc[0]:g})"))
    for ax in [panel.ax for panel in panels if panel.y == "distance"]:
        ax.set_ylabel(textwrap.fill(metric_label(distance), 22))
        if bottom:
            log_axis(ax, bottom)
    legend_below(fig, handles)
    return fig


def _panels(fig: Figure, costed: bool) -> list[Panel]:
    """Distance against share; to the right, both against cost, if known."""
    grid = fig.add_gridspec(2, 2, width_ratios=(1.4, 1)) if costed else fig.add_gridspec(1, 1)
    left = fig.add_subplot(grid[:, 0])
    left.set(xlabel="share of the target class by the judge", xlim=(-0.03, 1.03))
    if not costed:
        return [Panel(left, SHARE, "distance")]
    above, below = fig.add_subplot(grid[0, 1]), fig.add_subplot(grid[1, 1])
    above.sharex(below)
    above.set(ylabel="share by the judge", ylim=(-0.03, 1.05))
    above.tick_params(labelbottom=False)
    below.set_xlabel("U-Net evaluations")
    return [Panel(left, SHARE, "distance"), Panel(above, COST, SHARE), Panel(below, COST, "distance")]


def _beside(rows: pd.DataFrame, distance: str) -> pd.DataFrame:
    """One row per point: share, distance and cost, each with the ends of its interval."""
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


def _chosen(rows: pd.DataFrame, best: dict[str, float]) -> pd.DataFrame:
    """The points at the chosen scales; points of equal cost are separated."""
    chosen, apart = rows[rows["scale"] == rows["setup"].map(best)], APART * (rows[COST].max() - rows[COST].min())
    same = chosen.groupby(COST)["scale"]
    return chosen.assign(**{COST: chosen[COST] + apart * (same.cumcount() - (same.transform("size") - 1) / 2)})


def _setup(panels: list[Panel], rows: pd.DataFrame, best: pd.DataFrame, setup: Setup, mark: str) -> Line2D:
    """Draw a setup's scales and the chosen one; returns its legend entry."""
    look = {"color": setup.color, "marker": setup.marker}
    line = {"linestyle": setup.linestyle, "linewidth": 0.9, "markerfacecolor": "white"}
    panels[0].ax.plot(rows[SHARE], rows["distance"], **line, **look)
    for panel in panels:
        _bars(panel, best, **look)
    scale = f", s = {best['scale'].iloc[0]:g}" if len(best) else ""
    return Line2D([], [], linestyle=setup.linestyle, label=f"{setup.label}{mark}{scale}", **look)


def _level(panels: list[Panel], rows: pd.DataFrame, marker: str, color: str, label: str) -> Line2D:
    """Draw samples without a scale: a point, and a level in the cost panels."""
    look = {"color": color, "marker": marker, "markersize": 8}
    for panel in panels:
        _bars(panel, rows, **look)
        if panel.x == COST:
            panel.ax.axhline(rows[panel.y].iloc[0], color=color, linestyle=":", linewidth=0.9)
    return Line2D([], [], linestyle="", label=label, **look)


def _bars(panel: Panel, rows: pd.DataFrame, **look: Any) -> None:
    """Points with their intervals; a cost has none."""

    def ends(name: str) -> Any:
        low, high = (rows[f"{name}{end}"] for end in ("_low", "_high"))
        return np.nan_to_num(np.array([rows[name] - low, high - rows[name]], float)).clip(min=0)

    across = None if panel.x == COST else ends(panel.x)
    bars = {"xerr": across, "yerr": ends(panel.y), "linestyle": "", "elinewidth": 0.8}
    panel.ax.errorbar(rows[panel.x], rows[panel.y], **bars, **look)
