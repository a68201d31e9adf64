"""Class names and drawn validation splits, which data sets of others share."""

import logging
import unicodedata
from collections.abc import Sequence

import numpy as np

from nrcg.datasets.imageset import SPLITS
from nrcg.errors import NrcgError

log = logging.getLogger("nrcg")


def one_name(name: str) -> str:
    """What two spellings of a name have in common: case, spaces around it and Unicode's composition do not count."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def distinct(names: Sequence[str], where: str) -> list[str]:
    """The names of classes; raises NrcgError, which begins with `where`, for two that are one name."""
    known: dict[str, str] = {}
    for name in names:
        if (key := one_name(name)) in known:
            raise NrcgError(f"{where}: the classes {known[key]!r} and {name!r} have one name; give each its own")
        known[key] = name
    return list(names)


def compare_names(given: Sequence[str], own: Sequence[str], where: str) -> None:
    """Refuse class names that are those of the data themselves in another order; warn of other ones.

    Raises NrcgError, which names `where` the data's own names are from.
    """
    ours, theirs = list(map(one_name, given)), list(map(one_name, own))
    if ours != theirs and sorted(ours) == sorted(theirs):
        words = f"{where} itself calls its classes, in the order of the labels, {', '.join(own)}"
        raise NrcgError(f"classes {', '.join(given)}: {words}; give them in that order")
    if ours != theirs:
        log.warning("%s calls its classes %s; here they are %s", where, ", ".join(own), ", ".join(given))


def drawn_split(labels: np.ndarray, classes: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """A split, uint8 N, 0 train and 1 valid: of each class the share `fraction`, at least one image, drawn by `seed`.

    Raises NrcgError for a class that has too few images for both parts.
    """
    from nrcg.rng import keyed_seed  # imports torch

    split = np.full(len(labels), SPLITS["train"], np.uint8)
    for label, name in enumerate(classes):
        mine = np.flatnonzero(labels == label)
        n = max(1, round(fraction * len(mine)))
        if 0 < len(mine) <= n:
            raise NrcgError(
                f"valid_fraction {fraction}: class {name!r} has {len(mine)} image(s), too few to train with and to "
                f"validate with; add images, or lower it"
            )
        # The counter-based Philox generator's raw stream, which numpy keeps from version to version.
        words = np.random.Philox(key=keyed_seed("validation split", seed, label)).random_raw(len(mine))
        split[mine[np.argsort(words, kind="stable")[:n]]] = SPLITS["valid"]
    return split
