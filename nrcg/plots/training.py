"""Loss and accuracy during training."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nrcg.io.tables import read_table
from nrcg.plots import WORDS
from nrcg.plots.setups import classifier_label, read_setups
from nrcg.plots.style import GREY, File, Page, cycle_colors, draws, legend_below, new_figure

LEAST_LOSS = 1e-4  # of a classifier; below it there is nothing to compare
MARKED = 10  # markers of a classifier's curve
SMOOTHED = 50  # the smooth line has about this many independent values


@draws("ddpm_log")
def plot_ddpm_log(page: Page, csv: File) -> Figure:
    """A DDPM's training loss against the optimiser step, as logged and as a centred running mean; log axis.

    `csv` has the columns step, images, loss, lr.
    """
    log = read_table(csv, numbers=("step", "images", "loss", "lr")).sort_values("step")
    window = max(1, len(log) // SMOOTHED)
    smooth = log["loss"].rolling(window, center=True, min_periods=1).mean()
    color, fig = cycle_colors()[0], new_figure(page.title, page.note)
    ax = fig.add_subplot()
    ax.plot(log["step"], log["loss"], color=color, alpha=0.3, linewidth=0.7, label="as logged")
    ax.plot(log["step"], smooth, color=color, label=f"running mean over {window} rows of the log")
    ax.set(yscale="log", xlabel="optimiser step", ylabel="training loss (MSE)")
    legend_below(fig, ax.lines)
    return fig


@draws("classifier_logs")
def plot_classifier_logs(page: Page, logs: dict[str, str], setups: File) -> Figure:
    """Loss and validation accuracy of several classifiers against the epoch.

    A classifier has the style of the first setup it guides, or black; losses are cut off at LEAST_LOSS.

    Args:
        logs: classifier name → CSV with columns epoch, train_loss, valid_loss, valid_accuracy, valid_accuracy_noisy.
    """
    numbers = ("epoch", "train_loss", "valid_loss", "valid_accuracy", "valid_accuracy_noisy")
    tables = {name: read_table(path, numbers=numbers).sort_values("epoch") for name, path in logs.items()}
    known = [setup for setup in read_setups(setups).values() if setup.guided]
    handles, fig = [], new_figure(page.title, WORDS["classifiers"].format(least=LEAST_LOSS), page.note)
    loss, clean, noisy = fig.subplots(1, 3)
    noisy.sharey(clean)
    for name, log in tables.items():
        color, marker = next(((s.color, s.marker) for s in known if s.classifier == name), ("black", "*"))
        look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 6 if marker == "*" else 3}
        look |= {"linewidth": 1.0, "markevery": max(1, len(log) // MARKED)}
        train = look | {"linestyle": ":", "markerfacecolor": "white"}
        loss.plot(log["epoch"], log["valid_loss"].clip(lower=LEAST_LOSS), **look)
        loss.plot(log["epoch"], log["train_loss"].clip(lower=LEAST_LOSS), **train)
        clean.plot(log["epoch"], log["valid_accuracy"], **look)
        noisy.plot(log["epoch"], log["valid_accuracy_noisy"], **look)
        handles.append(Line2D([], [], **look, label=classifier_label(name)))
    loss.set(yscale="log", ylabel="loss (cross-entropy)")
    clean.set(ylabel="accuracy, clean images", ylim=(0, 1.03))
    noisy.set_ylabel("accuracy, noised images")
    end = max(log["epoch"].max() for log in tables.values()) + 0.5
    for ax in (loss, clean, noisy):
        ax.set(xlabel="epoch", xlim=(0.5, end))
        ax.xaxis.get_major_locator().set_params(integer=True)
    grey = {"color": GREY, "marker": "o"}
    handles.append(Line2D([], [], **grey, label="on validation images"))
    handles.append(Line2D([], [], **grey, markerfacecolor="white", linestyle=":", label="on training images"))
    legend_below(fig, handles)
    return fig
