"""Figures 5 to 8: scores against the guidance scale; and what the guiding classifier and a judge say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nrcg.errors import NrcgError
from nrcg.evaluation.uncertainty import NOTE_INTERVAL, mark, mark_notes, wilson
from nrcg.io.tables import read_paper, read_points
from nrcg.plots.style import (
    GREY,
    Setup,
    classifier_label,
    is_share,
    known_setups,
    legend_below,
    metric_label,
    new_figure,
    read_setups,
    save,
    styled,
)

ALIKE, APART = 20, 1.06  # shares within 1/20 at one scale are drawn with scales 6 % apart
LOG_DECADES = 1.5  # distances that span more than this are drawn on a log axis
TICK_DECADES = 2.2  # scales within fewer than this are labelled at 1, 2, 5, not at powers of ten alone
NOTE_BARS = f"Bars: {NOTE_INTERVAL}."
NOTE_ALL = (
    "A higher distance to all images is expected of better steering, which leaves the other classes out; it also rises "
    "where samples break. The distance to the target class tells the two apart."
)
CONTRAST = ("nonrobust_x0_ema0.99", "nonrobust_x0_ema0.99_logprob")


def plot_scales(
    csv: str | Path,
    metric: str,
    outputs: Sequence[str | Path],
    *,
    setups_tsv: str | Path,
    dataset: str | None = None,
    paper_csv: str | Path | None = None,
    style: str | Path | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw one metric against the guidance scale (log axis), a line per setup, unconditional as a dashed level.

    csv         collected metrics: dataset, setup, scale, metric, value, stderr, n, n_diverged, features
    metric      accuracy, accuracy_judge, fid, cfid, fd_judge, cfd_judge or judge_share/CLASS
    outputs     .png and .pdf paths
    dataset     which data set of the file; None takes its only one
    paper_csv   the paper's numbers: its point an open star, its unconditional value a dotted level; only metrics
                that the paper has (accuracy, fid, cfid) ever match

    Bars are 95 % intervals of shares. Points of equal scale and share stand beside each other. A hollow marker is a
    point of which samples diverged; distances from few samples are marked in the legend. With the accuracy, the
    unconditional samples have a level for each classifier NAME that scored them as accuracy/NAME, in the colour of the
    setup that it guides. Raises NrcgError naming the file and column.
    """
    points = read_points(csv, dataset)
    levels = points["metric"].str.startswith(f"{metric}/") & points["scale"].isna()
    rows = points[((points["metric"] == metric) | levels) & points["value"].notna()]
    if rows.empty:
        raise NrcgError(f"{csv}: column 'metric' has no value for {metric!r}")
    paper = None if paper_csv is None else read_paper(paper_csv, points["dataset"].iloc[0]).query("metric == @metric")
    with styled(style):
        setups = read_setups(setups_tsv)
        names = known_setups(setups, list(rows["setup"].unique()), csv, setups_tsv)
        marks = {name: _worst_mark(rows[rows["setup"] == name]) for name in names}
        notes = [note, NOTE_BARS if is_share(metric) else "", NOTE_ALL if metric in ("fid", "fd_judge") else ""]
        notes += mark_notes(marks.values())
        fig = new_figure(title, "\n".join(filter(None, notes)))
        ax = fig.add_subplot()
        _scale_axis(ax, rows["scale"])
        handles = []
        for row in rows[rows["scale"].isna()].itertuples():
            handles.append(_level(ax, row, setups, metric, marks[row.setup]))
        guided = _side_by_side(rows[rows["scale"].notna()], is_share(metric))
        for name in names:
            if len(part := guided[guided["setup"] == name].sort_values("scale")):
                handles.append(_line(ax, part, setups[name], metric, marks[name]))
        if (rows["n_diverged"] > 0).any():
            handles.append(Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linestyle=""))
            handles[-1].set_label("hollow: some samples diverged")
        if paper is not None:
            handles += _paper(ax, paper, setups)
        _value_axis(ax, metric, rows["value"])
        legend_below(fig, handles, [handle.get_label() for handle in handles])
        save(fig, outputs)
    return fig


