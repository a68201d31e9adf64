"""A description of what the kind `folder` would read from a folder."""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from nrcg.datasets.folder import Folder, files, hidden
from nrcg.datasets.imageset import SPLITS
from nrcg.datasets.pictures import cores, formats
from nrcg.errors import NrcgError, one_line
from nrcg.registry import call

NAMED = 5  # unreadable files that are named, at most
SHEET = 200  # images on a sheet, at most


class Found(NamedTuple):
    """Properties of a picture file."""

    size: tuple[int, int]  # width, height
    format: str
    mode: str


def describe(
    source: str | Path, settings: dict[str, Any], out: Callable[[str], None], sheet: Path | None = None
) -> None:
    """Describe what the kind `folder` would read from `source`, with the other keys of its section.

    Args:
        out: called with each line of the description.
        sheet: a .png or .pdf file for a sheet of the first pictures of each class, as they would be read.

    Raises:
        NrcgError: if the folder cannot become an image set; the part that can be described is output first.
    """
    folder = call(Folder, "images", settings, source=source)
    classes, items = folder.check(), folder.items()
    for line in _counts(folder, classes, items):
        out(line)
    paths = [path for path, _, _ in items]
    with ThreadPoolExecutor(cores()) as pool, tqdm(total=len(items), desc="Reading", unit=" images") as bar:
        told = []
        for answer in pool.map(lambda path: _look(folder, path), paths):
            told.append(answer)
            bar.update()
    read = [answer for answer in told if isinstance(answer, Found)]
    broken = {path: answer for path, answer in zip(paths, told, strict=True) if isinstance(answer, str)}
    for line in [*_pictures(read), *_passed_over(Path(source), paths), *_broken(Path(source), broken)]:
        out(line)
    if sheet is not None:
        _draw(folder, classes, [item for item in items if item[0] not in broken], sheet)
    if broken:
        raise NrcgError(f"{source}: {len(broken)} of {len(items)} pictures cannot be read; repair or remove them")


def _counts(folder: Folder, classes: list[str], items: list[tuple[Path, int, int]]) -> Iterable[str]:
    """A table of the number of pictures by class and split."""
    splits = [name for name, number in SPLITS.items() if any(split == number for _, _, split in items)]
    counts = Counter((label, split) for _, label, split in items)
    rows = [[name, *(str(counts[label, SPLITS[split]]) for split in splits)] for label, name in enumerate(classes)]
    drawn = f", valid drawn from train ({folder.valid_fraction:g} of each class)" if folder.draws else ""
    yield f"{folder.source}: {len(items)} pictures of {len(classes)} classes{drawn}"
    yield ""
    total = [str(sum(split == SPLITS[name] for _, _, split in items)) for name in splits]
    table = [["class", *splits], *rows, ["all", *total]]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, *cells in table:
        yield "  ".join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))])
    yield ""


def _look(folder: Folder, path: Path) -> Found | str:
    """Properties of a file, or why it cannot be read as a picture."""
    try:
        with Image.open(path, formats=formats()) as picture:
            found = Found(picture.size, picture.format or "?", picture.mode)
        folder.decode(path)
    except NrcgError as error:
        return str(error).removeprefix(f"{path}: ")
    except UnidentifiedImageError:
        return "not a readable image (unknown format)"
    except Exception as error:  # as in read_picture
        return f"not a readable image ({one_line(error)})"
    return found


def _pictures(read: list[Found]) -> Iterable[str]:
    """Sizes, formats and colour modes."""
    if read:
        sizes = np.array([each.size for each in read])
        least, middle, most = sizes.min(0), np.median(sizes, 0).astype(int), sizes.max(0)
        words = (f"{name} {w}×{h}" for name, (w, h) in (("min", least), ("median", middle), ("max", most)))
        yield f"width × height  {', '.join(words)}"
        yield f"formats         {_tally(each.format for each in read)}"
        yield f"colour modes    {_tally(each.mode for each in read)}"


def _passed_over(source: Path, paths: list[Path]) -> Iterable[str]:
    """Files that are hidden, have other suffixes, or lie outside class folders."""
    taken = set(paths)
    rest = [path for path in files(source) if path not in taken]
    kinds = ("hidden" if hidden(path, source) else path.suffix.lower() or "no suffix" for path in rest)
    yield f"passed over     {_tally(kinds) if rest else 'no file'}"


def _broken(source: Path, broken: dict[Path, str]) -> Iterable[str]:
    yield f"cannot be read  {len(broken) or 'no'} file{'s' * (len(broken) > 1)}"
    for path, reason in list(broken.items())[:NAMED]:
        yield f"  {path.relative_to(source)}: {reason.rpartition(';')[0] or reason}"
    if len(broken) > NAMED:
        yield f"  and {len(broken) - NAMED} more"


def _tally(values: Iterable[str]) -> str:
    """Each value with its count, the most frequent first."""
    return ", ".join(f"{value} {n}" for value, n in Counter(values).most_common())


def _draw(folder: Folder, classes: list[str], items: list[tuple[Path, int, int]], sheet: Path) -> None:
    from nrcg.plots.samples import plot_named  # imports matplotlib

    each = max(1, min(10, SHEET // len(classes)))
    firsts = [[path for path, label, _ in items if label == of][:each] for of in range(min(len(classes), SHEET))]
    images = [folder.decode(path) for paths in firsts for path in paths]
    names = [classes[label] for label, paths in enumerate(firsts) for _ in paths]
    plot_named(images, names, f"{folder.source}: the first pictures of each class, as they are read", sheet)
