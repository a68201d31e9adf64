"""CelebA's aligned faces, in the layout of its authors, as an image set of two classes.

The layout: `img_align_celeba/` with JPEGs of 178×218, `list_attr_celeba.txt` with 40 attributes of −1 or 1, and
`list_eval_partition.txt` with 0, 1 or 2 for train, valid and test.
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from nrcg.checks import NAME, check, maybe, whole
from nrcg.datasets.imageset import ImageSet, write_image_set
from nrcg.datasets.kinds import kinds
from nrcg.datasets.pictures import PLACE, SIDE, TWO_CLASSES, batches, one_line, read_picture, resized
from nrcg.errors import NrcgError
from nrcg.io.files import read_text, sha256

IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
PAGE = "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
RULES = {"source": maybe(PLACE), "size": SIDE, "attribute": NAME, "classes": TWO_CLASSES, "crop": maybe(whole(1))}
AGAIN = f"delete it, then run `nrcg get celeba`, or get it again from {PAGE}"


@kinds.register("celeba")
@dataclass(frozen=True)
class CelebA:
    """CelebA in the order of its partition list, in its own three splits.

    Args:
        source: a folder in the layout of its authors; None for one that is still to be fetched
        size: width and height, pixels; an image is resized straight to it
        attribute: one of the 40, which gives the classes
        classes: names for the attribute's −1 and 1
        crop: side of the central square to cut out first, pixels; None takes the whole 178×218
    """

    source: str | Path | None = None
    size: int = 64
    attribute: str = "Male"
    classes: Sequence[str] = ("female", "male")
    crop: int | None = None

    def check(self) -> list[str]:
        check("celeba", vars(self), RULES)
        for name in ("", IMAGES, ATTRIBUTES, PARTITION) if self.source is not None else ():
            if not (place := Path(self.source, name)).exists():
                raise NrcgError(f"source: no {place}; get CelebA from {PAGE}, or by `nrcg get celeba`")
        return list(self.classes)

    def make(self, folder: Path, threads: int = 0) -> ImageSet:
        if self.source is None:
            raise NrcgError("source: none; name a folder in CelebA's layout, as `nrcg get celeba` fetches it")
        source = Path(self.source)
        split = _read_partition(source / PARTITION)
        labels = _read_attribute(source / ATTRIBUTES, self.attribute)
        for name in split:
            if name not in labels:
                raise NrcgError(f"{source / ATTRIBUTES}: has no row for {name} of {PARTITION}; {AGAIN}")
        _check_images(source, split)
        paths = [source / IMAGES / name for name in split]
        files = {name: sha256(source / name) for name in (ATTRIBUTES, PARTITION)}
        return write_image_set(
            folder,
            batches(self._decode, paths, n=len(paths), size=self.size, title="CelebA", threads=threads),
            np.array([labels[name] for name in split]),
            np.array(list(split.values())),
            name="celeba",
            classes=self.classes,
            seed=None,
            parameters={"attribute": self.attribute, "crop": self.crop, "files": files},
        )

    def _decode(self, path: Path) -> np.ndarray:
        """One image, uint8 size×size×3."""
        image, crop = read_picture(path, path, f"unpack it from {IMAGES}.zip again"), self.crop
        if crop is not None:
            if crop > min(image.size):
                raise NrcgError(f"crop {crop}: larger than {path}, {image.width}×{image.height}; lower it")
            left, top = round((image.width - crop) / 2), round((image.height - crop) / 2)
            image = image.crop((left, top, left + crop, top + crop))
        return resized(image, self.size)


def download_celeba(out: str | Path) -> None:
    """Fetch CelebA (1.4 GB) into the folder `out`, which torchvision wants to be called `celeba`.

    torchvision checks the files' MD5. Nothing is fetched when what `CelebA` reads is there already. Raises NrcgError
    when it cannot be fetched, with the place to put it by hand.
    """
    from torchvision.datasets import CelebA as TorchvisionCelebA

    out = Path(os.path.abspath(out))
    if out.name != "celeba":
        raise NrcgError(f"{out}: torchvision fetches CelebA into a folder called celeba; name one")
    if not all((out / name).exists() for name in (IMAGES, ATTRIBUTES, PARTITION)):
        others = set(out.glob("*.part"))
        try:
            TorchvisionCelebA(root=out.parent, split="all", download=True)
        except Exception as error:  # gdown, requests, zipfile and torchvision raise a dozen kinds
            for part in set(out.glob("*.part")) - others:  # what gdown leaves; torchvision never goes on with it
                part.unlink()
            raise NrcgError(
                f"{out}: CelebA cannot be fetched ({one_line(error)}); try again later, or put {ATTRIBUTES}, "
                f"{PARTITION} and {IMAGES}.zip, unpacked, from {PAGE} there"
            ) from error
    _check_images(out, _read_partition(out / PARTITION))


def _read_partition(path: Path) -> dict[str, int]:
    """0 train, 1 valid or 2 test by image name, in the file's order."""
    return _column(path, read_text(path).rstrip().splitlines(), 0, ["split"], "split", ("0", "1", "2"))


def _read_attribute(path: Path, attribute: str) -> dict[str, int]:
    """0 for −1 and 1 for 1 by image name: one column of the table."""
    lines = read_text(path).rstrip().splitlines()
    count, names = lines[0].strip() if lines else "", lines[1].split() if len(lines) > 1 else []
    if not count.isdecimal() or not names:
        raise NrcgError(f"{path}: not CelebA's list: no count in line 1, or no attributes in line 2; {AGAIN}")
    if attribute not in names:
        close = ", ".join(get_close_matches(attribute, names, n=4, cutoff=0))
        raise NrcgError(f"attribute {attribute!r}: not among the {len(names)} of {path}; nearest are {close}")
    labels = _column(path, lines, 2, names, attribute, ("-1", "1"))
    if len(labels) != int(count):
        raise NrcgError(f"{path}: promises {int(count)} images, lists {len(labels)}; {AGAIN}")
    return labels


def _column(
    path: Path, lines: list[str], head: int, names: list[str], name: str, values: Sequence[str]
) -> dict[str, int]:
    """The index in `values` of what column `name` of `names` holds, by image name; the table begins below `head`."""
    column, found = names.index(name), {}
    for number, line in enumerate(lines[head:] or [""], start=head + 1):
        image, *row = line.split() or [""]
        if len(row) != len(names) or image in found:
            wanted = f"a new image and its {len(names)} value(s)"
            raise NrcgError(f"{path}, line {number}: not {wanted}, but {line[:40]!r}; {AGAIN}")
        if row[column] not in values:
            raise NrcgError(f"{path}, line {number}: {name} is {row[column]!r}, not {' or '.join(values)}; {AGAIN}")
        found[image] = values.index(row[column])
    return found


def _check_images(source: Path, names: Collection[str]) -> None:
    """Raise NrcgError unless the images `names` are there; one listing tells."""
    present = set(os.listdir(source / IMAGES))
    if absent := [name for name in names if name not in present]:
        raise NrcgError(
            f"{source / IMAGES}: lacks {len(absent)} of the {len(names)} images of {PARTITION}, {absent[0]} for one; "
            f"delete the folder, then run `nrcg get celeba` or unpack {IMAGES}.zip again"
        )
