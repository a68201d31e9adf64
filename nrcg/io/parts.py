"""Work in batches that goes on where it was broken off: each batch done is a sealed file, named by its first item."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nrcg.errors import NrcgError
from nrcg.io.files import read_sealed, write_sealed
from nrcg.runtime.memory import BatchLimit

log = logging.getLogger("nrcg")


def in_parts(
    work: Callable[[range], Any],
    items: range,
    limit: BatchLimit,
    folder: Path | None,
    load: Callable[[BinaryIO], Any],
    words: tuple[str, str],
) -> Iterator[tuple[range, Any]]:
    """(batch, part) for all items in order: those that `folder` holds without a gap, then work(batch), which it keeps.

    Args:
        work: makes the part of a batch, something with a method `save(file)` and the batch's length.
        items: of step 1.
        limit: how many items a batch may have.
        folder: belongs to these items and to all that decides a part; None keeps nothing.
        load: the part of a file that `save` wrote.
        words: what the items are, and what is done with them: ("images", "analysed").
    """
    start, (things, done) = items.start, words
    while folder and (path := folder / f"{start}.part").exists():
        try:
            part = load(read_sealed(path))
        except NrcgError as error:
            log.warning("%s; it is %s again", error, done)
            break
        if start + len(part) > items.stop:
            break
        yield range(start, start + len(part)), part
        start += len(part)
    if start > items.start:
        log.info("%s: %d of %d %s were %s before", folder, start - items.start, len(items), things, done)
    for batch, part in limit.each(work, range(start, items.stop)):
        if folder:
            write_sealed(folder / f"{batch.start}.part", part.save)
        yield batch, part
