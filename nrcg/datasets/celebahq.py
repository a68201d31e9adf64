"""CelebA-HQ at 256×256 with its gender labels, from the parquet files of korexyz/celeba-hq-256x256, as an image set."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from nrcg.checks import NAME, check_fields
from nrcg.datasets.imageset import SPLITS, ImageSet, write_image_set
from nrcg.datasets.kinds import kinds
from nrcg.datasets.pictures import BATCH, PLACE, SIDE, TWO_CLASSES, batches, read_picture, resized
from nrcg.errors import NrcgError, one_line
from nrcg.io.files import sha256
from nrcg.io.hub import HUB_ID

log = logging.getLogger("nrcg")

HUB = "korexyz/celeba-hq-256x256"
PARTS = {"train": "train", "validation": "valid"}  # the files' names, ours
SHARD = re.compile(r"(train|validation)-(\d{5})-of-(\d{5})(-\w+)?\.parquet")
AGAIN = f"delete it, then fetch {HUB} again (`nrcg get hub`)"


@kinds.register("celebahq")
@dataclass(frozen=True)
class CelebAHQ:
    """CelebA-HQ: the train files, then the validation files. Needs no network, and copies nothing to a cache."""

    source: Annotated[str | Path, PLACE] = HUB  # a folder with the parquet files below it; or a hub id, to be fetched
    size: Annotated[int, SIDE] = 256  # width and height, pixels; an image of another size is resized straight to it
    label: Annotated[str, NAME] = "label"  # the column with 0 or 1
    classes: Annotated[Sequence[str], TWO_CLASSES] = ("female", "male")  # names for 0 and 1

    def __post_init__(self) -> None:
        check_fields("celebahq", self)

    def check(self) -> list[str]:
        if not Path(self.source).is_dir() and not HUB_ID.fullmatch(str(self.source)):
            raise NrcgError(f"source {self.source}: no such folder; name one, or a hub id such as {HUB}")
        return list(self.classes)

    def make(self, folder: Path, threads: int = 0) -> ImageSet:
        shards = [(path, part) for part in PARTS for path in _shards(Path(self.source), part)]
        labels = [_labels(path, self.label, self.classes) for path, _ in shards]
        split = [np.full(len(own), SPLITS[PARTS[part]]) for (_, part), own in zip(shards, labels, strict=True)]
        rows, n = chain.from_iterable(_rows(path) for path, _ in shards), sum(map(len, labels))
        return write_image_set(
            folder,
            batches(self._decode, rows, n=n, size=self.size, title="CelebA-HQ", threads=threads),
            np.concatenate(labels),
            np.concatenate(split),
            name="celebahq",
            classes=self.classes,
            seed=None,
            parameters={"label": self.label, "files": {path.name: sha256(path) for path, _ in shards}},
        )

    def _decode(self, row: tuple[str, bytes]) -> np.ndarray:
        where, encoded = row
        picture = read_picture(encoded, where, AGAIN, upright=True)
        return np.asarray(picture) if picture.size == (self.size, self.size) else resized(picture, self.size)


def _shards(source: Path, part: str) -> list[Path]:
    """The files of "train" or "validation" below `source`, in order; all that their names promise must be there."""
    found = [(match, path) for path in source.rglob("*.parquet") if (match := SHARD.fullmatch(path.name))]
    mine = sorted((int(match[2]), int(match[3]), path) for match, path in found if match[1] == part)
    numbers, total = [number for number, _, _ in mine], mine[0][1] if mine else 1
    if numbers != list(range(total)):
        raise NrcgError(
            f"{source}: holds the {part} files {', '.join(map(str, numbers)) or '(none)'} of {part}-…-of-….parquet "
            f"where 0 to {total - 1} are needed, each once; fetch {HUB} (`nrcg get hub`)"
        )
    return [path for _, _, path in mine]


def _labels(path: Path, label: str, classes: Sequence[str]) -> Any:
    """The labels of one file, a pandas Series of 0 and 1; its own names for them must not be turned."""
    import pyarrow as pa  # slow to import
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            for column in ("image", label):
                if column not in schema.names:
                    raise NrcgError(f"{path}: no column {column!r}; it has {', '.join(schema.names)}")
            labels = file.read(columns=[label]).column(label).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise NrcgError(f"{path}: not a complete parquet file ({one_line(error)}); {AGAIN}") from None
    if not (fits := labels.isin([0, 1])).all():
        row = labels[~fits].index[0]
        raise NrcgError(f"{path}: row {row} has {label} {labels[row]}; name a column of 0 and 1")
    try:  # the hub's own notes
        names = list(map(str, json.loads(schema.metadata[b"huggingface"])["info"]["features"][label]["names"]))
    except (KeyError, TypeError, ValueError):
        return labels
    own, wanted = [name.casefold() for name in names], [name.casefold() for name in classes]
    if own == wanted[::-1]:
        raise NrcgError(f"classes {', '.join(classes)}: {path} itself calls its 0 and 1 {', '.join(names)}; swap them")
    if own != wanted:
        log.warning("%s calls %s 0 and 1 %s; here they are %s", path, label, ", ".join(names), ", ".join(classes))
    return labels


def _rows(path: Path) -> Iterator[tuple[str, bytes]]:
    """The place and the encoded bytes of each picture of one file, which holds them alone or as the hub stores them."""
    from pyarrow.parquet import ParquetFile

    row = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH, columns=["image"]):
                for value in batch.column("image").to_pylist():
                    yield f"{path}: row {row}", value["bytes"] if isinstance(value, dict) else value
                    row += 1
    except Exception as error:  # pyarrow raises a dozen kinds for damaged data
        raise NrcgError(f"{path}: row {row}: not a readable image ({one_line(error)}); {AGAIN}") from None
