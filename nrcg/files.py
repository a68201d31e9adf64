"""Files that are either whole or absent: written beside their place, synced, then renamed."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nrcg.errors import NrcgError


@contextmanager
def atomic(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that takes the name `path` only once it is complete and on disk."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files; results are for sharing
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
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
    except json.JSONDecodeError as error:
        raise NrcgError(f"{path}: not valid JSON ({error}); delete it and make it again") from None


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write `array` as .npy, atomically."""
    with atomic(path) as file:
        np.save(file, array, allow_pickle=False)


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


def save_with(path: str | Path, save: Callable[[Path], None]) -> None:
    """Let a library that only takes a path (matplotlib, safetensors) write `path` atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")  # keeps the suffix: it chooses the format
    try:
        save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
