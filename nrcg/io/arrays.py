"""NumPy arrays as files, complete or absent, written and read with little memory."""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError

import numpy as np

from nrcg.errors import NrcgError
from nrcg.io.files import atomic

# Errors of NumPy for files that are cut short, damaged or foreign; a damaged header may request any amount of memory.
UNREADABLE = (ValueError, EOFError, TypeError, OverflowError, MemoryError, SyntaxError, TokenError, zipfile.BadZipFile)


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write `array` as .npy, atomically."""
    write_array_batches(path, [array], array.shape, array.dtype)


def write_array_batches(
    path: str | Path, batches: Iterable[np.ndarray], shape: tuple[int, ...], dtype: np.dtype | type = np.uint8
) -> None:
    """Write an array of `shape` as .npy, atomically, from parts along the first axis, one at a time in memory.

    Raises NrcgError for a part of another type or shape, or if the parts do not add up to `shape`.
    """
    dtype, n = np.dtype(dtype), 0
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with atomic(path) as file:  # a memory map would crash on a full disk
        np.lib.format.write_array_header_1_0(file, header)
        for batch in batches:
            if batch.dtype != dtype or batch.shape[1:] != shape[1:]:
                raise NrcgError(f"{path}: a part holds {batch.dtype} {batch.shape}; it must fit {dtype} {shape}")
            file.write(np.ascontiguousarray(batch).data)
            n += len(batch)
        if n != shape[0]:
            raise NrcgError(f"{path}: its parts hold {n} rows; they must hold {shape[0]}")


def read_array(path: str | Path, *, mmap: bool = True) -> np.ndarray:
    """Open a .npy file, memory-mapped by default; NrcgError for a missing or truncated file."""
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except FileNotFoundError:
        raise NrcgError(f"{path}: no such file") from None
    except (*UNREADABLE, OSError) as error:
        raise NrcgError(f"{path}: not a complete .npy array ({error}); delete it and make it again") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise NrcgError(f"{path}: an archive of arrays (.npz), not one .npy array; delete it and make it again")
    return array
