"""Shards of samples as written by `nrcg.sampling`: images in NAME.npy, their card in NAME.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nrcg.errors import NrcgError
from nrcg.io.arrays import read_array, write_array
from nrcg.io.files import read_card, sha256, write_json


@dataclass(frozen=True)
class Shard:
    """Samples of consecutive seeds, opened lazily."""

    path: Path
    images: np.ndarray  # uint8 n×H×W×3, a read-only memory map
    seeds: range
    diverged: np.ndarray  # bool n: the trajectory became non-finite, the image is mid-grey

    @classmethod
    def open(cls, path: str | Path) -> "Shard":
        """Open NAME.npy and its card; NrcgError names the file that is missing, empty or does not fit."""
        path, place = Path(path), Path(path).with_suffix(".json")
        images, card = read_array(path), read_card(place)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not len(images):
            raise NrcgError(f"{path}: {images.dtype} {images.shape}, expected uint8 n×H×W×3; sample it again")
        try:
            start, stop = card["seeds"]
            seeds, diverged = range(start, stop), frozenset(map(index, card["diverged"]))
        except (KeyError, TypeError, ValueError):
            raise NrcgError(f"{place}: no list `seeds` or `diverged`; sample it again") from None
        if len(seeds) != len(images):
            raise NrcgError(f"{path}: {len(images)} images, but seeds {card['seeds']} on its card; sample it again")
        if not diverged <= set(seeds):
            raise NrcgError(f"{place}: `diverged` holds seeds outside {start} to {stop - 1}; sample it again")
        return cls(path, images, seeds, np.isin(seeds, list(diverged)))


def verify(paths: Sequence[str | Path]) -> None:
    """Compare each NAME.npy with the SHA-256 on its card; reads about 1 GB per second.

    Raises NrcgError with the files to remove. It removes none itself: if only the card is damaged, the images are
    intact.
    """
    damaged = []
    for path in map(Path, tqdm(paths, desc="checking shards", unit="shard")):
        card = path.with_suffix(".json")
        if sha256(path) != read_card(card, sha256=str)["sha256"]:
            damaged.append(f"{path} and {card.name}")
    if damaged:
        names = ", ".join(damaged)
        raise NrcgError(f"remove {names}: the SHA-256 on the card does not match; then draw these samples again")


def open_shards(paths: Sequence[str | Path]) -> list[Shard]:
    """The shards of one point in the order of their seeds; NrcgError for an empty list or a repeated seed."""
    if not paths:
        raise NrcgError("no sample shards; name at least one .npy file")
    shards = sorted(map(Shard.open, paths), key=lambda shard: shard.seeds.start)
    for before, shard in pairwise(shards):
        if shard.seeds.start < before.seeds.stop:
            seeds = [shard.seeds.start, shard.seeds.stop]
            raise NrcgError(f"{shard.path}: seeds {seeds} occur in {before.path} too; name each sample once")
    return shards


def keep_first(shards: Sequence[str | Path], out: str | Path, n: int, seed: int = 0) -> None:
    """Write the first `n` samples of a point, from `seed` on, as one shard; its card has the keys common to all cards.

    Args:
        shards: verified shards of consecutive seeds, in any order.
        out: NAME.npy; its card is NAME.json.

    Raises NrcgError for a shard that is missing or does not fit, and for a gap between seeds.
    """
    opened = open_shards(shards)
    first, last = opened[0].seeds.start, opened[-1].seeds.stop
    if sum(len(shard.seeds) for shard in opened) != last - first:
        raise NrcgError(f"{opened[0].path} and others: their seeds have a gap; name shards of consecutive seeds")
    first = max(first, seed)
    shown = range(first, min(first + n, last))
    if not shown:
        raise NrcgError(f"{opened[0].path} and others: no sample of seed {seed} or later; draw more")
    write_array(out, np.concatenate([shard.images[np.isin(shard.seeds, shown)] for shard in opened]))
    cards = [read_card(shard.path.with_suffix(".json")) for shard in opened]
    card = {key: value for key, value in cards[0].items() if all(other.get(key) == value for other in cards)}
    card["seeds"] = [shown.start, shown.stop]
    card["diverged"] = sorted(seed for other in cards for seed in other["diverged"] if seed in shown)
    card["sha256"] = sha256(out)
    write_json(Path(out).with_suffix(".json"), card)
