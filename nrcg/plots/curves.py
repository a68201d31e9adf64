"""Figures 1 to 4: what noise does to a classifier along the forward process."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nrcg.plots.decay import decay_note
from nrcg.plots.forward_table import (
    FORWARD_LABELS,
    ONE_CLASS,
    REASONS,
    RELATIVE,
    curve,
    in_words,
    left_out,
    ranges,
    read_forward,
)
from nrcg.plots.style import GREY, Setup, known_setups, legend_beside, new_figure, read_setups, save, styled

BAND_NOTE = "Shaded around a line: mean + 1 s.d. over images, mirrored below the mean on the log axis."
DECADES = 4  # of a log axis below the largest mean; smaller values are cut off
ALWAYS = 0.99  # share of images from which on all count as given one class
PALE = 0.3
LINE = 0.12  # inches of a line of small print
Z = 1.96  # of 95 %


def plot_forward(
    csv: str | Path,
    outputs: Sequence[str | Path],
    *,
    setups_tsv: str | Path,
    chance: float | None = None,
    style: str | Path | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw a figure of the forward analysis against the diffusion step t, a line per setup.

    accuracy               0…1, linear axis, with its 95 % Wilson interval
    logit_sensitivity      eq. 3, log axis
    gradient_sensitivity   eq. 4 and 6, log axis; below it, where the file has it, relative_sensitivity

    The band of a sensitivity reaches from mean² / (mean + std) to mean + std: one standard deviation upwards, and
    as far down on the log axis, where mean − std would often be negative. Log axes end DECADES below the largest mean.
    Where `saturated` or `clipped` say that gradients mean nothing, the figure is shaded, the curves concerned are pale,
    and the axes do not extend to them.

    Args:
        csv: columns setup, metric, t, mean, std, n; one of the metrics above, and those that `read_forward` knows.
        outputs: .png and .pdf paths.
        setups_tsv: labels and looks; `stabilizer` is named in the small print with the sum of its weights.
        chance: accuracy of guessing, 0…1, a dashed line in the accuracy figure.
        style: a matplotlib style file of the caller's, on top of the project's.
        title: above the figure.
        note: the last line of the small print.

    Raises:
        NrcgError: naming the file and column that does not fit.
    """
    table, metric = read_forward(csv)
    with styled(style):
        setups = read_setups(setups_tsv)
        names = known_setups(setups, list(table["setup"].unique()), csv, setups_tsv)
        shown = [setups[name] for name in names]
        steps = pd.Index(sorted(table["t"].unique()))
        gradients = metric == "gradient_sensitivity"
        out = {name: left_out(table, name) if gradients else pd.Series("", index=steps) for name in names}
        panels = [metric, RELATIVE] if gradients and (table["metric"] == RELATIVE).any() else [metric]
        print_lines = [*_small_print(table, metric, shown, steps, out), *note.splitlines()]
        height = (1.0, 1.7)[len(panels) - 1] + LINE * len(print_lines) / 3.4
        fig = new_figure(title, "\n".join(print_lines), height=height)
        axes = fig.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for ax, name in zip(axes, panels, strict=True):
            _panel(ax, table, name, shown, out)
        if metric == "accuracy":
            _always_one_class(axes[0], table, shown, steps)
            if chance is not None:
                axes[0].axhline(chance, color=GREY, linestyle="--", linewidth=1.0, label="guessing")
        anywhere = pd.concat(out, axis=1).fillna("").ne("").any(axis=1)
        for low, high in ranges(steps, anywhere):
            for ax in axes:
                ax.axvspan(low - 0.5, high + 0.5, color=GREY, alpha=0.1, linewidth=0, zorder=0)
        axes[-1].set_xlim(steps[0], steps[-1])
        axes[-1].set_xticks(_ticks(steps[0], steps[-1]))
        axes[-1].set_xlabel("diffusion step t")
        legend_beside(fig, *axes[0].get_legend_handles_labels())
        save(fig, outputs)
    return fig


