"""Figures 5 to 8: scores against the guidance scale; and the contrast of guiding classifier and judge."""

import textwrap
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nrcg.errors import NrcgError
from nrcg.evaluation.points import read_points
from nrcg.evaluation.uncertainty import NOTE_INTERVAL, mark, mark_notes
from nrcg.io.tables import read_paper
from nrcg.plots import WORDS
from nrcg.plots.setups import Setup, classifier_label, is_share, known_setups, metric_label, read_setups
from nrcg.plots.style import GREY, File, Page, draws, legend_below, new_figure

SHARES: dict[str, dict[str, Any]] = {  # line styles of the contrast
    "accuracy": {"linestyle": ":", "marker": "o", "markerfacecolor": "white"},
    "accuracy_judge": {"linestyle": "-", "marker": "o"},
}
ALIKE, APART = 20, 1.06  # shares within 1/20 at the same scale are drawn 6 % apart
LOG_DECADES = 1.5  # distances that span more than this get a log axis
TICK_DECADES = 2.2  # a log axis shorter than this has labels at 1, 2, 5, else only at powers of ten
NOTE_BARS = f"Bars: {NOTE_INTERVAL}."
NOTE_BANDS = f"Bars, and the band around the unguided level: {NOTE_INTERVAL}."
NOTE_TRAININGS = "Lines: means over training runs of the guiding classifier; dots: single runs."
PANELS = 3  # most panels of the contrast side by side


@draws("scales")
def plot_scales(
    page: Page, csv: File, metric: str, setups: File, dataset: str | None = None, paper: File | None = None
) -> Figure:
    """Figures 5 to 8: a score against the guidance scale, one line per setup; unguided samples as a dashed level.

    Bars are 95 % intervals, small dots single training runs of the guiding classifier, and the grey solid level real
    images. Hollow markers are points with diverged samples; distances from few samples are marked in the legend.
    Unguided accuracy has one level per classifier NAME with a score accuracy/NAME.

    Args:
        metric: metric of the file, such as accuracy, accuracy_judge, fid, cfid, fd_NAME, cfd_NAME, judge_share/CLASS.
        paper: adds the paper's point as an open star and its unguided value as a dotted level.
    """
    scores = read_points(csv, dataset)
    points = scores.reported
    levels = points["metric"].str.startswith(f"{metric}/") & points["scale"].isna()
    placed = points["value"].notna() & (points["scale"] != 0)  # 0 does not fit on a log axis
    rows = points[((points["metric"] == metric) | levels) & placed]
    if rows.empty:
        raise NrcgError(f"{csv}: column 'metric' has no value for {metric!r}")
    known = read_setups(setups)
    shown = known_setups(known, rows["setup"], csv, setups)
    real = scores.real[scores.real["metric"] == metric]
    marks = {setup.name: worst_mark(rows[rows["setup"] == setup.name]) for setup in shown} | {"": worst_mark(real)}
    to_all = metric == "fid" or metric.startswith("fd_")
    trainings = scores.repeats[(scores.repeats["metric"] == metric) & scores.repeats["scale"].notna()]
    several = trainings["repeat"].nunique() > 1
    values = pd.concat([rows["value"], real["value"]])
    bottom = None if is_share(metric) else log_bottom(values)
    notes = [NOTE_BANDS if rows["low"].notna().any() else "", NOTE_TRAININGS if several else ""]
    notes += [WORDS["cut_bars"] if bottom and (rows["low"] < bottom).any() else ""]
    notes += [WORDS["to_all"] if to_all else "", *mark_notes(marks.values())]
    fig = new_figure(page.title, page.note, *notes)
    ax = fig.add_subplot()
    _scale_axis(ax, rows["scale"])
    unguided = rows[rows["scale"].isna()]
    handles = [
        _level(ax, row, known, metric, marks[row.setup], (k, len(unguided)))
        for k, row in enumerate(unguided.itertuples())
    ]
    guided = _side_by_side(rows[rows["scale"].notna()], is_share(metric))
    for setup in shown:
        if len(part := guided[guided["setup"] == setup.name].sort_values("scale")):
            handles.append(_line(ax, part, setup, marks[setup.name]))
            if several:
                own = trainings[trainings["setup"] == setup.name]
                ax.plot(own["scale"], own["value"], ".", color=setup.color, markersize=3, alpha=0.6)
    if len(real):
        handles.append(_real(ax, real.iloc[0], marks[""]))
    if (rows["n_diverged"] > 0).any():
        hollow = {"color": GREY, "marker": "o", "markerfacecolor": "white", "linestyle": ""}
        handles.append(Line2D([], [], **hollow, label="hollow: some samples diverged"))
    if paper is not None:
        handles += _paper(ax, read_paper(paper, scores.dataset).query("metric == @metric"), known)
    ax.set_ylabel(textwrap.fill(metric_label(metric), 34))
    if is_share(metric):
        ax.set_ylim(-0.02, 1.03)
    elif bottom:
        log_axis(ax, bottom)
    else:
        ax.set_ylim(bottom=min(0.0, values.min()))
    legend_below(fig, handles)
    return fig


