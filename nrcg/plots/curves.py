"""Figures 1 to 4: what noise does to a classifier along the forward process."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nrcg.errors import NrcgError
from nrcg.plots.reading import read_table
from nrcg.plots.style import GREY, Setup, known_setups, legend_beside, new_figure, read_setups, save, styled

FORWARD_LABELS = {
    "accuracy": "accuracy",
    "logit_sensitivity": "logit sensitivity",
    "gradient_sensitivity": "gradient sensitivity",
}
BAND_NOTE = "Line: mean over images. Band: one standard deviation upwards, and as far down on the log axis."


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
    """Draw one metric of the forward analysis against the diffusion step t, a line per setup.

    csv         columns setup, metric, t, mean, std, n with one metric:
                accuracy (0…1, linear axis), logit_sensitivity (eq. 3) or gradient_sensitivity (eq. 4 and 6), log axis
    outputs     .png and .pdf paths
    chance      accuracy of guessing, 0…1, a dashed line in the accuracy figure
    note        small line under the figure

    The band of a sensitivity reaches from mean² / (mean + std) to mean + std: one standard deviation upwards, and
    as far down on the log axis, where mean − std would often be negative. Accuracy has no band.

    Raises NrcgError naming the file and column.
    """
    table = read_table(csv, text=("setup", "metric"), numbers=("t", "mean", "std", "n"))
    metrics = list(table["metric"].unique())
    if len(metrics) != 1 or metrics[0] not in FORWARD_LABELS:
        raise NrcgError(
            f"{csv}: column 'metric' must hold one of {', '.join(FORWARD_LABELS)}, not {', '.join(metrics)}"
        )
    sensitivity = metrics[0] != "accuracy"
    with styled(style):
        setups = read_setups(setups_tsv)
        fig = new_figure(title, f"{BAND_NOTE}\n{note}" if sensitivity else note)
        ax = fig.add_subplot()
        names = known_setups(setups, list(table["setup"].unique()), csv, setups_tsv)
        for i, name in enumerate(names):
            rows = table[table["setup"] == name].sort_values("t")
            _curve(ax, rows, setups[name], band=sensitivity, stagger=(i + 0.5) / len(names))
        if sensitivity:
            ax.set_yscale("log")
        else:
            ax.set_ylim(0.0, 1.03)
            if chance is not None:
                ax.axhline(chance, color=GREY, linestyle="--", linewidth=1.0, label="guessing")
        ax.set_xlim(table["t"].min(), table["t"].max())
        ax.set_xlabel("diffusion step t")
        ax.set_ylabel(FORWARD_LABELS[metrics[0]])
        legend_beside(fig, *ax.get_legend_handles_labels())
        save(fig, outputs)
    return fig


def _curve(ax: Axes, rows: pd.DataFrame, setup: Setup, *, band: bool, stagger: float) -> None:
    t, mean = rows["t"].to_numpy(), rows["mean"].to_numpy()
    if band:
        upper = mean + rows["std"].to_numpy()
        ax.fill_between(t, mean**2 / upper, upper, color=setup.color, alpha=0.13, linewidth=0)
    # Seven lines of hundreds of steps are told apart by a few markers each, staggered where they overlap.
    every = max(1, len(t) // 8)
    ax.plot(t, mean, color=setup.color, linestyle=setup.linestyle, marker=setup.marker, markersize=3.5,
            markevery=(int(stagger * every), every), label=setup.label)  # fmt: skip
