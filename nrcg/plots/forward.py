"""Figures 1 to 4: the effect of noise on a classifier along the forward process."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nrcg.errors import NrcgError
from nrcg.evaluation.uncertainty import wilson
from nrcg.io.tables import read_table
from nrcg.plots import WORDS
from nrcg.plots.decay import decay_note
from nrcg.plots.scales import plain_ticks
from nrcg.plots.setups import Setup, known_setups, read_setups
from nrcg.plots.style import GREY, File, Page, draws, legend_below, new_figure

FORWARD = ("accuracy", "logit_sensitivity", "gradient_sensitivity")
RELATIVE = "relative_sensitivity"
ONE_CLASS = "one_class"
MOST = 0.5  # share of images, or of values of x̂_0, above which a t is excluded
REASONS = WORDS["reasons"]
DECADES = 3  # that a log axis shows below the median of the means, at most
ALWAYS = 0.99  # share of images in one class that counts as all
PALE = 0.3


@draws("forward")
def plot_forward(page: Page, csv: File, setups: File, chance: float | None = None) -> Figure:
    """Figures 1 to 4: a metric along the forward process, one curve per setup.

    Bands are 95 % Wilson intervals for accuracy, and mean + 1 s.d., mirrored below the mean on the log axis, for
    sensitivities (eq. 3, 4 and 6). Where gradients are meaningless (REASONS), the background is shaded in the colour of
    the curves concerned, and these are pale and do not affect the axis limits.

    Args:
        csv: columns setup, metric, t, mean, std, n; one metric of FORWARD, optionally RELATIVE, ONE_CLASS, REASONS.
        setups: labels and styles; the small print lists stabilisers with the sum of their weights.
        chance: chance level, 0…1, a dashed line in the accuracy figure.
    """
    table, metric = read_forward(csv)
    shown = known_setups(read_setups(setups), table["setup"], csv, setups)
    steps = pd.Index(sorted(table["t"].unique()))
    out = {setup.name: left_out(table, setup.name) for setup in shown}
    panels = [name for name in (metric, RELATIVE) if (table["metric"] == name).any()]
    kept = {name: _meaningful(table, name, shown, out) for name in panels if name != "accuracy"}
    limits = {name: _limits(rows) for name, rows in kept.items()}
    notes = _small_print(table, metric, shown, steps, out)
    if any((rows["mean"] < limits[name][0]).any() for name, rows in kept.items()):
        notes.append(WORDS["cut"].format(decades=DECADES))
    fig = new_figure(page.title, *notes, page.note, height=1.0 if len(panels) == 1 else 1.6)
    axes = fig.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for ax, name in zip(axes, panels, strict=True):
        _panel(ax, table, name, shown, out)
        if name != "accuracy":
            ax.set_yscale("log")
            ax.set_ylim(*limits[name])
            plain_ticks(ax.yaxis, limits[name][1] / limits[name][0])
    if metric == "accuracy":
        _always_one_class(axes[0], table, shown, steps)
        if chance is not None:
            axes[0].axhline(chance, color=GREY, linestyle="--", linewidth=1.0, label="guessing")
    for _, runs, who in _gaps(shown, steps, out):
        for (low, high), ax in product(runs, axes):
            ax.axvspan(low - 0.5, high + 0.5, color=who[0].color, alpha=0.08, linewidth=0, zorder=0)
    axes[-1].set_xlim(steps[0], steps[-1])
    ticks = MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]).tick_values(steps[0], steps[-1])
    apart = (steps[-1] - steps[0]) / 20  # least distance from the first tick
    axes[-1].set_xticks([steps[0], *(int(t) for t in ticks if steps[0] + apart < t <= steps[-1])])
    axes[-1].set_xlabel("diffusion step t")
    legend_below(fig, axes[0].get_legend_handles_labels()[0])
    return fig


def _panel(ax: Axes, table: pd.DataFrame, metric: str, shown: Sequence[Setup], out: dict[str, pd.Series]) -> None:
    for i, setup in enumerate(shown):
        rows = curve(table, setup.name, metric)
        if rows.empty:
            continue
        valid = out[setup.name].reindex(rows.index, fill_value="").eq("")
        _line(ax, rows, valid, setup, metric, stagger=(i + 0.5) / len(shown))
    ax.set_ylabel(metric.replace("_", " "))
    if metric == "accuracy":
        ax.set_ylim(0.0, 1.03)


def _meaningful(table: pd.DataFrame, metric: str, shown: Sequence[Setup], out: dict[str, pd.Series]) -> pd.DataFrame:
    """The finite rows of all curves that are not left out; of a curve that is left out everywhere, all."""
    kept = []
    for setup in shown:
        rows = curve(table, setup.name, metric)
        valid = out[setup.name].reindex(rows.index, fill_value="").eq("")
        kept.append(rows[valid] if valid.any() else rows)
    rows = pd.concat(kept)
    return rows[np.isfinite(rows["mean"])]


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Ends of a log axis: the means, those that vanish aside, and the bands above."""
    means = rows["mean"][rows["mean"] > 0]
    if means.empty:
        return 0.1, 1.0
    low = max(means.min(), means.median() * 10.0**-DECADES)
    return low / 1.3, (rows["mean"] + rows["std"].fillna(0.0)).max() * 1.3


