"""Resumable work in batches: each finished batch is a sealed file, named by its first item."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nrcg.errors import NrcgError
from nrcg.io.files import read_sealed, write_sealed
from nrcg.runtime.memory import BatchLimit

log = logging.getLogger("nrcg")


def in_batches(
    work: Callable[[range], Any], items: range, limit: BatchLimit, folder: Path | None, words: tuple[str, str]
) -> Iterator[tuple[range, Any]]:
    """(batch, result) for all items in order: first those stored in `folder`, then work(batch), which is stored.

    A result may consist of tensors, numbers, strings, tuples, lists and dicts. `folder` must be specific to the items
    and to everything that determines a result; None stores nothing. `words` are for messages: ("images", "analysed").
    """
    start, (things, done) = items.start, words
    while folder and (path := folder / f"{start}.batch").exists():
        try:
            stop, result = torch.load(read_sealed(path), weights_only=True)
        except NrcgError as error:
            log.warning("%s; to be %s again", error, done)
            break
        if stop > items.stop:
            break
        yield range(start, stop), result
        start = stop
    if start > items.start:
        log.info("%s: %d of %d %s already %s", folder, start - items.start, len(items), things, done)
    for batch, result in limit.each(work, range(start, items.stop)):
        if folder:
            write_sealed(folder / f"{batch.start}.batch", partial(torch.save, (batch.stop, result)))
        yield batch, result
