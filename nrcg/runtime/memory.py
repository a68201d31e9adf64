"""Batches that fit the device's memory, halved where it does not suffice."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from nrcg.errors import NrcgError

log = logging.getLogger("nrcg")
Result = TypeVar("Result")


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device, or the machine itself (for which torch has no error of its own), had no memory left."""
    said = isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "bad_alloc" in str(error))
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


class BatchLimit:
    """How many images the networks take at a time: `size` or, once halved for good, less; `what` names their work."""

    def __init__(self, what: str, size: int) -> None:
        self.what, self.size = what, size

    def attempt(self, work: Callable[[int], Result], n: int) -> Result:
        """work(size), size ≤ n, again with half while memory lacks; `work`, broken off, must leave nothing behind."""
        while True:
            size = min(self.size, n)
            try:
                return work(size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                # go on outside of this block: until its end the error keeps the tensors of `work` alive
            if size == 1:
                raise NrcgError(
                    f"{self.what}: out of memory with a single image; use a device with more, or a freer one"
                )
            self.size = size // 2
            log.warning("%s: out of memory with %d images at a time; going on with %d", self.what, size, self.size)
            torch.cuda.empty_cache()  # pieces of other sizes would stay in the way; does nothing without CUDA

    def each(self, work: Callable[[Any], Result], items: Any) -> Iterator[tuple[Any, Result]]:
        """(batch, work(batch)) for all `items` (anything that can be sliced) in order, as many at a time as fit."""

        def take(size: int) -> tuple[Any, Result]:
            return items[:size], work(items[:size])

        while len(items):
            batch, result = self.attempt(take, len(items))
            items = items[len(batch) :]
            yield batch, result