def _worst_mark(rows: pd.DataFrame) -> str:
    """† where some point's covariance is singular, ‡ where some has few samples."""
    marks = [mark(row) for _, row in rows.iterrows()]
    return next((text for text in (" †", " ‡") if text in marks), "")


def _side_by_side(rows: pd.DataFrame, shares: bool) -> pd.DataFrame:
    """The rows with a column `at`, the scale as drawn: points that would hide each other are moved apart."""
    same = [rows["scale"], (rows["value"] * ALIKE).round() if shares else rows.index]
    place = rows.groupby(same)["scale"].cumcount() - (rows.groupby(same)["scale"].transform("size") - 1) / 2
    return rows.assign(at=rows["scale"] * APART**place)


def _level(ax: Axes, row: Any, setups: dict[str, Setup], metric: str, mark: str) -> Line2D:
    """Draw the unconditional samples' value across the axes; returns its entry of the legend."""
    name = row.metric.removeprefix(metric).removeprefix("/")
    guided = next((setup for setup in setups.values() if setup.classifier == name), setups[row.setup])
    if is_share(metric):
        ax.axhspan(*wilson(row.value, row.n), color=guided.color, alpha=0.10, linewidth=0)
    label = f"{setups[row.setup].label}{mark}" + (f" ({classifier_label(name)} classifier)" if name else "")
    return ax.axhline(row.value, color=guided.color, linestyle="--", linewidth=1.1, label=label)


def _line(ax: Axes, rows: pd.DataFrame, setup: Setup, metric: str, mark: str) -> Line2D:
    """Draw the guided points of a setup; returns its entry of the legend."""
    _with_bars(ax, rows, metric, color=setup.color, linestyle=setup.linestyle, marker=setup.marker)
    lost = rows[rows["n_diverged"] > 0]
    ax.plot(lost["at"], lost["value"], color=setup.color, linestyle="", marker=setup.marker,
            markerfacecolor="white", zorder=3)  # fmt: skip
    return Line2D([], [], color=setup.color, linestyle=setup.linestyle, marker=setup.marker,
                  label=f"{setup.label}{mark}")  # fmt: skip


def _with_bars(ax: Axes, rows: pd.DataFrame, metric: str, **look: Any) -> None:
    """A line, with the intervals of shares as bars."""
    bars = None
    if is_share(metric):
        low, high = wilson(rows["value"], rows["n"])
        bars = np.nan_to_num([rows["value"] - low, high - rows["value"]])
    ax.errorbar(rows["at"], rows["value"], yerr=bars, elinewidth=0.8, **look)


def _paper(ax: Axes, paper: pd.DataFrame, setups: dict[str, Setup]) -> list[Line2D]:
    """Draw the paper's point and level; returns their entries of the legend."""
    handles = []
    for row in paper.itertuples(index=False):
        setup = setups.get(row.setup)
        label = f"{setup.label if setup else row.setup} (paper)"
        color = setup.color if setup else GREY
        if np.isnan(row.scale):
            handles.append(ax.axhline(row.value, color=color, linestyle=":", linewidth=1.1, label=label))
        else:
            handles += ax.plot(row.scale, row.value, color=color, linestyle="", marker="*", markersize=12,
                               markerfacecolor="none", label=label, zorder=4)  # fmt: skip
    return handles


def _scale_axis(ax: Axes, scales: pd.Series) -> None:
    ax.set_xlabel("guidance scale s")
    if scales.notna().any():
        ax.set_xscale("log")
        if np.log10(scales.max() / scales.min()) < TICK_DECADES:
            ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())


def _value_axis(ax: Axes, metric: str, values: pd.Series) -> None:
    ax.set_ylabel(metric_label(metric))
    if is_share(metric):
        ax.set_ylim(-0.02, 1.03)
    elif values.min() > 0 and np.log10(values.max() / values.min()) > LOG_DECADES:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=min(0.0, values.min()))


