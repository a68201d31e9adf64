"""The common style of all figures, and reproducible output files."""

import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from importlib.resources import as_file, files
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from nrcg.errors import NrcgError
from nrcg.io.files import atomic
from nrcg.plots import figures

MARKERS = ("o", "s", "^", "D", "v", "<", ">", "P", "X", "d", "p", "h")
GREY = "#666666"
NOTE, TITLE = 22, 15  # characters per inch of the small note, and of the title
METADATA = {  # no date and no version, so that identical data gives identical bytes
    ".png": {"Software": None},
    ".pdf": {"Creator": "nrcg", "Producer": None, "CreationDate": None},
}
MOVIES: dict[str, dict[str, Any]] = {".webp": {"quality": 65, "method": 4}, ".gif": {"optimize": True}}
MILLISECONDS = 120  # per picture of a movie; the last one stays twenty times as long
File = str | Path


@dataclass(frozen=True)
class Page:
    """Title and small print of a figure."""

    title: str = ""  # above the figure
    note: str = ""  # lines of small print below it, such as the size of the run


def draws(
    name: str, movie: Callable[..., Iterable[Image.Image]] | None = None
) -> Callable[[Callable[..., Figure]], Callable[..., Figure]]:
    """Decorator that registers a function (page, arguments) as a figure (outputs, *, arguments, style, title, note).

    Outputs with a suffix of MOVIES are written from the pictures of movie(page, arguments).
    """

    def register(draw: Callable[..., Figure]) -> Callable[..., Figure]:
        @wraps(draw)
        def drawn(
            outputs: Sequence[File], *, style: File | None = None, title: str = "", note: str = "", **arguments: Any
        ) -> Figure:
            moving = [path for path in map(Path, outputs) if movie and path.suffix in MOVIES]
            with styled(style):
                fig = draw(page := Page(title, note), **arguments)
                save(fig, [path for path in map(Path, outputs) if path not in moving])
                if movie and moving:
                    save_movie(movie(page, **arguments), moving)
            return fig

        outputs, *common, _ = signature(drawn, follow_wrapped=False).parameters.values()
        own = [part.replace(kind=Parameter.KEYWORD_ONLY) for part in list(signature(draw).parameters.values())[1:]]
        drawn.__signature__ = Signature([outputs, *own, *common])  # type: ignore[attr-defined]
        return figures.register(name)(drawn)

    return register


def cycle_colors() -> list[str]:
    """The style's colours in order; call inside `styled`."""
    return matplotlib.rcParams["axes.prop_cycle"].by_key().get("color", ["black"])


def mathtext(text: str) -> str:
    """x̂₀ as a formula, since few fonts place the hat correctly."""
    return text.replace("$", r"\$").replace("x̂₀", r"$\hat{x}_0$")


@contextmanager
def styled(style: File | None) -> Iterator[None]:
    """Draw and save with nrcg's style, optionally modified by a matplotlib style file."""
    with matplotlib.rc_context(), as_file(files("nrcg.plots") / "nrcg.mplstyle") as own:
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the figures
        matplotlib.style.use(own)
        if style is not None:
            if not Path(style).is_file():
                raise NrcgError(f"{style}: no such style file")
            matplotlib.style.use(Path(style))
        yield


def new_figure(title: str = "", *notes: str, height: float = 1.0) -> Figure:
    """A figure of the style's size, `height` times as high, with a title above and small grey notes below."""
    note = "\n".join(filter(None, notes))
    width, base_height = matplotlib.rcParams["figure.figsize"]
    fig = Figure(figsize=(width, base_height * height), layout="constrained")
    FigureCanvasAgg(fig)
    if title:
        fig.suptitle(wrapped(title, width, per_inch=TITLE), x=0.01, ha="left")
    if note:
        small = matplotlib.rcParams["figure.labelsize"]
        text = fig.text(0.01, 0.01, wrapped(note, width), ha="left", va="bottom", color=GREY, fontsize=small)
        fig.set_figheight(fig.get_figheight() + text.get_window_extent().height / fig.dpi)
        _above_note(fig)
    return fig


