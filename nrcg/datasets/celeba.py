"""CelebA's aligned faces, in its authors' layout, as an image set with two classes.

Layout: `img_align_celeba/` with JPEGs of 178×218, `list_attr_celeba.txt` with 40 attributes of −1 or 1, and
`list_eval_partition.txt` with 0, 1 or 2 for train, valid and test.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from nrcg.checks import NAME, check_fields, maybe, whole
from nrcg.datasets.imageset import ImageSet, write_image_set
from nrcg.datasets.kinds import kinds
from nrcg.datasets.pictures import PLACE, SIZE, TWO_CLASSES, batches, read_picture, resized
from nrcg.errors import NrcgError, one_line
from nrcg.io.files import read_text, sha256

FILES = IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
PAGE = "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
AGAIN = f"delete it, then run `nrcg get celeba`, or get it again from {PAGE}"


@kinds.register("celeba")
@dataclass(frozen=True)
class CelebA:
    """CelebA in the order of its partition list, with its three splits."""

    source: Annotated[str | Path | None, maybe(PLACE)] = None  # folder in its authors' layout; None: not yet downloaded
    size: Annotated[int | list[int], SIZE] = 64  # in pixels, or [height, width]; ignores the aspect ratio
    attribute: Annotated[str, NAME] = "Male"  # one of the 40 attributes, which defines the classes
    classes: Annotated[Sequence[str], TWO_CLASSES] = ("female", "male")  # names for the attribute's values −1 and 1
    crop: Annotated[int | None, maybe(whole(1))] = None  # side of a central square to crop first; None: no crop

    def __post_init__(self) -> None:
        check_fields("celeba", self)

    def check(self) -> list[str]:
        places = [Path(self.source, name) for name in ("", *FILES)] if self.source is not None else []
        if absent := [place for place in places if not place.exists()]:
            raise NrcgError(f"source: no {absent[0]}; get CelebA from {PAGE} or with `nrcg get celeba`")
        return list(self.classes)

    def make(self, folder: Path, threads: int = 0) -> ImageSet:
        if self.source is None:
            raise NrcgError("source: missing; name a folder in CelebA's layout, as made by `nrcg get celeba`")
        source = Path(self.source)
        split, labels = _read_split(source), _read_attribute(source / ATTRIBUTES, self.attribute)
        if len(absent := split.index.difference(labels.index)):
            raise NrcgError(f"{source / ATTRIBUTES}: no row for {absent[0]} of {PARTITION}; {AGAIN}")
        _check_images(source, split)
        paths, files = [source / IMAGES / name for name in split.index], {n: sha256(source / n) for n in FILES[1:]}
        return write_image_set(
            folder,
            batches(self._decode, paths, n=len(paths), size=self.size, title="CelebA", threads=threads),
            labels[split.index],
            split,
            name="celeba",
            classes=self.classes,
            seed=None,
            parameters={"attribute": self.attribute, "crop": self.crop, "files": files},
        )

    def _decode(self, path: Path) -> np.ndarray:
        image, crop = read_picture(path, path, f"unpack it from {IMAGES}.zip again"), self.crop
        if crop is not None:
            if crop > min(image.size):
                raise NrcgError(f"crop {crop}: larger than {path}, {image.width}×{image.height}; lower it")
            left, top = round((image.width - crop) / 2), round((image.height - crop) / 2)
            image = image.crop((left, top, left + crop, top + crop))
        return resized(image, self.size)


def download_celeba(out: str | Path) -> None:
    """Download CelebA (1.4 GB) with torchvision, which checks it, to the folder `out`, which must be named `celeba`.

    Does nothing if the files already exist. Raises NrcgError if the download fails; the message names the folder for
    files downloaded by hand.
    """
    from torchvision.datasets import CelebA as TorchvisionCelebA

    out = Path(os.path.abspath(out))
    if out.name != "celeba":
        raise NrcgError(f"{out}: torchvision needs a folder named celeba; choose another path")
    if not all((out / name).exists() for name in FILES):
        others = set(out.glob("*.part"))
        try:
            TorchvisionCelebA(root=out.parent, split="all", download=True)
        except Exception as error:  # gdown, requests, zipfile and torchvision raise a dozen kinds
            for part in set(out.glob("*.part")) - others:  # leftovers of gdown, which torchvision never resumes
                part.unlink()
            raise NrcgError(
                f"{out}: CelebA cannot be fetched ({one_line(error)}); try again later, or put {ATTRIBUTES}, "
                f"{PARTITION} and {IMAGES}.zip, unpacked, from {PAGE} there"
            ) from error
    _check_images(out, _read_split(out))


def _read_split(source: Path) -> Any:
    """0 train, 1 valid or 2 test: a pandas Series by image name, in the file's order."""
    return _column(source / PARTITION, read_text(source / PARTITION), ["split"], "split", "012")


def _read_attribute(path: Path, attribute: str) -> Any:
    """0 for −1 and 1 for 1: one column of the table, a Series by image name."""
    count, header, rows, *_ = [*read_text(path).split("\n", 2), "", ""]
    if not count.strip().isdecimal() or not (names := header.split()):
        raise NrcgError(f"{path}: not CelebA's list: no count in line 1, or no attributes in line 2; {AGAIN}")
    if attribute not in names:
        close = ", ".join(get_close_matches(attribute, names, n=4, cutoff=0))
        raise NrcgError(f"attribute {attribute!r}: not among the {len(names)} of {path}; nearest are {close}")
    labels = _column(path, rows, names, attribute, ("-1", "1"))
    if len(labels) != int(count):
        raise NrcgError(f"{path}: states {int(count)} images, lists {len(labels)}; {AGAIN}")
    return labels


def _column(path: Path, rows: str, names: list[str], name: str, values: Sequence[str]) -> Any:
    """Column `name` of `names`, as indices into `values`."""
    import pandas as pd  # slow to import

    wanted = f"a new image and its {len(names)} value(s) with {' or '.join(values)} for {name}; {AGAIN}"
    layout: dict = {"sep": r"\s+", "names": ["image", *names], "index_col": "image", "keep_default_na": False}
    try:
        table = pd.read_csv(StringIO(rows), dtype=str, **layout)
    except (ValueError, KeyError) as error:
        raise NrcgError(f"{path}: a row ({one_line(error)}) is not {wanted}") from None
    wrong = table.index.duplicated() | (table == "").any(axis=1) | ~table[name].isin(list(values))
    if table.empty or wrong.any():
        raise NrcgError(f"{path}: the row of {next(iter(table[wrong].index), 'no image')} is not {wanted}")
    return table[name].map(values.index)


def _check_images(source: Path, split: Any) -> None:
    if len(absent := split.index[~split.index.isin(os.listdir(source / IMAGES))]):
        raise NrcgError(
            f"{source / IMAGES}: lacks {len(absent)} of the {len(split)} images of {PARTITION}, e.g. {absent[0]}; "
            f"delete the folder, then run `nrcg get celeba` or unpack {IMAGES}.zip again"
        )
