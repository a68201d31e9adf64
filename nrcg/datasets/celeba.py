"""CelebA's aligned faces, in the layout of its authors, as an image set of two classes.

The layout: `img_align_celeba/` with JPEGs of 178×218, `list_attr_celeba.txt` with 40 attributes of −1 or 1, and
`list_eval_partition.txt` with 0, 1 or 2 for train, valid and test.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from nrcg.checks import NAME, check, listed, maybe, whole
from nrcg.datasets.imageset import ImageSet, write_image_set
from nrcg.datasets.pictures import FORMATS, eight_bits, one_line
from nrcg.errors import NrcgError
from nrcg.io.files import sha256

IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
PAGE = "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
RULES = {"size": whole(1, 65_536), "crop": maybe(whole(1)), "threads": whole(0)}
BATCH = 256  # images held at a time
AGAIN = f"delete it, then run `nrcg download-celeba`, or get it again from {PAGE}"


def convert_celeba(
    source: str | Path,
    folder: str | Path,
    *,
    size: int = 64,
    attribute: str = "Male",
    classes: Sequence[str] = ("female", "male"),  # names for the attribute's −1 and 1
    crop: int | None = None,  # pixels of the central square to cut out first; None takes the whole 178×218
    threads: int = 0,  # that decode; 0 is one a core
) -> ImageSet:
    """Write CelebA below `source` as an image set in the order of its partition list: train, valid and test.

    An image is resized straight to size×size, bilinear and antialiased, as torchvision's `Resize((size, size))` does.
    Raises NrcgError naming the file or line that is missing or damaged, before any image is read where that can be
    known, and for values that clash.
    """
    source = Path(source)
    check_classes(classes)
    check("celeba", {"size": size, "crop": crop, "threads": threads}, RULES)
    split = _read_partition(source / PARTITION)
    labels = _read_attribute(source / ATTRIBUTES, attribute)
    for name in split:
        if name not in labels:
            raise NrcgError(f"{source / ATTRIBUTES}: has no row for {name} of {PARTITION}; {AGAIN}")
    _check_images(source, split)
    return write_image_set(
        folder,
        _batches([source / IMAGES / name for name in split], size, crop, threads or _cores()),
        np.array([labels[name] for name in split]),
        np.array(list(split.values())),
        name="celeba",
        classes=classes,
        seed=None,
        parameters={
            "attribute": attribute,
            "crop": crop,
            "files": {name: sha256(source / name) for name in (ATTRIBUTES, PARTITION)},
        },
    )


def download_celeba(out: str | Path) -> None:
    """Fetch CelebA (1.4 GB) into the folder `out`, which torchvision wants to be called `celeba`.

    torchvision checks the files' MD5. Nothing is fetched when what `convert_celeba` reads is there already. Raises
    NrcgError when it cannot be fetched, with the place to put it by hand.
    """
    from torchvision.datasets import CelebA

    out = Path(os.path.abspath(out))
    if out.name != "celeba":
        raise NrcgError(f"{out}: torchvision fetches CelebA into a folder called celeba; name one")
    if not all((out / name).exists() for name in (IMAGES, ATTRIBUTES, PARTITION)):
        others = set(out.glob("*.part"))
        try:
            CelebA(root=out.parent, split="all", download=True)
        except Exception as error:  # gdown, requests, zipfile and torchvision raise a dozen kinds
            for part in set(out.glob("*.part")) - others:  # what gdown leaves; torchvision never goes on with it
                part.unlink()
            raise NrcgError(
                f"{out}: CelebA cannot be fetched ({one_line(error)}); try again later, or put {ATTRIBUTES}, "
                f"{PARTITION} and {IMAGES}.zip, unpacked, from {PAGE} there"
            ) from error
    _check_images(out, _read_partition(out / PARTITION))


def check_classes(classes: Sequence[str]) -> None:
    """Raise NrcgError unless `classes` are two names."""
    if not listed(NAME, 2).holds(classes) or len(classes) != 2 or len(set(classes)) != 2:
        given = ", ".join(map(str, classes)) if isinstance(classes, list | tuple) else repr(classes)
        raise NrcgError(f"classes {given or '(none)'}: give two different names, for labels 0 and 1")


def _cores() -> int:
    """Cores this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace").rstrip().splitlines()
    except OSError as error:
        raise NrcgError(
            f"{path}: cannot be read ({error.strerror}); get CelebA from {PAGE}, or by `nrcg download-celeba`"
        ) from None


