"""One look for all figures: a setup's colour and marker, the style file, and files of the same bytes every time."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import matplotlib
import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nrcg.errors import NrcgError
from nrcg.io.files import save_with
from nrcg.io.tables import read_table

MARKERS = ("o", "s", "^", "D", "v", "<", ">", "P", "X", "d", "p", "h")
GREY = "#666666"

# No date and no version in the file: identical data gives identical bytes.
METADATA = {
    ".png": {"Software": None},
    ".pdf": {"Creator": "nrcg", "Producer": None, "CreationDate": None},
}

METRIC_LABELS = {
    "accuracy": "accuracy (guiding classifier)",
    "accuracy_judge": "accuracy (judge)",
    "fid": "FID",
    "cfid": "cFID",
    "fd_judge": "FD (judge)",
    "cfd_judge": "FD to target class (judge)",
}


def metric_label(metric: str) -> str:
    """A metric's name for readers; "FID" and "cFID" are the Inception ones alone."""
    if metric.startswith("judge_share/"):
        return f"share of {metric.removeprefix('judge_share/')} (judge)"
    if metric.startswith("accuracy/"):
        return f"accuracy ({classifier_label(metric.removeprefix('accuracy/'))} classifier)"
    return METRIC_LABELS.get(metric, metric)


def classifier_label(name: str) -> str:
    """A classifier's role for readers."""
    return {"nonrobust": "non-robust"}.get(name, name)


def is_share(metric: str) -> bool:
    """Whether the metric is a share of samples, 0…1, rather than a distance."""
    return metric.startswith(("accuracy", "judge_share/"))


@dataclass(frozen=True)
class Setup:
    """One row of the setups table as it is drawn."""

    name: str
    label: str  # plain Unicode; `mathtext` makes it drawable
    classifier: str  # its role, "-" without guidance
    objective: str
    color: str
    marker: str
    linestyle: str
    stabilizer: str = "none"  # as in the table, for `decay_note`


def read_setups(path: str | Path) -> dict[str, Setup]:
    """Setups by name in row order, which fixes colour and marker; call inside `styled`, whose colours it takes.

    The unconditional setup (classifier "-") is dashed black, an objective other than the default dash-dotted, cheaper
    guidance dotted, so that setups that share a colour differ in their lines.
    Raises NrcgError naming the file and column.
    """
    table = read_table(path, text=("setup", "label", "classifier", "objective", "economy", "stabilizer"))
    if table["setup"].duplicated().any():
        name = table["setup"][table["setup"].duplicated()].iloc[0]
        raise NrcgError(f"{path}: column 'setup' holds {name!r} twice")
    colors = cycle_colors()
    setups, index = {}, 0
    for name, label, classifier, objective, economy, stabilizer in table.itertuples(index=False):
        if classifier == "-":
            setups[name] = Setup(name, label, classifier, objective, "black", "", "--")
            continue
        line = ":" if economy != "none" else "-" if objective == "default" else "-."
        color, marker = colors[index % len(colors)], MARKERS[index % len(MARKERS)]
        setups[name] = Setup(name, label, classifier, objective, color, marker, line, stabilizer)
        index += 1
    return setups


def cycle_colors() -> list[str]:
    """The style's colours in order; call inside `styled`."""
    return matplotlib.rcParams["axes.prop_cycle"].by_key().get("color", ["black"])


def known_setups(
    setups: dict[str, Setup], present: Sequence[str], csv: str | Path, setups_tsv: str | Path
) -> list[str]:
    """The setups in `present` in the table's order; raises NrcgError on one that the table does not list."""
    for name in present:
        if name not in setups:
            raise NrcgError(f"{csv}: column 'setup' holds {name!r}, which {setups_tsv} does not list")
    return [name for name in setups if name in set(present)]


def mathtext(text: str) -> str:
    """x̂₀ as a formula: few fonts place the hat."""
    return text.replace("$", r"\$").replace("x̂₀", r"$\hat{x}_0$")


@contextmanager
def styled(style: str | Path | None) -> Iterator[None]:
    """Draw and save with the project's style, or with a matplotlib style file of the caller's on top of it."""
    with matplotlib.rc_context(), as_file(files("nrcg.plots") / "nrcg.mplstyle") as own:
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the figures
        matplotlib.style.use(own)
        if style is not None:
            if not Path(style).is_file():
                raise NrcgError(f"{style}: no such style file")
            matplotlib.style.use(Path(style))
        yield


def new_figure(title: str = "", note: str = "", *, height: float = 1.0) -> Figure:
    """A figure of the style's size, `height` times as high, with a title above and a small grey note below."""
    width, base_height = matplotlib.rcParams["figure.figsize"]
    fig = Figure(figsize=(width, base_height * height), layout="constrained")
    FigureCanvasAgg(fig)
    if title:
        fig.suptitle(wrapped(title, width, per_inch=15), x=0.01, ha="left")
    if note:
        fig.text(0.01, 0.01, wrapped(note, width), ha="left", va="bottom", color=GREY,
                 fontsize=matplotlib.rcParams["figure.labelsize"])  # fmt: skip
        fig.set_figheight(fig.get_figheight() + fig.texts[-1].get_window_extent().height / fig.dpi)
        _above_note(fig)
    return fig


def _above_note(fig: Figure, room: float = 0.0) -> float:
    """Keep the layout above the small note and above `room` pixels over it; returns where the note ends, 0…1."""
    notes = [text for text in fig.texts if text is not fig._suptitle]
    end = notes[0].get_window_extent(fig.canvas.get_renderer()).y1 / fig.bbox.height if notes else 0.0
    bottom = end + room / fig.bbox.height + (0.01 if notes else 0.0)
    fig.get_layout_engine().set(rect=(0.0, bottom, 1.0, 1.0 - bottom))
    return end


def wrapped(text: str, inches: float, per_inch: int = 20) -> str:
    """The text broken into lines that fit a figure `inches` wide; its own line breaks stay. 20 suits the small note."""
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, int(inches * per_inch))]
    return mathtext("\n".join(lines))


def legend_below(fig: Figure, handles: list, labels: list[str]) -> None:
    """The legend between axes and note, in as many columns as fit, on a figure that is higher by its height."""
    look = {"loc": "lower center", "borderaxespad": 0.0, "handlelength": 2.2, "columnspacing": 1.0}
    for columns in (4, 3, 2, 1):
        legend = fig.legend(handles, [mathtext(label) for label in labels], ncols=columns, **look)
        size = legend.get_window_extent(fig.canvas.get_renderer())
        if size.width <= fig.bbox.width or columns == 1:
            break
        legend.remove()
    fig.set_figheight(fig.get_figheight() + size.height / fig.dpi)
    legend.set_bbox_to_anchor((0.5, _above_note(fig, size.height)), fig.transFigure)


def save(fig: Figure, outputs: Sequence[str | Path]) -> None:
    """Write the figure to each path, PNG or PDF by suffix, whole or not at all; raises NrcgError on another suffix."""
    for path in map(Path, outputs):
        if path.suffix not in METADATA:
            raise NrcgError(f"{path}: figures are written as .png or .pdf; choose one of these names")
    for path in map(Path, outputs):
        save_with(path, lambda temporary, m=METADATA[path.suffix]: fig.savefig(temporary, metadata=m))
