"""A folder of class folders as an image set.

Layout: one folder per class, named after it, with pictures at any depth; or `train/` and optionally `valid/` (or
`val`, `validation`) and `test/`, each with class folders.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np

from nrcg.checks import SEED, check_fields, number
from nrcg.datasets.imageset import SPLITS, ImageSet, write_image_set
from nrcg.datasets.kinds import kinds
from nrcg.datasets.names import distinct, drawn_split
from nrcg.datasets.pictures import COLOUR, FIT, PLACE, SIZE, batches, fitted, read_picture, suffixes
from nrcg.errors import NrcgError

PARTS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}  # folder names by split
SHARE = number(0, 1, without=(0, 1))


@kinds.register("folder")
@dataclass(frozen=True)
class Folder:
    """Pictures in folders named after their classes, sorted by folder and name; any format that Pillow reads."""

    source: Annotated[str | Path, PLACE]  # folder with class folders, or with train/, valid/ and test/ that hold them
    size: Annotated[int | list[int], SIZE] = 64  # width and height in pixels, or [height, width]
    fit: Annotated[str, FIT] = "resize"  # ignores the aspect ratio; crop: shorter side to fit, then the centre
    background: Annotated[str, COLOUR] = "white"  # colour behind transparent pixels: a name, or "#rrggbb"
    valid_fraction: Annotated[float, SHARE] = 0.2  # share per class drawn for validation if there is no such folder
    seed: Annotated[int, SEED] = 0  # seed of this draw

    def __post_init__(self) -> None:
        check_fields("folder", self)

    def check(self) -> list[str]:
        classes = self.classes
        for split, folders in self.parts.items():
            for place in folders:
                if split != "train" and place.name not in classes:
                    raise NrcgError(
                        f"source: {place} has no counterpart in {self.parts['train'][0].parent}; add or rename a folder"
                    )
                if not any(True for _ in pictures(place)):
                    raise NrcgError(f"source: {place} holds no pictures; add some, or remove the folder")
        return classes

    def make(self, folder: Path, threads: int = 0) -> ImageSet:
        items = self.items()
        return write_image_set(
            folder,
            batches(self.decode, (path for path, _, _ in items), n=len(items), size=self.size, title="Images",
                    threads=threads),
            np.array([label for _, label, _ in items]),
            np.array([split for _, _, split in items]),
            name="folder",
            classes=self.classes,
            seed=self.seed if self.draws else None,
            parameters={
                "fit": self.fit,
                "background": self.background,
                "valid_fraction": self.valid_fraction if self.draws else None,
            },
        )  # fmt: skip

    def items(self) -> list[tuple[Path, int, int]]:
        """Path, label and split of each picture, in the order of the image set."""
        labels = {name: label for label, name in enumerate(self.classes)}
        found = [
            (path, labels[place.name], SPLITS[split])
            for split, folders in self.parts.items()
            for place in folders
            for path in pictures(place)
        ]
        if not self.draws:
            return found
        train = np.array([split == SPLITS["train"] for _, _, split in found])
        drawn = drawn_split(
            np.array([label for _, label, _ in found])[train], self.classes, self.valid_fraction, self.seed
        )
        splits = iter(drawn.tolist())
        return [(path, label, next(splits) if split == SPLITS["train"] else split) for path, label, split in found]

    def decode(self, path: Path) -> np.ndarray:
        """One file as uint8 H×W×3."""
        picture = read_picture(path, path, "repair or remove it", upright=True, background=self.background)
        return fitted(picture, self.size, self.fit)

    @property
    def draws(self) -> bool:
        """Whether validation images are drawn from the training images."""
        return "valid" not in self.parts

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes, sorted."""
        names = [place.name for place in self.parts["train"]]
        if len(names) < 2:
            raise NrcgError(
                f"source {self.source}: holds one class folder, {names[0]}; it needs two or more, one per class, "
                f"named after the classes"
            )
        return distinct(names, f"source {self.source}")

    @cached_property
    def parts(self) -> dict[str, list[Path]]:
        """The class folders of each existing split, sorted."""
        source = Path(self.source)
        if not source.is_dir():
            raise NrcgError(f"source {source}: no such folder; name a folder with one folder per class")
        folders = _folders(source)
        found = {
            split: [place for place in folders if place.name.casefold() in names and _folders(place)]
            for split, names in PARTS.items()
        }
        for split, places in found.items():
            if len(places) > 1:
                raise NrcgError(
                    f"source {source}: {places[0].name} and {places[1].name} are both for {split}; keep one"
                )
        if not found["train"]:
            if other := next((places[0].name for places in found.values() if places), None):
                raise NrcgError(f"source {source}: holds {other}, but no folder train with class folders; add it")
            if not folders:
                raise NrcgError(f"source {source}: holds no class folders; put the pictures of each class into one")
            return {"train": folders}
        return {split: _folders(places[0]) for split, places in found.items() if places}


def pictures(folder: Path) -> Iterator[Path]:
    """The pictures below a folder, sorted by folder and name, without hidden files and other suffixes."""
    for path in files(folder):
        if path.suffix.lower() in suffixes() and not hidden(path, folder):
            yield path


def files(folder: Path) -> Iterator[Path]:
    """All files below a folder, sorted by folder and name; links to folders are not followed."""
    for place, below, names in os.walk(folder, onerror=_refuse):
        below.sort()
        yield from (Path(place, name) for name in sorted(names))


def hidden(path: Path, folder: Path) -> bool:
    """Whether a file below `folder` or one of its parent folders is hidden; macOS and others leave such files."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _refuse(error: OSError) -> None:
    raise NrcgError(f"{error.filename}: cannot be read ({error.strerror}); change its permissions")


def _folders(folder: Path) -> list[Path]:
    return sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