def _read_partition(path: Path) -> dict[str, int]:
    """0 train, 1 valid or 2 test by image name, in the file's order."""
    split: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        name, *values = line.split() or [""]
        if len(values) != 1 or values[0] not in ("0", "1", "2") or name in split:
            raise NrcgError(f"{path}, line {number}: not a new image and 0, 1 or 2, but {line[:40]!r}; {AGAIN}")
        split[name] = int(values[0])
    if not split:
        raise NrcgError(f"{path}: lists no image; {AGAIN}")
    return split


def _read_attribute(path: Path, attribute: str) -> dict[str, int]:
    """0 for −1 and 1 for 1 by image name: one column of the table."""
    lines = _lines(path)
    count, names = lines[0].strip() if lines else "", lines[1].split() if len(lines) > 1 else []
    if not count.isdecimal() or not names:
        raise NrcgError(f"{path}: not CelebA's list: no count in line 1, or no attributes in line 2; {AGAIN}")
    if attribute not in names:
        close = ", ".join(get_close_matches(attribute, names, n=4, cutoff=0))
        raise NrcgError(f"attribute {attribute!r}: not among the {len(names)} of {path}; nearest are {close}")
    column = names.index(attribute)
    labels: dict[str, int] = {}
    for number, row in enumerate(lines[2:], start=3):
        name, *values = row.split() or [""]
        if len(values) != len(names):
            raise NrcgError(f"{path}, line {number}: not an image and {len(names)} values, but {row[:40]!r}; {AGAIN}")
        if values[column] not in ("-1", "1"):
            raise NrcgError(f"{path}, line {number}: {attribute} is {values[column]!r}, not -1 or 1; {AGAIN}")
        labels[name] = int(values[column] == "1")
    if len(labels) != int(count):
        raise NrcgError(f"{path}: promises {int(count)} images, lists {len(labels)}; {AGAIN}")
    return labels


def _check_images(source: Path, names: Collection[str]) -> None:
    """Raise NrcgError unless the images `names` are there; one listing tells."""
    folder = source / IMAGES
    try:
        present = set(os.listdir(folder))
    except OSError as error:
        raise NrcgError(
            f"{folder}: cannot be read ({error.strerror}); unpack {IMAGES}.zip from {PAGE} there, or run "
            "`nrcg download-celeba`"
        ) from None
    absent = [name for name in names if name not in present]
    if absent:
        raise NrcgError(
            f"{folder}: lacks {len(absent)} of the {len(names)} images of {PARTITION}, {absent[0]} for one; delete the "
            f"folder, then run `nrcg download-celeba` or unpack {IMAGES}.zip again"
        )


def _batches(paths: Sequence[Path], size: int, crop: int | None, threads: int) -> Iterator[np.ndarray]:
    """The images in order, uint8 BATCH×size×size×3 at a time."""
    decode = partial(_decode, size=size, crop=crop)
    with ThreadPoolExecutor(threads) as pool, tqdm(total=len(paths), desc="CelebA", unit=" images") as bar:
        for start in range(0, len(paths), BATCH):
            batch = np.stack(list(pool.map(decode, paths[start : start + BATCH])))  # PIL lets go of Python's lock
            bar.update(len(batch))
            yield batch


def _decode(path: Path, size: int, crop: int | None) -> np.ndarray:
    """One image, uint8 size×size×3."""
    try:
        with Image.open(path, formats=FORMATS) as file:
            image = eight_bits(file).convert("RGB")
    except Exception as error:  # PIL raises half a dozen kinds for a damaged file
        raise NrcgError(
            f"{path}: not a readable image ({one_line(error)}); unpack it from {IMAGES}.zip again"
        ) from None
    if crop is not None:
        if crop > min(image.size):
            raise NrcgError(f"crop {crop}: larger than {path}, {image.width}×{image.height}; lower it")
        left, top = round((image.width - crop) / 2), round((image.height - crop) / 2)
        image = image.crop((left, top, left + crop, top + crop))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
