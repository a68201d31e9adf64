"""An image set: a folder of uint8 images, labels, a split and a JSON card."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from nrcg.errors import NrcgError
from nrcg.io.arrays import read_array, write_array, write_array_batches
from nrcg.io.files import read_card, sha256, write_json, writing

SPLITS = {"train": 0, "valid": 1, "test": 2}
CARD_KEYS = ("name", "classes", "n", "size", "seed", "parameters", "digest")


@dataclass(frozen=True)
class ImageSet:
    """A labelled, split set of square images on disk; `images` is memory-mapped.

    folder   where it lies
    images   uint8 N×H×W×3, 0…255
    labels   int64 N, index into `classes`
    split    uint8 N: 0 train, 1 valid, 2 test
    card     the JSON card: name, classes, n, size, seed, parameters, digest
    """

    folder: Path
    images: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    card: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> "ImageSet":
        """Open the image set in `folder`; raises NrcgError naming the file that is missing or does not fit.

        `verify` compares the files with the SHA-256 on the card, which reads them whole: about a second for each GB.
        """
        folder = Path(folder)
        if not (folder / "card.json").is_file():  # the card is written last
            raise NrcgError(f"{folder}: not a complete image set (no card.json); make it again")
        place = folder / "card.json"
        card = read_card(place, name=str, classes=list, n=int, size=int, parameters=dict, digest=str)
        if not all(isinstance(name, str) for name in card["classes"]):
            raise NrcgError(f"{place}: classes {card['classes']}: not all are names; make the image set again")
        images = read_array(folder / "images.npy")
        labels = read_array(folder / "labels.npy", mmap=False)
        split = read_array(folder / "split.npy", mmap=False)
        n, size = card["n"], card["size"]
        _check(folder / "images.npy", images, np.uint8, (n, size, size, 3))
        _check(folder / "labels.npy", labels, np.int64, (n,))
        _check(folder / "split.npy", split, np.uint8, (n,))
        _check_values(folder, labels, split, len(card["classes"]))
        if verify and _digest(folder) != card["digest"]:
            raise NrcgError(
                f"{folder}: images.npy, labels.npy or split.npy is not the file that card.json tells of (SHA-256); "
                "remove the folder and make the image set again"
            )
        return cls(folder, images, labels, split, card)

    @property
    def classes(self) -> list[str]:
        """Class names; a label is an index into them."""
        return self.card["classes"]

    def __len__(self) -> int:
        return len(self.images)

    def indices(self, split: str, target: int | None = None) -> np.ndarray:
        """int64 positions, ascending, of the images of `split` ("train", "valid", "test"), or of one class of it.

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


def _check(path: Path, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        found, wanted = f"{array.dtype} {array.shape}", f"{np.dtype(dtype)} {shape}"
        raise NrcgError(f"{path}: holds {found}, its card says {wanted}; make the image set again")


def _check_values(folder: Path, labels: np.ndarray, split: np.ndarray, n_classes: int) -> None:
    if len(labels) and (labels.min() < 0 or labels.max() >= n_classes):
        raise NrcgError(f"{folder / 'labels.npy'}: labels outside 0 to {n_classes - 1}, the classes of card.json")
    if len(split) and split.max() > max(SPLITS.values()):
        raise NrcgError(f"{folder / 'split.npy'}: values outside 0 (train), 1 (valid), 2 (test)")


def write_image_set(
    folder: str | Path,
    images: np.ndarray | Iterable[np.ndarray],  # uint8 N×S×S×3, or its parts along the first axis, in order
    labels: np.ndarray,  # integers N, index into classes
    split: np.ndarray,  # integers N, see SPLITS
    *,
    name: str,
    classes: Sequence[str],
    seed: int | None,  # None where the data were not drawn by the project
    parameters: dict[str, Any],  # what else made them; JSON values
) -> ImageSet:
    """Write an image set and open it. Each file is whole or absent; without its card, the last, the set is not open.

    Of images given in parts one part is held at a time. Raises NrcgError for arrays that do not fit together, and when
    a file cannot be written.
    """
    folder = Path(folder)
    labels, split = np.asarray(labels, dtype=np.int64), np.asarray(split, dtype=np.uint8)
    n = len(labels)
    _check(folder / "labels.npy", labels, np.int64, (n,))
    _check(folder / "split.npy", split, np.uint8, (n,))
    _check_values(folder, labels, split, len(classes))
    with closing(_parts(images)) as parts:  # a progress bar behind them ends before an error is printed
        first = next(parts, np.zeros((0, 0, 0, 3), np.uint8))
        size = first.shape[1]
        _check(folder / "images.npy", first, np.uint8, (len(first), size, size, 3))
        with writing(folder / "card.json"):
            (folder / "card.json").unlink(missing_ok=True)  # an old card must not vouch for half-replaced files
        write_array_batches(folder / "images.npy", chain([first], parts), (n, size, size, 3))
    write_array(folder / "labels.npy", labels)
    write_array(folder / "split.npy", split)
    values = (name, list(classes), n, size, seed, parameters, _digest(folder))
    write_json(folder / "card.json", dict(zip(CARD_KEYS, values, strict=True)))
    return ImageSet.open(folder, verify=False)


def _digest(folder: Path) -> str:
    return sha256(*(folder / f"{part}.npy" for part in ("images", "labels", "split")))


def _parts(images: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    yield from [images] if isinstance(images, np.ndarray) else images
