"""Loss and accuracy while the networks train."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nrcg.io.tables import read_table
from nrcg.plots.style import GREY, classifier_label, cycle_colors, legend_below, new_figure, read_setups, save, styled

LEAST_LOSS = 1e-4  # of a classifier; below it there is nothing to compare
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
        ax.plot(log["step"], smooth, color=color, label=f"running mean over {window} rows of the log")
        ax.set_yscale("log")
        ax.set_xlabel("optimiser step")
        ax.set_ylabel("training loss (MSE)")
        legend_below(fig, *ax.get_legend_handles_labels())
        save(fig, outputs)
    return fig


def plot_classifier_logs(
    csvs: Sequence[tuple[str, str | Path]],
    outputs: Sequence[str | Path],
    *,
    setups_tsv: str | Path,
    style: str | Path | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw loss and validation accuracy of several classifiers against the epoch.

    csvs     (role, file) pairs; columns epoch, train_loss, valid_loss, valid_accuracy, valid_accuracy_noisy
    outputs  .png and .pdf paths

    A role has the colour and marker of the first setup that this classifier guides, one that guides none is black, as
    in all other figures. Losses below 1e-4 are drawn there. Raises NrcgError naming the file and column.
    """
    numbers = ("epoch", "train_loss", "valid_loss", "valid_accuracy", "valid_accuracy_noisy")
    logs = [(role, read_table(path, numbers=numbers).sort_values("epoch")) for role, path in csvs]
    with styled(style):
        fig = new_figure(title, note)
        loss, clean, noisy = fig.subplots(1, 3)
        setups, handles = list(read_setups(setups_tsv).values()), []
        for role, log in logs:
            color, marker = next(((s.color, s.marker) for s in setups if s.classifier == role), ("black", "*"))
            look = {"color": color, "marker": marker, "markersize": 9 if marker == "*" else 4.5}
            loss.plot(log["epoch"], log["valid_loss"].clip(lower=LEAST_LOSS), **look)
            loss.plot(log["epoch"], log["train_loss"].clip(lower=LEAST_LOSS), **look, linestyle=":",
                      markerfacecolor="white")  # fmt: skip
            clean.plot(log["epoch"], log["valid_accuracy"], **look)
            noisy.plot(log["epoch"], log["valid_accuracy_noisy"], **look)
            handles.append(Line2D([], [], **look, label=classifier_label(role)))
        loss.set_yscale("log")
        for ax, name in ((loss, "loss (cross-entropy)"), (clean, "accuracy, clean images"),
                         (noisy, "accuracy, noised images")):  # fmt: skip
            ax.set_xlabel("epoch")
            ax.set_ylabel(name)
            ax.set_xlim(0.5, max(log["epoch"].max() for _, log in logs) + 0.5)
            ax.xaxis.get_major_locator().set_params(integer=True)
        handles += [
            Line2D([], [], color=GREY, marker="o", label="on validation images"),
            Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linestyle=":", label="on training images"),
        ]
        legend_below(fig, handles, [handle.get_label() for handle in handles])
        save(fig, outputs)
    return fig
