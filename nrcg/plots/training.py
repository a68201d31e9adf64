"""Loss and accuracy while the networks train."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nrcg.plots.reading import read_table
from nrcg.plots.style import GREY, MARKERS, cycle_colors, legend_beside, new_figure, save, styled

SMOOTHED = 50  # the smooth line has about this many independent values


def plot_ddpm_log(
    csv: str | Path,
    outputs: Sequence[str | Path],
    *,
    style: str | Path | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw the DDPM's training loss against the optimiser step, raw and as a centred running mean, log axis.

    csv      columns step, images, loss, lr
    outputs  .png and .pdf paths

    Raises NrcgError naming the file and column.
    """
    log = read_table(csv, numbers=("step", "images", "loss", "lr")).sort_values("step")
    window = max(1, len(log) // SMOOTHED)
    smooth = log["loss"].rolling(window, center=True, min_periods=1).mean()
    with styled(style):
        color = cycle_colors()[0]
        fig = new_figure(title, note)
        ax = fig.add_subplot()
        ax.plot(log["step"], log["loss"], color=color, alpha=0.3, linewidth=0.7, label="as logged")
        ax.plot(log["step"], smooth, color=color, label=f"running mean over\n{window} rows of the log")
        ax.set_yscale("log")
        ax.set_xlabel("optimiser step")
        ax.set_ylabel("training loss (MSE)")
        legend_beside(fig, *ax.get_legend_handles_labels())
        save(fig, outputs)
    return fig


def plot_classifier_logs(
    csvs: Sequence[tuple[str, str | Path]],
    outputs: Sequence[str | Path],
    *,
    style: str | Path | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw loss and validation accuracy of several classifiers against the epoch, a colour per classifier.

    csvs     (label, file) pairs; columns epoch, train_loss, valid_loss, valid_accuracy, valid_accuracy_noisy
    outputs  .png and .pdf paths

    Raises NrcgError naming the file and column.
    """
    numbers = ("epoch", "train_loss", "valid_loss", "valid_accuracy", "valid_accuracy_noisy")
    logs = [(label, read_table(path, numbers=numbers).sort_values("epoch")) for label, path in csvs]
    with styled(style):
        colors = cycle_colors()
        fig = new_figure(title, note)
        loss, accuracy = fig.subplots(1, 2)
        for i, (_, log) in enumerate(logs):
            look = {"color": colors[i % len(colors)], "marker": MARKERS[i % len(MARKERS)], "markersize": 3.5}
            loss.plot(log["epoch"], log["valid_loss"], **look)
            loss.plot(log["epoch"], log["train_loss"], linestyle=":", color=look["color"])
            accuracy.plot(log["epoch"], log["valid_accuracy"], **look)
            accuracy.plot(log["epoch"], log["valid_accuracy_noisy"], linestyle="--", **look)
        loss.set_yscale("log")
        accuracy.set_ylim(0.0, 1.03)
        for ax, name in ((loss, "loss (cross-entropy)"), (accuracy, "validation accuracy")):
            ax.set_xlabel("epoch")
            ax.set_ylabel(name)
            ax.xaxis.get_major_locator().set_params(integer=True)
        handles = [
            Line2D([], [], color=colors[i % len(colors)], marker=MARKERS[i % len(MARKERS)]) for i in range(len(logs))
        ]
        handles += [Line2D([], [], color=GREY, linestyle=line) for line in ("-", ":", "--")]
        labels = [*(label for label, _ in logs), "validation", "training", "noised validation"]
        legend_beside(fig, handles, labels)
        save(fig, outputs)
    return fig