def _line(ax: Axes, rows: pd.DataFrame, valid: pd.Series, setup: Setup, metric: str, *, stagger: float) -> None:
    mean = rows["mean"]
    if metric == "accuracy":
        low, high = wilson(mean, rows["n"])
    else:
        high = (mean + rows["std"]).where(valid)
        low = mean**2 / high
    ax.fill_between(rows.index, low, high, color=setup.color, alpha=0.13, linewidth=0)
    # A few markers per line, staggered, distinguish overlapping lines of hundreds of steps.
    every = max(1, len(rows) // 8)
    look = {"color": setup.color, "linestyle": setup.linestyle, "marker": setup.marker, "markersize": 3.5,
            "markevery": (int(stagger * every), every)}  # fmt: skip
    if not valid.all():
        ax.plot(rows.index, mean, **look | {"alpha": PALE, "linewidth": 1.0})
    ax.plot(rows.index, mean.where(valid), **look, label=setup.label)


def _always_one_class(ax: Axes, table: pd.DataFrame, shown: Sequence[Setup], steps: pd.Index) -> None:
    """Label the plateau of a classifier that assigns all images to one class, below or above all lines."""
    for setup in shown:
        runs = ranges(steps, curve(table, setup.name, ONE_CLASS)["mean"] >= ALWAYS)
        low, high = max(runs, key=lambda run: run[1] - run[0], default=(0, 0))
        if high - low < (steps[-1] - steps[0]) / 6:
            continue  # the label would not fit
        rows = table[(table["metric"] == "accuracy") & table["t"].between(low, high)]
        below, above = rows["mean"].min() - 0.03, rows["mean"].max() + 0.03
        place = {"y": below, "va": "top"} if below > 0.08 else {"y": above, "va": "bottom"}
        ax.text((low + high) / 2, **place, s="always one class", color=setup.color, fontsize="x-small", ha="center")


def _small_print(
    table: pd.DataFrame, metric: str, shown: Sequence[Setup], steps: pd.Index, out: dict[str, pd.Series]
) -> list[str]:
    counts = sorted({f"{n:g}" for n in table["n"][table["metric"] == metric].dropna()}, key=float)
    images = f"{' or '.join(counts)} images, {len(steps)} values of t."
    if metric == "accuracy":
        return [f"Shaded around a line: 95 % Wilson intervals. {images}"]
    gaps = [f"Shaded, pale, and excluded from claims: {in_words(runs)} ({', '.join(s.label for s in who)}): {why}."
            for why, runs, who in _gaps(shown, steps, out)]  # fmt: skip
    notes = dict.fromkeys(decay_note(setup.stabilizer, len(steps)) for setup in shown)
    band = f"{WORDS['band']} {images}"
    if (table["metric"] == RELATIVE).any():
        band += f" {WORDS['relative']}"
    return [band, *gaps, " ".join(f"{text}." for text in notes if text)]


def _gaps(shown: Sequence[Setup], steps: pd.Index, out: dict[str, pd.Series]) -> list[tuple]:
    """(reason, ranges of t, setups) for excluded t; setups with the same ranges are grouped."""
    gaps: dict[tuple[str, str], tuple] = {}
    for reason, (_, why) in REASONS.items():
        for setup in shown:
            if runs := ranges(steps, out[setup.name] == reason):
                gaps.setdefault((reason, in_words(runs)), (why, runs, []))[2].append(setup)
    return list(gaps.values())


def read_forward(path: File) -> tuple[pd.DataFrame, str]:
    """A figure's table: columns setup, metric, t (int), mean, std, n (NaN if missing); and its metric of FORWARD."""
    table = read_table(path, text=("setup", "metric"), numbers=("t", "mean", "std", "n"))
    shown = [metric for metric in table["metric"].unique() if metric in FORWARD]
    if len(shown) != 1:
        found = ", ".join(table["metric"].unique())
        raise NrcgError(f"{path}: column 'metric' must hold one of {', '.join(FORWARD)}, not {found}")
    if table["t"].isna().any() or table.duplicated(["setup", "metric", "t"]).any():
        raise NrcgError(f"{path}: a row without t, or two rows of a setup at the same t; make the file again")
    return table.astype({"t": int}), shown[0]


def curve(table: pd.DataFrame, setup: str, metric: str) -> pd.DataFrame:
    """Columns mean, std and n of one curve, by ascending t; empty if there is none."""
    rows = table[(table["setup"] == setup) & (table["metric"] == metric)]
    return rows.set_index("t")[["mean", "std", "n"]].sort_index()


def left_out(table: pd.DataFrame, setup: str) -> pd.Series:
    """For each t of a setup, the key of REASONS why its gradients are meaningless there, or an empty string."""
    reasons = pd.Series("", index=sorted(table["t"][table["setup"] == setup].unique()), dtype=object)
    for metric in REASONS:
        share = curve(table, setup, metric)["mean"]
        reasons[share.index[share >= MOST]] = metric
    return reasons


def ranges(steps: pd.Index, of: pd.Series) -> list[tuple[int, int]]:
    """First and last of each run of consecutive `steps` at which `of` (bool, indexed by t) holds."""
    holds = of.reindex(steps, fill_value=False).to_numpy(bool)
    edges = np.flatnonzero(np.diff(holds, prepend=False, append=False)).reshape(-1, 2)
    return [(steps[first], steps[after - 1]) for first, after in edges]


def in_words(runs: list[tuple[int, int]]) -> str:
    """`t = 3, 59–100`."""
    return "t = " + ", ".join(f"{low}–{high}" if low < high else f"{low}" for low, high in runs)
