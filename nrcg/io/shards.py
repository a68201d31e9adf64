"""Shards of samples as `nrcg.sampling` leaves them: NAME.npy with the images, NAME.json beside it as their card."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nrcg.errors import NrcgError
from nrcg.io.arrays import read_array
from nrcg.io.files import read_card, sha256


@dataclass(frozen=True)
class Shard:
    """Samples of consecutive seeds, opened lazily."""

    path: Path
    images: np.ndarray  # uint8 n×H×W×3, a read-only memory map
    seeds: range
    diverged: np.ndarray  # bool n: the trajectory became non-finite, the image is mid-grey

    @classmethod
    def open(cls, path: str | Path) -> "Shard":
        """Open NAME.npy and its card; raises NrcgError naming the file that is missing, empty or does not fit."""
        path = Path(path)
        images, card = read_array(path), read_card(path.with_suffix(".json"))
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise NrcgError(f"{path}: {images.dtype} {images.shape}, expected uint8 n×H×W×3; sample it again")
        if not len(images):
            raise NrcgError(f"{path}: no images; sample it again")
        try:
            start, stop = card["seeds"]
            seeds, diverged = range(start, stop), frozenset(map(index, card["diverged"]))
        except (KeyError, TypeError, ValueError):
            raise NrcgError(f"{path.with_suffix('.json')}: no list `seeds` or `diverged`; sample it again") from None
        if len(seeds) != len(images):
            raise NrcgError(f"{path}: {len(images)} images, its card says seeds {card['seeds']}; sample it again")
        if not diverged <= set(seeds):
            raise NrcgError(f"{path.with_suffix('.json')}: `diverged` holds other seeds than {start} to {stop - 1}")
        return cls(path, images, seeds, np.isin(seeds, list(diverged)))


def verify(paths: Sequence[str | Path]) -> None:
    """Compare each NAME.npy with the SHA-256 on its card, which reads it whole: some 1 GB a second.

    Raises NrcgError for a file that is missing or damaged and for a card without a digest; it says which files to
    remove, and removes none: the images may be whole, and its user's own, where only the card is damaged.
    """
    paths = [Path(path) for path in paths]
    damaged = [path for path in tqdm(paths, desc="checking shards", unit="shard") if not _is_intact(path)]
    if damaged:
        names = ", ".join(f"{path} and {path.with_suffix('.json').name}" for path in damaged)
        raise NrcgError(f"remove {names}: not the images that the card tells of (SHA-256); then draw these again")


def _is_intact(path: Path) -> bool:
    card = path.with_suffix(".json")
    for file in (path, card):
        if not file.is_file():
            raise NrcgError(f"{file}: no such file; sample it")
    expected = read_card(card).get("sha256")
    if not isinstance(expected, str):
        raise NrcgError(f"{card}: no key `sha256`; delete the shard and sample it again")
    return sha256(path) == expected


def open_shards(paths: Sequence[str | Path]) -> list[Shard]:
    """The shards of one point in the order of their seeds; raises NrcgError for none, and for a seed that is twice."""
    if not paths:
        raise NrcgError("no sample shards; name at least one .npy file")
    shards = sorted((Shard.open(path) for path in paths), key=lambda shard: shard.seeds.start)
    for before, shard in pairwise(shards):
        if shard.seeds.start < before.seeds.stop:
            seeds = [shard.seeds.start, shard.seeds.stop]
            raise NrcgError(f"{shard.path}: seeds {seeds} occur in {before.path} too; name each sample once")
    return shards


def read_batches(shards: Sequence[Shard], batch_size: int, what: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images (uint8 b×H×W×3) and which of them diverged (bool b), at most `batch_size` at a time; `what` is the bar's.

    A batch is of one shard, so it may be shorter.
    """
    with tqdm(total=sum(len(shard.images) for shard in shards), desc=what, unit="image") as bar:
        for shard in shards:
            images = read_array(shard.path)  # a map of its own, so that its pages leave memory with it
            for start in range(0, len(images), batch_size):
                batch = np.array(images[start : start + batch_size])  # a copy: torch warns of read-only maps
                yield batch, shard.diverged[start : start + batch_size]
                bar.update(len(batch))
