"""Class names and random validation splits, used by several kinds of data sets."""

import logging
import unicodedata
from collections.abc import Sequence

import numpy as np

from nrcg.datasets.imageset import SPLITS
from nrcg.errors import NrcgError

log = logging.getLogger("nrcg")


def one_name(name: str) -> str:
    """The canonical spelling of a name, without differences of case, outer spaces and Unicode composition."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def distinct(names: Sequence[str], where: str) -> list[str]:
    """The class names; raises NrcgError, which begins with `where`, if two are the same name."""
    known: dict[str, str] = {}
    for name in names:
        if (key := one_name(name)) in known:
            raise NrcgError(f"{where}: the classes {known[key]!r} and {name!r} have the same name; rename one")
        known[key] = name
    return list(names)


def compare_names(given: Sequence[str], own: Sequence[str], where: str) -> None:
    """Refuse class names that are a permutation of the data set's; warn of different names.

    `where` is the origin of the data set's names, for the message.
    """
    ours, theirs = list(map(one_name, given)), list(map(one_name, own))
    if ours != theirs and sorted(ours) == sorted(theirs):
        words = f"the order of the labels in {where} is {', '.join(own)}"
        raise NrcgError(f"classes {', '.join(given)}: {words}; give them in that order")
    if ours != theirs:
        log.warning("%s names its classes %s; the config names them %s", where, ", ".join(own), ", ".join(given))


def drawn_split(labels: np.ndarray, classes: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """A split, uint8 N (0 train, 1 valid): the share `fraction` of each class, at least one image, drawn by `seed`.

    Raises NrcgError for a class with too few images for both parts.
    """
    from nrcg.rng import keyed_seed  # imports torch

    split = np.full(len(labels), SPLITS["train"], np.uint8)
    for label, name in enumerate(classes):
        mine = np.flatnonzero(labels == label)
        n = max(1, round(fraction * len(mine)))
        if 0 < len(mine) <= n:
            raise NrcgError(
                f"valid_fraction {fraction}: class {name!r} has {len(mine)} image(s), too few for training and "
                f"validation; add images, or lower it"
            )
        # The raw stream of the counter-based Philox generator is stable across numpy versions.
        words = np.random.Philox(key=keyed_seed("validation split", seed, label)).random_raw(len(mine))
        split[mine[np.argsort(words, kind="stable")[:n]]] = SPLITS["valid"]
    return split
