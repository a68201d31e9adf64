"""Figures 5 to 8: scores against the guidance scale; and what the guiding classifier does not see."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nrcg.errors import NrcgError
from nrcg.plots.reading import read_paper, read_points
from nrcg.plots.style import (
    GREY,
    Setup,
    is_share,
    known_setups,
    legend_beside,
    metric_label,
    new_figure,
    read_setups,
    save,
    styled,
)

LOG_DECADES = 1.5  # distances that span more than this are drawn on a log axis
TICK_DECADES = 2.2  # scales within fewer than this are labelled at 1, 2, 5, not at powers of ten alone
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

    Bars are one standard error where the file gives one. A hollow marker is a point of which samples diverged.
    Raises NrcgError naming the file and column.
    """
    points = read_points(csv, dataset)
    rows = points[(points["metric"] == metric) & points["value"].notna()]
    if rows.empty:
        raise NrcgError(f"{csv}: column 'metric' has no value for {metric!r}")
    paper = None if paper_csv is None else read_paper(paper_csv, points["dataset"].iloc[0]).query("metric == @metric")
    with styled(style):
        setups = read_setups(setups_tsv)
        fig = new_figure(title, note)
        ax = fig.add_subplot()
        _scale_axis(ax, rows["scale"])
        names = known_setups(setups, list(rows["setup"].unique()), csv, setups_tsv)
        handles = [_line(ax, rows[rows["setup"] == name].sort_values("scale"), setups[name]) for name in names]
        if (rows["n_diverged"] > 0).any():
            handles.append(Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linestyle=""))
            handles[-1].set_label("hollow: some samples diverged")
        if paper is not None:
            handles += _paper(ax, paper, setups)
        _value_axis(ax, metric, rows["value"])
        legend_beside(fig, handles, [handle.get_label() for handle in handles])
        save(fig, outputs)
    return fig


def _line(ax: Axes, rows: pd.DataFrame, setup: Setup) -> Line2D:
    """Draw one setup; returns its entry of the legend."""
    level = rows[rows["scale"].isna()]
    for value, stderr in zip(level["value"], level["stderr"], strict=True):
        ax.axhline(value, color=setup.color, linestyle="--", linewidth=1.1)
        if stderr > 0:
            ax.axhspan(value - stderr, value + stderr, color=setup.color, alpha=0.10, linewidth=0)
    guided = rows[rows["scale"].notna()]
    if len(guided):
        _with_bars(ax, guided, setup, setup.linestyle, setup.color)
    lost = guided[guided["n_diverged"] > 0]
    ax.plot(lost["scale"], lost["value"], color=setup.color, linestyle="", marker=setup.marker,
            markerfacecolor="white", zorder=3)  # fmt: skip
    return Line2D([], [], color=setup.color, linestyle=setup.linestyle, marker=setup.marker, label=setup.label)


def _with_bars(ax: Axes, rows: pd.DataFrame, setup: Setup, linestyle: str, face: str) -> None:
    """A line with bars of one standard error where there is one."""
    yerr = rows["stderr"].fillna(0.0) if rows["stderr"].notna().any() else None
    ax.errorbar(rows["scale"], rows["value"], yerr=yerr, color=setup.color, elinewidth=0.8, linestyle=linestyle,
                marker=setup.marker, markerfacecolor=face)  # fmt: skip


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

    The shaded gap is the share of samples, net, that please their own classifier and no one else.
    Raises NrcgError naming the file and column.
    """
    points = read_points(csv, dataset)
    with styled(style):
        table = read_setups(setups_tsv)
        known_setups(table, list(setups), setups_tsv, setups_tsv)
        fig = new_figure(title, note)
        axes = fig.subplots(1, 2, sharey=True)
        for ax, name, objective in zip(axes, setups, ("the raw logit", "log p"), strict=True):
            own = _share_over_scale(points, name, "accuracy", csv)
            judge = _share_over_scale(points, name, "accuracy_judge", csv)
            _contrast_panel(ax, own, judge, table[name])
            level = _unconditional_share(points, target_name)
            if level is not None:
                ax.axhline(level, color="black", linestyle="--", linewidth=1.0)
            ax.set_title(f"guided by {objective}")
        axes[0].set_ylim(-0.02, 1.05)
        axes[0].set_ylabel("share of samples")
        _contrast_legend(fig, target_name, level is not None)
        save(fig, outputs)
    return fig


def _share_over_scale(points: pd.DataFrame, setup: str, metric: str, csv: str | Path) -> pd.DataFrame:
    rows = points[(points["setup"] == setup) & (points["metric"] == metric) & points["scale"].notna()]
    if rows["value"].notna().sum() == 0:
        raise NrcgError(f"{csv}: no {metric!r} of setup {setup!r} in columns 'setup' and 'metric'")
    return rows.sort_values("scale").reset_index(drop=True)


def _unconditional_share(points: pd.DataFrame, target_name: str) -> float | None:
    for metric in (f"judge_share/{target_name}", "accuracy_judge"):
        values = points[(points["metric"] == metric) & points["scale"].isna()]["value"].dropna()
        if len(values):
            return float(values.iloc[0])
    return None


def _contrast_panel(ax: Axes, own: pd.DataFrame, judge: pd.DataFrame, setup: Setup) -> None:
    both = own.merge(judge, on="scale", suffixes=("_own", "_judge"))
    low, high = both["value_judge"], both["value_own"]
    ax.fill_between(both["scale"], low, high, where=high >= low, interpolate=True, color=setup.color, alpha=0.18,
                    linewidth=0)  # fmt: skip
    _with_bars(ax, own, setup, ":", "white")
    _with_bars(ax, judge, setup, "-", setup.color)
    _scale_axis(ax, own["scale"])


def _contrast_legend(fig: Figure, target_name: str, level: bool) -> None:
    handles = [
        Line2D([], [], color=GREY, linestyle=":", marker="o", markerfacecolor="white"),
        Line2D([], [], color=GREY, marker="o"),
        Patch(color=GREY, alpha=0.25, linewidth=0),
    ]
    labels = [
        "satisfies its own classifier",
        f"is a {target_name}\n(says the judge)",
        "fools its own classifier",
    ]
    if level:
        handles.append(Line2D([], [], color="black", linestyle="--", linewidth=1.0))
        labels.append(f"{target_name}s without\nguidance (judge)")
    legend_beside(fig, handles, labels)