def _panel(ax: Axes, table: pd.DataFrame, metric: str, shown: Sequence[Setup], out: dict[str, pd.Series]) -> None:
    """One metric's lines and bands, with an axis that shows what is not left out."""
    kept = []
    for i, setup in enumerate(shown):
        rows = curve(table, setup.name, metric)
        if rows.empty:
            continue
        valid = out[setup.name].reindex(rows.index, fill_value="").eq("")
        kept.append(rows[valid] if valid.any() else rows)
        _line(ax, rows, valid, setup, metric, stagger=(i + 0.5) / len(shown))
    ax.set_ylabel({RELATIVE: "relative sensitivity"}.get(metric) or FORWARD_LABELS[metric])
    if metric == "accuracy":
        ax.set_ylim(0.0, 1.03)
        return
    ax.set_yscale("log")
    rows = pd.concat(kept)
    rows = rows[np.isfinite(rows["mean"]) & (rows["mean"] > 0)]
    if len(rows):
        bottom = max(rows["mean"].min(), rows["mean"].max() * 10.0**-DECADES)
        ax.set_ylim(bottom / 1.3, (rows["mean"] + rows["std"].fillna(0.0)).max() * 1.3)


def _line(ax: Axes, rows: pd.DataFrame, valid: pd.Series, setup: Setup, metric: str, *, stagger: float) -> None:
    t, mean = rows.index.to_numpy(), rows["mean"].to_numpy()
    if metric == "accuracy":
        low, high = wilson(mean, rows["n"].to_numpy())
    else:
        high = np.where(valid, mean + rows["std"].to_numpy(), np.nan)
        low = mean**2 / high
    ax.fill_between(t, low, high, color=setup.color, alpha=0.13, linewidth=0)
    # Seven lines of hundreds of steps are told apart by a few markers each, staggered where they overlap.
    every = max(1, len(t) // 8)
    look = {"color": setup.color, "linestyle": setup.linestyle, "marker": setup.marker, "markersize": 3.5,
            "markevery": (int(stagger * every), every)}  # fmt: skip
    if not valid.all():
        ax.plot(t, mean, **look | {"alpha": PALE, "linewidth": 1.0})
    ax.plot(t, np.where(valid, mean, np.nan), **look, label=setup.label)


def wilson(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % Wilson interval of shares of n."""
    centre, spread = share + Z**2 / (2 * n), Z * np.sqrt(share * (1 - share) / n + (Z / (2 * n)) ** 2)
    return (centre - spread) / (1 + Z**2 / n), (centre + spread) / (1 + Z**2 / n)


def _always_one_class(ax: Axes, table: pd.DataFrame, shown: Sequence[Setup], steps: pd.Index) -> None:
    """A word at the plateau of a classifier that gives all images one class, under or over its line."""
    for setup in shown:
        runs = ranges(steps, curve(table, setup.name, ONE_CLASS)["mean"] >= ALWAYS)
        low, high = max(runs, key=lambda run: run[1] - run[0], default=(0, 0))
        if high - low < (steps[-1] - steps[0]) / 6:
            continue  # the word would not fit
        height = curve(table, setup.name, "accuracy")["mean"].loc[low:high].mean()
        ax.text((low + high) / 2, max(height - 0.03, 0.06), "always one class", color=setup.color, fontsize="x-small",
                ha="center", va="top")  # fmt: skip


def _small_print(
    table: pd.DataFrame, metric: str, shown: Sequence[Setup], steps: pd.Index, out: dict[str, pd.Series]
) -> list[str]:
    counts = sorted({f"{n:g}" for n in table["n"][table["metric"] == metric].dropna()}, key=float)
    images = f"{' or '.join(counts)} images, {len(steps)} values of t."
    if metric == "accuracy":
        return [f"Shaded around a line: 95 % Wilson interval. {images}"]
    lines = [f"{BAND_NOTE} Log axes end {DECADES} decades below the largest mean. {images}"]
    for reason, (_, why) in REASONS.items():
        where: dict[str, list[str]] = {}
        for setup in shown:
            if runs := ranges(steps, out[setup.name] == reason):
                where.setdefault(in_words(runs), []).append(setup.label)
        lines += [f"Grey and pale, left out of claims: {words} ({', '.join(who)}): {why}."
                  for words, who in where.items()]  # fmt: skip
    notes = [decay_note(setup.stabilizer, len(steps)) for setup in shown]
    return lines + [f"{text}." for text in dict.fromkeys(notes) if text]


def _ticks(first: int, last: int) -> list[int]:
    """Round numbers, and the first t, which is 1 or near."""
    apart = (last - first) / 20
    return [
        first,
        *(int(t) for t in MaxNLocator(8, integer=True).tick_values(first, last) if first + apart < t <= last),
    ]