def text_figure(page: "Page", text: str) -> Figure:
    """A page that says why there is nothing to draw."""
    fig = new_figure(page.title, page.note, height=0.5)
    size = matplotlib.rcParams["font.size"]
    fig.text(0.01, 0.5, wrapped(text, fig.get_figwidth(), per_inch=TITLE), va="center", fontsize=size)
    return fig


def _above_note(fig: Figure, room: float = 0.0) -> float:
    """Keep the layout `room` pixels above the small note; returns the top of the note, 0…1."""
    notes = [text for text in fig.texts if text is not fig._suptitle]
    end = notes[0].get_window_extent().y1 / fig.bbox.height if notes else 0.0
    bottom = end + room / fig.bbox.height + (0.01 if notes else 0.0)
    fig.get_layout_engine().set(rect=(0.0, bottom, 1.0, 1.0 - bottom))
    return end


def wrapped(text: str, inches: float, per_inch: int = NOTE) -> str:
    """The text wrapped to a figure `inches` wide, keeping line breaks."""
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, int(inches * per_inch))]
    return mathtext("\n".join(lines))


def legend_below(fig: Figure, handles: Sequence[Any]) -> None:
    """Add the legend between axes and note, in as many columns as fit, and increase the figure's height."""
    gaps = {"borderaxespad": 0.0, "handlelength": 2.2, "handletextpad": 0.5, "columnspacing": 0.8}
    labels = [mathtext(handle.get_label()) for handle in handles]
    usual, small = (matplotlib.rcParams[f"{part}size"] for part in ("legend.font", "figure.label"))
    for columns, font in ((4, usual), (3, usual), (2, usual), (2, small), (1, usual)):
        legend = fig.legend(handles, labels, ncols=columns, fontsize=font, loc="lower center", **gaps)
        size = legend.get_window_extent()
        if size.width <= fig.bbox.width or columns == 1:
            break
        legend.remove()
    fig.set_figheight(fig.get_figheight() + size.height / fig.dpi)
    legend.set_bbox_to_anchor((0.5, _above_note(fig, size.height)), fig.transFigure)


def with_suffix(outputs: Iterable[File], kind: str, suffixes: Collection[str]) -> list[Path]:
    """The paths; NrcgError, before any is written, for one with another suffix."""
    paths = list(map(Path, outputs))
    for path in paths:
        if path.suffix not in suffixes:
            raise NrcgError(f"{path}: {kind} are written as {', '.join(suffixes)}; choose one of these suffixes")
    return paths


def save(fig: Figure, outputs: Sequence[File]) -> None:
    """Write the figure to each path, PNG or PDF by suffix."""
    for path in with_suffix(outputs, "figures", METADATA):
        with atomic(path) as file:
            fig.savefig(file, format=path.suffix[1:], metadata=METADATA[path.suffix])


def save_movie(pictures: Iterable[Image.Image], outputs: Sequence[Path]) -> None:
    """Write the pictures to each path as a looping animation, WebP or GIF by suffix."""
    drawn = list(tqdm(pictures, desc=outputs[0].stem, unit="picture"))
    how = {"save_all": True, "loop": 0, "duration": [MILLISECONDS] * (len(drawn) - 1) + [20 * MILLISECONDS]}
    for path in outputs:
        first, *others = _in_few_colours(drawn) if path.suffix == ".gif" else drawn
        with atomic(path) as file:
            first.save(file, format=path.suffix[1:].upper(), append_images=others, **how, **MOVIES[path.suffix])


def _in_few_colours(pictures: list[Image.Image]) -> list[Image.Image]:
    """In 256 common colours without dithering; otherwise a GIF would be about ten times as large."""
    few = pictures[:: max(1, len(pictures) // 10)] + pictures[-1:]
    palette = Image.fromarray(np.concatenate([np.asarray(each) for each in few])).quantize(256)
    return [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in pictures]
