"""CelebA-HQ at 256×256 with its gender labels, from the parquet files of korexyz/celeba-hq-256x256, as an image set."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps
from tqdm import tqdm

from nrcg.checks import NAME, check, whole
from nrcg.datasets.celeba import check_classes
from nrcg.datasets.imageset import SPLITS, ImageSet, write_image_set
from nrcg.datasets.pictures import FORMATS, eight_bits, one_line
from nrcg.errors import NrcgError
from nrcg.io.files import sha256

log = logging.getLogger("nrcg")

HUB = "korexyz/celeba-hq-256x256"
BATCH = 64  # pictures that are held at a time
PARTS = {"train": "train", "validation": "valid"}  # the files' names, ours
SHARD = re.compile(r"(?P<part>train|validation)-(?P<number>\d{5})-of-(?P<total>\d{5})(-\w+)?\.parquet")
AGAIN = f"delete it, then fetch {HUB} again (`nrcg download-hub`)"


def convert_celebahq(
    source: str | Path,
    folder: str | Path,
    *,
    size: int = 256,
    label: str = "label",  # the column with 0 or 1
    classes: Sequence[str] = ("female", "male"),  # names for 0 and 1
) -> ImageSet:
    """Write the parquet files anywhere below `source` as an image set: the train files, then the validation files.

    An image of another size is resized straight to size×size, bilinear and antialiased. Works without a network and
    copies nothing to a cache. Raises NrcgError naming the file (and row) that is missing, damaged or of another layout.
    """
    check_classes(classes)
    check("celebahq", {"size": size, "label": label}, {"size": whole(1, 65_536), "label": NAME})
    shards = {part: _shards(Path(source), part) for part in PARTS}
    labels = {path: _labels(path, label) for paths in shards.values() for path in paths}
    for path in labels:
        _check_names(path, label, classes)
    split = [np.full(len(labels[path]), SPLITS[PARTS[part]]) for part, paths in shards.items() for path in paths]
    images = (image for path in labels for image in _images(path, len(labels[path]), size))
    return write_image_set(
        folder,
        tqdm(images, total=sum(map(len, split)), desc="CelebA-HQ", unit=" images"),
        np.concatenate(list(labels.values())),
        np.concatenate(split),
        name="celebahq",
        classes=classes,
        seed=None,
        parameters={"label": label, "files": {path.name: sha256(path) for path in labels}},
    )


def _shards(source: Path, part: str) -> list[Path]:
    """The files of "train" or "validation" below `source`, in order; all that their names promise must be there."""
    found = [(match, path) for path in source.rglob("*.parquet") if (match := SHARD.fullmatch(path.name))]
    mine = sorted((int(match["number"]), int(match["total"]), path) for match, path in found if match["part"] == part)
    if not mine:
        raise NrcgError(
            f"{source}: holds no {part}-00000-of-….parquet; put the parquet files of {HUB} there, or let "
            "`nrcg download-hub` fetch them"
        )
    numbers, total = [number for number, _, _ in mine], mine[0][1]
    if numbers != list(range(total)):
        raise NrcgError(
            f"{source}: holds the {part} files {', '.join(map(str, numbers))} where 0 to {total - 1} are needed, each "
            f"once; fetch {HUB} again (`nrcg download-hub`)"
        )
    return [path for _, _, path in mine]


def _labels(path: Path, label: str) -> np.ndarray:
    """The labels of one file, integers 0 or 1."""
    try:
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            for column in ("image", label):
                if column not in columns:
                    raise NrcgError(f"{path}: no column {column!r}; it has {', '.join(columns)}")
            values = file.read(columns=[label]).column(label)
    except (pa.ArrowException, OSError) as error:
        raise NrcgError(f"{path}: not a complete parquet file ({one_line(error)}); {AGAIN}") from None
    if not pa.types.is_integer(values.type) or values.null_count:
        raise NrcgError(f"{path}: column {label!r} holds {values.type}, {values.null_count} empty; it needs integers")
    labels = values.to_numpy()
    wrong = np.flatnonzero((labels < 0) | (labels > 1))
    if len(wrong):
        raise NrcgError(f"{path}: row {wrong[0]} has {label} {labels[wrong[0]]}; name a column of 0 and 1")
    return labels


def _check_names(path: Path, label: str, classes: Sequence[str]) -> None:
    """Compare `classes` with the names that the file itself gives to 0 and 1, where it does (the hub's ClassLabel)."""
    metadata = pq.read_schema(path).metadata or {}
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
        own = [str(name).casefold() for name in names]
    except (KeyError, TypeError, ValueError):
        return
    wanted = [name.casefold() for name in classes]
    if own == wanted:
        return
    if set(own) == set(wanted):
        raise NrcgError(f"classes {', '.join(classes)}: {path} itself calls its 0 and 1 {', '.join(names)}; swap them")
    log.warning("%s calls %s 0 and 1 %s; here they are %s", path, label, ", ".join(names), ", ".join(classes))


def _images(path: Path, n: int, size: int) -> Iterator[np.ndarray]:
    """The `n` images of one file in order, each uint8 1×size×size×3."""
    images = _decoded(path)
    for row in range(n):
        try:
            image = next(images)
        except Exception as error:  # PIL and pyarrow raise a dozen kinds for damaged data
            raise NrcgError(f"{path}: row {row} is not a readable image ({one_line(error)}); {AGAIN}") from None
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        yield np.asarray(image)[None]


def _decoded(path: Path) -> Iterator[Image.Image]:
    """The pictures of a file, upright: its column holds their encoded bytes, alone or as the hub stores them."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH, columns=["image"]):
            for value in batch.column("image").to_pylist():
                encoded = value["bytes"] if isinstance(value, dict) else value
                with Image.open(BytesIO(encoded), formats=FORMATS) as picture:
                    yield eight_bits(ImageOps.exif_transpose(picture)).convert("RGB")
