"""An image set: a folder with uint8 images, labels, a split and a JSON card."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from nrcg.checks import one_or_two, sides, whole
from nrcg.errors import NrcgError
from nrcg.io.arrays import read_array, write_array, write_array_batches
from nrcg.io.files import read_card, sha256, write_json, writing

SPLITS = {"train": 0, "valid": 1, "test": 2}
SIZE = one_or_two(whole(0))
PARTS = {"images": np.uint8, "labels": np.int64, "split": np.uint8}  # the files and their types


@dataclass(frozen=True)
class ImageSet:
    """A labelled, split set of images of one size on disk."""

    folder: Path
    images: np.ndarray  # uint8 N×H×W×3, 0…255; memory-mapped
    labels: np.ndarray  # int64 N, index into `classes`
    split: np.ndarray  # uint8 N: 0 train, 1 valid, 2 test
    card: dict[str, Any]  # name, classes, n, size (one number if square), seed, parameters, digest

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> "ImageSet":
        """Open the image set in `folder`; NrcgError names a file that is missing or does not fit.

        Args:
            verify: compare the files with the SHA-256 on the card, which takes about a second per GB.
        """
        folder, place = Path(folder), Path(folder, "card.json")
        if not place.is_file():  # the card is written last
            raise NrcgError(f"{folder}: not a complete image set (no card.json); make it again")
        card = read_card(place, name=str, classes=list, n=int, size=(int, list), parameters=dict, digest=str)
        if not all(isinstance(name, str) for name in card["classes"]):
            raise NrcgError(f"{place}: classes {card['classes']}: not all are names; make the image set again")
        if not SIZE.holds(card["size"]):
            raise NrcgError(f"{place}: size {card['size']}: must be {SIZE.words}; make the image set again")
        arrays = {part: read_array(folder / f"{part}.npy", mmap=part == "images") for part in PARTS}
        _check(folder, card["n"], card["size"], len(card["classes"]), **arrays)
        if verify and _digest(folder) != card["digest"]:
            raise NrcgError(f"{folder}: the SHA-256 of the arrays differs from that in card.json; make the set again")
        return cls(folder, **arrays, card=card)

    @property
    def classes(self) -> list[str]:
        """Class names, indexed by the labels."""
        return self.card["classes"]

    def __len__(self) -> int:
        return len(self.images)

    def indices(self, split: str, target: int | None = None) -> np.ndarray:
        """int64 positions, ascending, of the images of `split` ("train", "valid", "test"), optionally of one class.

        Raises NrcgError for an unknown split or class.
        """
        if split not in SPLITS:
            raise NrcgError(f"split {split!r}: unknown; use one of {', '.join(SPLITS)}")
        chosen = self.split == SPLITS[split]
        if target is not None:
            if not 0 <= target < len(self.classes):
                raise NrcgError(f"target {target}: {self.folder} has classes 0 to {len(self.classes) - 1}")
            chosen = chosen & (self.labels == target)
        return np.flatnonzero(chosen)


def _check(folder: Path, n: int, size: int | list[int], n_classes: int, **arrays: np.ndarray) -> None:
    """Raise NrcgError unless `arrays`, some of PARTS, are of `n` images and have valid values."""
    for part, array in arrays.items():
        place, shape = folder / f"{part}.npy", (n, *sides(size), 3) if part == "images" else (n,)
        if array.dtype != PARTS[part] or array.shape != shape:
            found, wanted = f"{array.dtype} {array.shape}", f"{np.dtype(PARTS[part])} {shape}"
            raise NrcgError(f"{place}: holds {found}, its card states {wanted}; make the image set again")
        top = {"labels": n_classes, "split": len(SPLITS)}.get(part)
        if top and n and (array.min() < 0 or array.max() >= top):
            raise NrcgError(f"{place}: {part} outside 0 to {top - 1}; make the image set again")


def write_image_set(
    folder: str | Path,
    images: np.ndarray | Iterable[np.ndarray],
    labels: np.ndarray,
    split: np.ndarray,
    *,
    name: str,
    classes: Sequence[str],
    seed: int | None,
    parameters: dict[str, Any],
) -> ImageSet:
    """Write an image set and open it. Files are complete or absent; the card is written last.

    Args:
        images: uint8 N×H×W×3, or an iterable of its parts along the first axis, held in memory one at a time.
        labels: integers N, index into `classes`.
        split: integers N, see SPLITS.
        seed: None if no random draw was made.
        parameters: other settings that determine the images; JSON values.

    Raises:
        NrcgError: for arrays that do not fit together, or if a file cannot be written.
    """
    folder = Path(folder)
    labels, split = np.asarray(labels, dtype=np.int64), np.asarray(split, dtype=np.uint8)
    n = len(labels)
    _check(folder, n, 0, len(classes), labels=labels, split=split)
    with closing(_parts(images)) as parts:  # ends their progress bar before an error is printed
        first = next(parts, np.zeros((0, 0, 0, 3), np.uint8))
        height, width = (*first.shape, 0, 0)[1:3]
        size = height if height == width else [height, width]
        _check(folder, len(first), size, len(classes), images=first)
        with writing(folder / "card.json"):
            (folder / "card.json").unlink(missing_ok=True)  # an old card must not vouch for half-replaced files
        write_array_batches(folder / "images.npy", chain([first], parts), (n, height, width, 3))
    write_array(folder / "labels.npy", labels)
    write_array(folder / "split.npy", split)
    card = {"name": name, "classes": list(classes), "n": n, "size": size, "seed": seed, "parameters": parameters}
    write_json(folder / "card.json", {**card, "digest": _digest(folder)})
    return ImageSet.open(folder, verify=False)


def _digest(folder: Path) -> str:
    return sha256(*(folder / f"{part}.npy" for part in PARTS))


def _parts(images: np.ndarray | Iterable[np.ndarray]) -> Generator[np.ndarray, None, None]:
    yield from [images] if isinstance(images, np.ndarray) else images
