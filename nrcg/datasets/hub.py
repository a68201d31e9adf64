"""Local parquet files of a Hugging Face hub data set, as an image set."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from nrcg.checks import NAME, SEED, check_fields, listed, maybe, number
from nrcg.datasets.imageset import SPLITS, ImageSet, write_image_set
from nrcg.datasets.kinds import kinds
from nrcg.datasets.names import compare_names, distinct, drawn_split
from nrcg.datasets.pictures import BATCH, COLOUR, FIT, PLACE, SIZE, batches, fitted, read_picture
from nrcg.errors import NrcgError, one_line
from nrcg.io.files import sha256
from nrcg.io.hub import HUB_ID

AGAIN = "delete it, then fetch it again (`nrcg get hub`)"


@kinds.register("hub")
@dataclass(frozen=True)
class Hub:
    """The files of the train split, then those of the validation split: `SPLIT-00000-of-00002.parquet` and so on."""

    source: Annotated[str | Path, PLACE]  # folder with the parquet files at any depth; or a hub id, to be downloaded
    size: Annotated[int | list[int], SIZE] = 64  # width and height in pixels, or [height, width]
    fit: Annotated[str, FIT] = "resize"  # ignores the aspect ratio; crop: shorter side to fit, then the centre
    background: Annotated[str, COLOUR] = "white"  # colour behind transparent pixels: a name, or "#rrggbb"
    image: Annotated[str, NAME] = "image"  # column of the pictures
    label: Annotated[str, NAME] = "label"  # column of the classes: numbers from 0, or names
    train: Annotated[str, NAME] = "train"  # training split, the first part of its files' names
    valid: Annotated[str | None, maybe(NAME)] = "validation"  # validation split; None draws it from the training split
    classes: Annotated[list[str] | None, maybe(listed(NAME, 2))] = None  # names by label; None: those in the files
    valid_fraction: Annotated[float, number(0, 1, without=(0, 1))] = 0.2  # share per class, if valid is None
    seed: Annotated[int, SEED] = 0  # seed of this draw

    def __post_init__(self) -> None:
        check_fields("hub", self)

    def check(self) -> list[str]:
        if self.valid == self.train:
            raise NrcgError(f"valid {self.valid}: same as train; name another split, or null")
        if not (here := Path(self.source).is_dir()) and not HUB_ID.fullmatch(str(self.source)):
            raise NrcgError(f"source {self.source}: no such folder; name a folder, or a hub id such as owner/name")
        if self.classes is not None:
            return distinct(self.classes, "classes")
        if not here:
            raise NrcgError(f"classes: none, and {self.source} is not downloaded yet; give their names, by label")
        return distinct(self._own_names(), f"{self.source}: column {self.label}; set `classes`")

    def make(self, folder: Path, threads: int = 0) -> ImageSet:
        classes, shards = self.check(), self._shards
        codes: dict[Any, int] = {key: i for i, name in enumerate(classes) for key in (i, name)}
        labels = [_coded(path, self.label, self._column(path), codes, len(classes)) for path, _ in shards]
        for path, _ in shards:
            if own := _noted_names(path, self.label):
                compare_names(classes, own, str(path))
        split = np.repeat([SPLITS[part] for _, part in shards], [len(own) for own in labels])
        if self.valid is None:
            split = drawn_split(np.concatenate(labels), classes, self.valid_fraction, self.seed)
        rows = chain.from_iterable(_rows(path, self.image) for path, _ in shards)
        return write_image_set(
            folder,
            batches(self._decode, rows, n=len(split), size=self.size, title="Images", threads=threads),
            np.concatenate(labels),
            split,
            name="hub",
            classes=classes,
            seed=self.seed if self.valid is None else None,
            parameters={
                "image": self.image,
                "label": self.label,
                "fit": self.fit,
                "background": self.background,
                "valid_fraction": self.valid_fraction if self.valid is None else None,
                "files": {path.name: sha256(path) for path, _ in shards},
            },
        )

    def _decode(self, row: tuple[str, bytes]) -> np.ndarray:
        where, encoded = row
        return fitted(
            read_picture(encoded, where, AGAIN, upright=True, background=self.background), self.size, self.fit
        )

    @property
    def _shards(self) -> list[tuple[Path, str]]:
        """The files in order, each with our name for its split."""
        parts = {"train": self.train} | ({"valid": self.valid} if self.valid is not None else {})
        return [(path, part) for part, name in parts.items() for path in _files(Path(self.source), name)]

    def _column(self, path: Path) -> list[Any]:
        """The raw labels of one file; NrcgError names a missing column."""
        import pyarrow as pa  # slow to import
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                for column in (self.image, self.label):
                    if column not in (names := file.schema_arrow.names):
                        raise NrcgError(f"{path}: no column {column!r}; it has {', '.join(names)}")
                return file.read(columns=[self.label]).column(self.label).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise NrcgError(f"{path}: not a complete parquet file ({one_line(error)}); {AGAIN}") from None

    def _own_names(self) -> list[str]:
        """The class names in the hub's metadata, or else those in the column, sorted."""
        shards = self._shards
        if noted := _noted_names(shards[0][0], self.label):
            return noted
        names = set(chain.from_iterable(self._column(path) for path, _ in shards))
        if len(names) < 2 or not all(isinstance(name, str) for name in names):
            raise NrcgError(f"classes: none, and {self.source} has no names for the column {self.label}; give names")
        return sorted(names)


