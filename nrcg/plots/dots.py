"""Setups at their chosen scales: one row per setup, one panel per metric."""

import textwrap
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nrcg.errors import NrcgError
from nrcg.evaluation.points import Points, read_points
from nrcg.evaluation.uncertainty import NOTE_INTERVAL, mark_notes
from nrcg.plots import WORDS
from nrcg.plots.scales import plain_ticks, worst_mark
from nrcg.plots.setups import Setup, extractor_of, is_share, known_setups, metric_label, read_setups
from nrcg.plots.style import GREY, File, Page, draws, mathtext, new_figure

ROW, REST = 0.18, 0.95  # inches per row, and for title and axes
WIDE = 4  # a cost with a larger ratio of its ends has a log axis


class Row(NamedTuple):
    """Scores of one row, and its look; `setup` is blank for samples without guidance and real images."""

    label: str
    color: str
    marker: str
    scores: pd.DataFrame
    setup: str = ""


@draws("dots")
def plot_dots(
    page: Page, csv: File, setups: File, metrics: list[str], dataset: str | None = None, only: list[str] | None = None
) -> Figure:
    """One row per setup at its chosen scale, the smallest distance to the target class on top; one panel per metric.

    Markers with 95 % intervals are means over the training runs of the guiding classifier, small dots the single runs.
    The last rows are rejection sampling (also a dotted line), unguided samples and held-out real images.

    Args:
        metrics: metrics of the file; a metric without intervals, such as unet_evaluations, is a marker alone.
        only: the guided setups to draw; all by default.
    """
    scores, known = read_points(csv, dataset), read_setups(setups)
    known_setups(known, scores.reported["setup"], csv, setups)
    if only is not None:
        known_setups(known, only, "only", setups)
    for name in metrics:
        if not (scores.reported["metric"] == name).any():
            raise NrcgError(f"{csv}: column 'metric' has no {name!r}")
    rows = _rows(scores, {name: setup for name, setup in known.items() if only is None or name in only}, known)
    if not any(row.setup for row in rows):
        raise NrcgError(f"{csv}: no guided setup has a distance to the target class; score one with the metric fd")
    marks = [worst_mark(row.scores[row.scores["metric"].isin(metrics)]) for row in rows]
    runs = scores.repeats[scores.repeats["scale"] == scores.repeats["setup"].map(scores.best)]
    several = runs["repeat"].nunique() > 1
    features = ", ".join(dict.fromkeys(filter(None, map(extractor_of, metrics))))
    notes = [
        WORDS["dots"],
        f"Features: {features}." if features else "",
        f"Bars: {NOTE_INTERVAL}.",
        WORDS["dots_runs"] if several else "",
        scores.note,
    ]
    height = (ROW * len(rows) + REST) / matplotlib.rcParams["figure.figsize"][1]
    fig = new_figure(page.title, page.note, *notes, *mark_notes(marks), height=height)
    panels = fig.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for ax, metric in zip(panels, metrics, strict=True):
        for at, row in enumerate(rows):
            _dot(ax, row.scores[row.scores["metric"] == metric], at, color=row.color, marker=row.marker)
            own = runs[(runs["setup"] == row.setup) & (runs["metric"] == metric)]["value"] if several else []
            ax.plot(own, [at] * len(own), ".", color=row.color, markersize=3, alpha=0.5)
        for value in scores.rejection[scores.rejection["metric"] == metric]["value"].dropna():
            ax.axvline(value, color="black", linestyle=":", linewidth=0.8)
        ax.axhline(sum(bool(row.setup) for row in rows) - 0.5, color=GREY, linewidth=0.6)
        label = metric_label(metric).removesuffix(f" ({extractor})" if (extractor := extractor_of(metric)) else "")
        ax.set_xlabel(textwrap.fill(label, 14), fontsize=matplotlib.rcParams["legend.fontsize"])
        ax.tick_params(left=ax is panels[0])
        _axis(ax, metric)
    labels = [mathtext(f"{row.label}{mark}") for row, mark in zip(rows, marks, strict=True)]
    panels[0].set_yticks(range(len(rows)), labels)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    return fig


def _rows(scores: Points, drawn: dict[str, Setup], known: dict[str, Setup]) -> list[Row]:
    """Guided setups by their distance to the target class, then the levels to compare them with, if scored."""
    at_best, rows = scores.at_best(), []
    for name in at_best.query("metric == @scores.criterion").sort_values("value")["setup"]:
        if name in drawn:
            label, look = f"{known[name].label}, s = {scores.best[name]:g}", (known[name].color, known[name].marker)
            rows.append(Row(label, *look, at_best[at_best["setup"] == name], name))
    free = scores.reported[scores.reported["scale"].isna()]
    label = known[str(free["setup"].iloc[0])].label if len(free) else ""
    levels = [Row("rejection sampling", "black", "P", scores.rejection), Row(label, "black", "X", free)]
    return [*rows, *(row for row in [*levels, Row("real images", GREY, "*", scores.real)] if len(row.scores))]


def _dot(ax: Axes, rows: pd.DataFrame, at: int, **look: Any) -> None:
    """The value of one row with its interval, if it has one."""
    for row in rows.dropna(subset="value").itertuples():
        across = np.nan_to_num(np.array([[row.value - row.low], [row.high - row.value]], float)).clip(min=0)
        ax.errorbar(row.value, at, xerr=across, linestyle="", elinewidth=0.8, capsize=1, markersize=3, **look)


def _axis(ax: Axes, metric: str) -> None:
    """From 0 to 1 for shares; a log axis for costs that differ widely; from 0 for others."""
    ax.grid(axis="y", visible=False)
    low, high = ax.dataLim.x0, ax.dataLim.x1
    if is_share(metric):
        ax.set(xlim=(-0.03, 1.03), xticks=(0, 0.5, 1))
    elif low > 0 and metric == "unet_evaluations" and high / low > WIDE:
        ax.set_xscale("log")
        plain_ticks(ax.xaxis, high / low)
    else:
        ax.set_xlim(min(0.0, low), high + 0.08 * (high - low))
        ax.locator_params(axis="x", nbins=2)
