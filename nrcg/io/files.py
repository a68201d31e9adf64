"""Files that are complete or absent (written to a temporary name, synced, renamed), and file locks."""

import errno
import glob
import hashlib
import io
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from nrcg.errors import NrcgError

POLL = 1.0  # seconds between two looks while another process has a lock
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF, errno.EINVAL)  # of file systems without locks


class _Output(io.FileIO):
    """A file that keeps the OSError of a failed write, which libraries may replace by their own."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raises any OSError inside (full disk, read-only, no permission) as an NrcgError about writing `path`."""
    try:
        yield
    except OSError as error:
        way = "free some space or choose another folder, then run again"
        raise NrcgError(f"{path}: cannot be written ({error.strerror}); {way}") from error


def try_lock(path: str | Path, mode: int = 0o644) -> FileLock | None:
    """A lock on the file `path`, created with its folder if needed; None while another process holds it.

    It lasts until `release` or the end of the process, however it ends. On a file system without locks every process
    gets one, with `is_locked` False.
    """
    lock = FileLock(path, mode=mode, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return lock


@contextmanager
def alone(place: Path, wait: Callable[[bool], None]) -> Iterator[bool]:
    """Mutual exclusion between processes by the lock file `place`; yields whether it had to wait.

    Meanwhile `wait` is called once per second, with True the first time. File systems without locks do not exclude.
    Raises NrcgError if the file cannot be created.
    """
    waited = False
    while True:
        with writing(place), suppress(FileNotFoundError):  # the other process has just removed the folder
            if lock := try_lock(place):
                break
            wait(not waited)
            waited = True
            time.sleep(POLL)
    try:
        yield waited
    finally:
        with suppress(OSError):
            place.unlink()
        lock.release()


def require_writable(path: str | Path) -> None:
    """Raise NrcgError, before costly work, if `path` cannot be written; creates no folder."""
    path = Path(path)
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        tempfile.TemporaryFile(dir=next(place for place in path.absolute().parents if place.exists())).close()


@contextmanager
def atomic(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that gets the name `path` only when it is complete and on disk.

    Raises NrcgError if it cannot be written; an older file of that name then stays. Other OSErrors of the body, such
    as those of a file it reads, are passed on.
    """
    path = Path(path)
    with writing(path):
        lock, temporary = _temporary(path)
        output = _Output(temporary, "wb")
    try:
        with io.BufferedWriter(output) as file:
            yield file
            with writing(path):
                file.flush()
                os.fsync(output.fileno())
                os.replace(temporary, path)
                with suppress(OSError), ExitStack() as stack:  # not every file system can sync a folder
                    folder = os.open(path.parent, os.O_RDONLY)
                    stack.callback(os.close, folder)
                    os.fsync(folder)
    except BaseException as error:
        if output.failure:
            with writing(path):
                raise output.failure from error
        raise
    finally:
        with suppress(OSError):  # already renamed, or the disk became read-only
            temporary.unlink()
        lock.release()


def _temporary(path: Path) -> tuple[FileLock, Path]:
    """A new locked file beside `path`; removes the leftovers of killed processes."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):
            if (lock := try_lock(left)) and lock.is_locked:
                left.unlink(missing_ok=True)
                lock.release()
    os.umask(mask := os.umask(0))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    while not (lock := try_lock(temporary, 0o666 & ~mask)):
        pass  # another process mistook it for a leftover
    return lock, temporary


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as file:
        file.write(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Raises any OSError inside as an NrcgError about reading `path`."""
    try:
        yield
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        raise NrcgError(f"{path}: {'no such file' if absent else f'cannot be read ({error.strerror})'}") from None


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, without a byte order mark; NrcgError if it cannot be read."""
    try:
        with _reading(path):
            return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise NrcgError(f"{path}: not UTF-8 text ({error}); repair it, or delete it and make it again") from None


def read_lines(path: str | Path) -> str:
    """The text of a machine-written table; NrcgError if the last line has no end, as in a truncated file."""
    text = read_text(path)
    if text and not text.endswith("\n"):
        raise NrcgError(f"{path}: truncated (its last line has no end); delete it and make it again")
    return text


def read_json(path: str | Path) -> Any:
    """Read JSON; NrcgError if the file is missing or damaged."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NrcgError(f"{path}: not valid JSON ({error}); repair it, or delete it and make it again") from None


def read_card(path: str | Path, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """Read a JSON object with values of these types; NrcgError names the file and the key that is missing or wrong."""
    card = read_json(path)
    if not isinstance(card, dict):
        raise NrcgError(f"{path}: {repr(card)[:40]} is no JSON object; delete it and make it again")
    for key, kind in kinds.items():
        if key not in card:
            raise NrcgError(f"{path}: no key {key!r}; delete it and make it again")
        if not isinstance(card[key], kind) or (isinstance(card[key], bool) and kind is not bool):
            raise NrcgError(f"{path}: {key} is {repr(card[key])[:40]}; delete the file and make it again")
    return card


def require_digest(path: str | Path, expected: Any, card: str | Path) -> None:
    """Raise NrcgError unless the file at `path` has the SHA-256 on its card; removes nothing."""
    if sha256(path) != expected:
        raise NrcgError(f"{path}: its SHA-256 differs from that in {card}; remove both and make them again")


def sha256(*paths: str | Path) -> str:
    """Hex SHA-256 over the concatenated contents of `paths`; NrcgError for one that cannot be read."""
    digest = hashlib.sha256()
    for path in paths:
        with _reading(path), open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def fingerprint(**settings: Any) -> str:
    """A digest of everything that determines a result: unfinished work is only resumed with the same settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def write_sealed(path: str | Path, save: Callable[[BinaryIO], None]) -> None:
    """Write the output of `save` behind its SHA-256 (32 bytes), atomically; holds it in memory once."""
    content = io.BytesIO()
    save(content)
    with atomic(path) as file:
        file.write(hashlib.sha256(content.getbuffer()).digest())
        file.write(content.getbuffer())


def read_sealed(path: str | Path) -> BinaryIO:
    """Content of a file of `write_sealed`; NrcgError if it cannot be read, or a byte is missing or altered."""
    with _reading(path), open(path, "rb") as file:
        digest, content = file.read(32), file.read()
    if hashlib.sha256(content).digest() != digest:
        raise NrcgError(f"{path}: damaged, its content does not match its SHA-256")
    return io.BytesIO(content)