def plot_contrast(
    csv: str | Path,
    outputs: Sequence[str | Path],
    *,
    setups_tsv: str | Path,
    target_name: str,
    setups: tuple[str, str] = CONTRAST,
    dataset: str | None = None,
    style: str | Path | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw what the guiding classifier says of its samples against what the judge says, a panel per objective.

    csv          collected metrics with accuracy and accuracy_judge of both setups; judge_share/TARGET_NAME or
                 accuracy_judge of the unconditional samples gives the level to beat
    target_name  the class asked for, as in "is a baseball"
    setups       the setup that follows the raw logit, and the one that follows log p

    Both panels have one range of scales. The shaded gap is the share of samples, net, that are TARGET_NAME to the
    guiding classifier and not to the judge.
    Raises NrcgError naming the file and column.
    """
    points = read_points(csv, dataset)
    with styled(style):
        table = read_setups(setups_tsv)
        known_setups(table, list(setups), setups_tsv, setups_tsv)
        fig = new_figure(title, f"{note}\n{NOTE_BARS}".strip())
        axes = fig.subplots(1, 2, sharex=True, sharey=True)
        for ax, name, objective in zip(axes, setups, ("the raw logit", "log p"), strict=True):
            own = _share_over_scale(points, name, "accuracy", csv)
            judge = _share_over_scale(points, name, "accuracy_judge", csv)
            _contrast_panel(ax, own, judge, table[name].color)
            level = _unconditional_share(points, target_name)
            if level is not None:
                ax.axhline(level, color="black", linestyle="--", linewidth=1.0)
            ax.set_title(f"guided by {objective}")
        _scale_axis(axes[0], points[points["setup"].isin(setups)]["scale"])
        axes[1].set_xlabel(axes[0].get_xlabel())
        axes[0].set_ylim(-0.02, 1.05)
        axes[0].set_ylabel("share of samples")
        _contrast_legend(fig, target_name, level is not None)
        save(fig, outputs)
    return fig


def _share_over_scale(points: pd.DataFrame, setup: str, metric: str, csv: str | Path) -> pd.DataFrame:
    rows = points[(points["setup"] == setup) & (points["metric"] == metric) & points["scale"].notna()]
    if rows["value"].notna().sum() == 0:
        raise NrcgError(f"{csv}: no {metric!r} of setup {setup!r} in columns 'setup' and 'metric'")
    return rows.sort_values("scale").reset_index(drop=True).assign(at=lambda table: table["scale"])


def _unconditional_share(points: pd.DataFrame, target_name: str) -> float | None:
    for metric in (f"judge_share/{target_name}", "accuracy_judge"):
        values = points[(points["metric"] == metric) & points["scale"].isna()]["value"].dropna()
        if len(values):
            return float(values.iloc[0])
    return None


def _contrast_panel(ax: Axes, own: pd.DataFrame, judge: pd.DataFrame, color: str) -> None:
    both = own.merge(judge, on="scale", suffixes=("_own", "_judge"))
    low, high = both["value_judge"], both["value_own"]
    ax.fill_between(both["scale"], low, high, where=high >= low, interpolate=True, color=color, alpha=0.18, linewidth=0)
    _with_bars(ax, own, "accuracy", color=color, linestyle=":", marker="o", markerfacecolor="white")
    _with_bars(ax, judge, "accuracy_judge", color=color, linestyle="-", marker="o")


def _contrast_legend(fig: Figure, target_name: str, level: bool) -> None:
    handles = [
        Line2D([], [], color=GREY, linestyle=":", marker="o", markerfacecolor="white"),
        Line2D([], [], color=GREY, marker="o"),
        Patch(color=GREY, alpha=0.25, linewidth=0),
    ]
    labels = [
        f"{target_name} by the guiding classifier",
        f"{target_name} by the judge",
        "by the guiding classifier alone, net",
    ]
    if level:
        handles.append(Line2D([], [], color="black", linestyle="--", linewidth=1.0))
        labels.append(f"{target_name} without guidance, by the judge")
    legend_below(fig, handles, labels)
