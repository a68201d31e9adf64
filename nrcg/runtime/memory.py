"""Batches that fit into the device's memory; halved on out-of-memory errors."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from nrcg.errors import NrcgError

log = logging.getLogger("nrcg")
Result = TypeVar("Result")


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device or the machine (for which torch has no error class) ran out of memory."""
    said = isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "bad_alloc" in str(error))
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


class BatchLimit:
    """The number of images per batch: `size`, permanently halved when memory runs out; `what` is for messages."""

    def __init__(self, what: str, size: int) -> None:
        self.what, self.size = what, size

    def attempt(self, work: Callable[[int], Result], n: int) -> Result:
        """work(size) with size ≤ n, halved until it fits; `work` must be safe to interrupt and repeat."""
        while True:
            size = min(self.size, n)
            try:
                return work(size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                # retry outside this block: the error keeps the tensors of `work` alive until its end
            if size == 1:
                raise NrcgError(f"{self.what}: out of memory with a single image; use a device with more free memory")
            self.size = size // 2
            log.warning("%s: out of memory with batches of %d images; continuing with %d", self.what, size, self.size)
            torch.cuda.empty_cache()  # cached blocks of other sizes would occupy memory; does nothing without CUDA

    def each(self, work: Callable[[Any], Result], items: Any) -> Iterator[tuple[Any, Result]]:
        """(batch, work(batch)) for all `items` (any sliceable) in order, in batches that fit."""

        def take(size: int) -> tuple[Any, Result]:
            return items[:size], work(items[:size])

        while len(items):
            batch, result = self.attempt(take, len(items))
            items = items[len(batch) :]
            yield batch, result