def log_bottom(values: pd.Series) -> float | None:
    """Where a log axis of these distances begins: below the smallest value, and None where a linear one fits them."""
    low, high = values.min(), values.max()
    return low / 1.5 if low > 0 and np.log10(high / low) > LOG_DECADES else None


def log_axis(ax: Axes, bottom: float) -> None:
    """A log axis that does not reach below `bottom`: an interval that reaches 0 would stretch it."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(bottom=max(low, bottom))
    plain_ticks(ax.yaxis, high / max(low, bottom))


def worst_mark(rows: pd.DataFrame) -> str:
    """† if the covariance of any point is singular, ‡ if any point has few samples."""
    return min((mark(row, row["metric"]) for _, row in rows.iterrows()), key=[" †", " ‡", ""].index, default="")


def _side_by_side(rows: pd.DataFrame, shares: bool) -> pd.DataFrame:
    """The rows with a column `at`, the drawn scale, which separates points that would overlap."""
    same = rows.groupby([rows["scale"], (rows["value"] * ALIKE).round() if shares else rows.index])["scale"]
    return rows.assign(at=rows["scale"] * APART ** (same.cumcount() - (same.transform("size") - 1) / 2))


def _level(
    ax: Axes, row: Any, setups: dict[str, Setup], metric: str, mark: str, of: tuple[int, int] = (0, 1)
) -> Line2D:
    """Draw the level of unguided samples; returns its legend entry.

    It is level k of n, `of`; their dashes alternate, so that equal levels do not hide each other.
    """
    name, (k, n) = row.metric.removeprefix(metric).removeprefix("/"), of
    dashes = "--" if n == 1 else (-4 * k, (4, 4 * (n - 1)))
    guided = next((s for s in setups.values() if s.guided and s.classifier == name), setups[row.setup])
    if np.isfinite(row.low):
        ax.axhspan(row.low, row.high, color=guided.color, alpha=0.10, linewidth=0)
    by = f" ({classifier_label(name or setups[row.setup].classifier)} classifier)" if n > 1 else ""
    label = f"{setups[row.setup].label}{mark}{by}"
    return ax.axhline(row.value, color=guided.color, linestyle=dashes, linewidth=1.1, label=label)


def _real(ax: Axes, row: pd.Series, mark: str) -> Line2D:
    """Draw the level of held-out images of the target class, an upper bound for samples."""
    label = f"real images{mark} (n = {row['n']:g})"
    return ax.axhline(row["value"], color=GREY, linestyle="-", linewidth=0.9, label=label)


def _line(ax: Axes, rows: pd.DataFrame, setup: Setup, mark: str) -> Line2D:
    look = {"color": setup.color, "marker": setup.marker}
    _with_bars(ax, rows, linestyle=setup.linestyle, **look)
    lost = rows[rows["n_diverged"] > 0]
    ax.plot(lost["at"], lost["value"], linestyle="", markerfacecolor="white", zorder=3, **look)
    return Line2D([], [], linestyle=setup.linestyle, label=f"{setup.label}{mark}", **look)


def _with_bars(ax: Axes, rows: pd.DataFrame, **look: Any) -> None:
    bars = np.nan_to_num([rows["value"] - rows["low"], rows["high"] - rows["value"]]).clip(min=0)
    ax.errorbar(rows["at"], rows["value"], yerr=bars, elinewidth=0.8, **look)


def _paper(ax: Axes, paper: pd.DataFrame, setups: dict[str, Setup]) -> list[Line2D]:
    handles = []
    for row in paper.itertuples(index=False):
        label, color = (setups[row.setup].label, setups[row.setup].color) if row.setup in setups else (row.setup, GREY)
        look = {"color": color, "label": f"{label} (paper)"}
        if np.isnan(row.scale):
            handles.append(ax.axhline(row.value, linestyle=":", linewidth=1.1, **look))
        else:
            star = {"linestyle": "", "marker": "*", "markersize": 10, "markerfacecolor": "none", "zorder": 4}
            handles += ax.plot(row.scale, row.value, **star, **look)
    return handles


def _scale_axis(ax: Axes, scales: pd.Series) -> None:
    ax.set_xlabel("guidance scale s")
    if scales.notna().any():
        ax.set_xscale("log")
        plain_ticks(ax.xaxis, scales.max() / scales.min())


def plain_ticks(axis: Axis, span: float) -> None:
    """Plain numbers along a log axis; `span` is the ratio of the largest to the smallest value."""
    if np.log10(span) < TICK_DECADES:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


@draws("contrast")
def plot_contrast(
    page: Page, csv: File, setups: File, target: str, compared: list[str], dataset: str | None = None
) -> Figure:
    """Share of the target class by the guiding classifier and by the judge, one panel per setup.

    The shaded area is the net share of samples that satisfy the guiding classifier but not the judge. The dashed
    level is judge_share/TARGET or accuracy_judge of unguided samples.

    Args:
        compared: the setups, such as one guided by the logit and one by log p.
    """
    if not compared:
        raise NrcgError("compared: no setup; give at least one")
    points, known = read_points(csv, dataset).reported, read_setups(setups)
    known_setups(known, compared, "compared", setups)
    free = points[points["scale"].isna()].dropna(subset="value").drop_duplicates("metric").set_index("metric")["value"]
    level = next((free[metric] for metric in (f"judge_share/{target}", "accuracy_judge") if metric in free), None)
    rows, columns = ceil(len(compared) / PANELS), min(len(compared), PANELS)
    fig = new_figure(page.title, page.note, NOTE_BARS, height=0.4 + 0.6 * rows)
    grid = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.flat[: len(compared)])
    for ax in grid.flat[len(compared) :]:
        ax.set_visible(False)
    for ax, name in zip(axes, compared, strict=True):
        color, shares = known[name].color, {}
        for metric, look in SHARES.items():
            found = points[(points["setup"] == name) & (points["metric"] == metric) & points["scale"].notna()]
            if found["value"].isna().all():
                raise NrcgError(f"{csv}: no {metric!r} of setup {name!r} in columns 'setup' and 'metric'")
            shares[metric] = found.sort_values("scale").assign(at=found["scale"])
            _with_bars(ax, shares[metric], color=color, **look)
        values = {metric: found.set_index("scale")["value"] for metric, found in shares.items()}
        both = pd.concat(values, axis=1).dropna()
        low, high = both["accuracy_judge"], both["accuracy"]
        look = {"color": color, "alpha": 0.18, "linewidth": 0}
        ax.fill_between(both.index, low, high, where=high >= low, interpolate=True, **look)
        ax.set_title(known[name].label)
    _scale_axis(axes[0], points[points["setup"].isin(compared)]["scale"])
    label = axes[0].get_xlabel()
    for i, ax in enumerate(axes):
        below = i + columns < len(compared)  # whether another panel is
        ax.set(xlabel="" if below else label, ylabel="" if i % columns else "share of samples")
        ax.tick_params(labelbottom=not below)
    axes[0].set_ylim(-0.02, 1.05)
    by = {"accuracy": "the guiding classifier", "accuracy_judge": "the judge"}
    handles = [Line2D([], [], **SHARES[name], color=GREY, label=f"{target} by {who}") for name, who in by.items()]
    handles.append(Patch(color=GREY, alpha=0.25, linewidth=0, label="only by the guiding classifier, net"))
    if level is not None:
        label = f"{target} without guidance, by the judge"
        handles += [ax.axhline(level, color="black", linestyle="--", linewidth=1.0, label=label) for ax in axes][:1]
    legend_below(fig, handles)
    return fig