def _files(source: Path, split: str) -> list[Path]:
    """The files of a split below `source`, in order; NrcgError if the set is incomplete."""
    shard = re.compile(rf"{re.escape(split)}-(\d{{5}})-of-(\d{{5}})(-\w+)?\.parquet")
    found = [(match, path) for path in source.rglob("*.parquet") if (match := shard.fullmatch(path.name))]
    mine = sorted((int(match[1]), int(match[2]), path) for match, path in found)
    numbers, total = [number for number, _, _ in mine], mine[0][1] if mine else 1
    if numbers != list(range(total)):
        raise NrcgError(
            f"{source}: holds the {split} files {', '.join(map(str, numbers)) or '(none)'} of {split}-…-of-….parquet "
            f"instead of 0 to {total - 1}, each once; fetch them (`nrcg get hub`), or name another split"
        )
    return [path for _, _, path in mine]


def _noted_names(path: Path, label: str) -> list[str] | None:
    """The class names in the hub's metadata of a file."""
    from pyarrow.parquet import read_schema

    try:
        notes = json.loads(read_schema(path).metadata[b"huggingface"])
        return list(map(str, notes["info"]["features"][label]["names"]))
    except (KeyError, TypeError, ValueError):
        return None


def _coded(path: Path, label: str, values: list[Any], codes: dict[Any, int], n: int) -> np.ndarray:
    """int64 labels of one file; `codes` maps numbers and names to labels."""
    labels = [codes.get(value, -1) if isinstance(value, int | float | str) else -1 for value in values]
    if -1 in labels:
        row = labels.index(-1)
        raise NrcgError(
            f"{path}: row {row} has {label} {values[row]}; name a column of 0 to {n - 1}, or the right classes"
        )
    return np.array(labels, np.int64)


def _rows(path: Path, column: str) -> Iterator[tuple[str, bytes]]:
    """Location and encoded bytes of each picture of one file, stored as bytes or as the hub's struct."""
    from pyarrow.parquet import ParquetFile

    row = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH, columns=[column]):
                for value in batch.column(column).to_pylist():
                    yield f"{path}: row {row}", value["bytes"] if isinstance(value, dict) else value
                    row += 1
    except Exception as error:  # pyarrow raises a dozen kinds for damaged data
        raise NrcgError(f"{path}: row {row}: not a readable image ({one_line(error)}); {AGAIN}") from None
