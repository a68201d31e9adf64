"""Files that are either whole or absent: written beside their place, synced, then renamed."""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError

from nrcg.errors import NrcgError


class _Output(io.FileIO):
    """A file that remembers why it could not be written; what libraries make of that reason is their own."""

    failure: OSError | None = None

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def _refusal(path: Path, reason: str | None) -> NrcgError:
    return NrcgError(f"{path}: cannot be written ({reason}); make room or choose another place, then run again")


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Any OSError in here is one of writing `path` (full disk, read-only, no permission): raised as an NrcgError."""
    try:
        yield
    except OSError as error:
        raise _refusal(Path(path), error.strerror) from error


@contextmanager
def atomic(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that takes the name `path` only once it is complete and on disk.

    Raises NrcgError when it cannot be written; an older file of that name then stays. An OSError of the body that has
    another cause, such as a file it reads, passes as it is.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    output = _Output(handle, "wb")
    try:
        with io.BufferedWriter(output) as file:
            yield file
            with writing(path):
                file.flush()
                os.fsync(handle)
        with writing(path):
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files; results are for sharing
            os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if output.failure:
            raise _refusal(path, output.failure.strerror) from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as file:
        file.write(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; raises NrcgError naming the file when it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise NrcgError(f"{path}: no such file") from None
    except ValueError as error:  # of JSON, or of UTF-8
        raise NrcgError(f"{path}: not valid JSON ({error}); delete it and make it again") from None


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write `array` as .npy, atomically."""
    write_array_batches(path, [array], array.shape, array.dtype)


def write_array_batches(
    path: str | Path, batches: Iterable[np.ndarray], shape: tuple[int, ...], dtype: np.dtype | type = np.uint8
) -> None:
    """Write an array of `shape` as .npy, atomically, from its parts along the first axis, in order.

    One part is held at a time. Plain writes are used, not a memory map: there a full disk is a crash, here an error.
    Raises NrcgError for a part of another type or shape, and for parts that do not add up to `shape`.
    """
    dtype, n = np.dtype(dtype), 0
    if dtype.hasobject:
        raise TypeError(f"{path}: an array of Python objects would need a pickle")
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with atomic(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for batch in batches:
            if batch.dtype != dtype or batch.shape[1:] != shape[1:]:
                raise NrcgError(f"{path}: a part holds {batch.dtype} {batch.shape}; it must fit {dtype} {shape}")
            file.write(np.ascontiguousarray(batch).data)
            n += len(batch)
        if n != shape[0]:
            raise NrcgError(f"{path}: its parts hold {n} rows; they must hold {shape[0]}")


def read_array(path: str | Path, *, mmap: bool = True) -> np.ndarray:
    """Open a .npy file, memory-mapped by default; raises NrcgError naming a missing or truncated file."""
    try:
        return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except FileNotFoundError:
        raise NrcgError(f"{path}: no such file") from None
    except (ValueError, EOFError) as error:
        raise NrcgError(f"{path}: not a complete .npy array ({error}); delete it and make it again") from None


def sha256(*paths: str | Path) -> str:
    """Hex SHA-256 over the contents of `paths`, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def fingerprint(**settings: Any) -> str:
    """A digest of everything that decides a result, so that no unfinished work of other settings is continued."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def write_sealed(path: str | Path, save: Callable[[BinaryIO], None]) -> None:
    """Write what `save` puts into a file, behind its SHA-256 (32 bytes), atomically; it is held in memory once."""
    content = io.BytesIO()
    save(content)
    with atomic(path) as file:
        file.write(hashlib.sha256(content.getbuffer()).digest())
        file.write(content.getbuffer())


def read_sealed(path: str | Path) -> BinaryIO:
    """What `write_sealed` wrote; raises NrcgError when it cannot be read, or a byte of it is missing or altered."""
    try:
        with open(path, "rb") as file:
            digest, content = file.read(32), file.read()
    except OSError as error:
        raise NrcgError(f"{path}: cannot be read ({error.strerror})") from None
    if hashlib.sha256(content).digest() != digest:
        raise NrcgError(f"{path}: damaged, its content is not that of its SHA-256")
    return io.BytesIO(content)


def save_with(path: str | Path, save: Callable[[Path], None]) -> None:
    """Let a library that only takes a path (matplotlib, safetensors) write `path` atomically.

    Raises NrcgError when it cannot be written; an older file of that name then stays. An OSError that names another
    file, or has no number, has another cause and passes as it is.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")  # keeps the suffix: it chooses the format
    try:
        save(temporary)
        os.chmod(temporary, 0o666 & ~_umask())  # safetensors makes private files; results are for sharing
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary, str(temporary)):
            raise
        raise _refusal(path, error.strerror) from error
    except SafetensorError as error:
        _, _, reason = str(error).partition("I/O error: ")
        if not reason:
            raise
        raise _refusal(path, reason.partition(" (os error")[0]) from error
    finally:
        temporary.unlink(missing_ok=True)
