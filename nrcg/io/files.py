"""Files that are either whole or absent: written beside their place, synced, then renamed; and locks that are files."""

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
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF, errno.EINVAL)  # of file systems without any


class _Output(io.FileIO):
    """A file that remembers why it could not be written; what libraries make of that reason is their own."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Any OSError in here is one of writing `path` (full disk, read-only, no permission): raised as an NrcgError."""
    try:
        yield
    except OSError as error:
        way = "make room or choose another place, then run again"
        raise NrcgError(f"{path}: cannot be written ({error.strerror}); {way}") from error


def try_lock(path: str | Path, mode: int = 0o644) -> FileLock | None:
    """A lock on the file `path`, made with its folder if need be; None while another process has it.

    It lasts until `release`, or until the process ends, by whatever end. A file system without locks gives one to
    everybody, and `is_locked` says so.
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
    """Inside, no other process is inside with the same `place`, a file; yields whether there was another one.

    While there is, `wait` is called once a second, with True the first time. Where a file system has no locks, nobody
    waits. Raises NrcgError when the file cannot be made.
    """
    waited = False
    while True:
        with writing(place), suppress(FileNotFoundError):  # the other one has just removed the folder
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
    """Raise NrcgError when no file could be written at `path`, before costly work; makes no folder."""
    path = Path(path)
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        tempfile.TemporaryFile(dir=next(place for place in path.absolute().parents if place.exists())).close()


@contextmanager
def atomic(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that takes the name `path` only once it is complete and on disk.

    Raises NrcgError when it cannot be written; an older file of that name then stays. An OSError of the body that has
    another cause, such as a file it reads, passes as it is.
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
        with suppress(OSError):  # it has its name, or its disk turned read-only: then it cannot be helped
            temporary.unlink()
        lock.release()


def _temporary(path: Path) -> tuple[FileLock, Path]:
    """A new file beside `path`, locked; what killed processes left of theirs is removed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):
            if (lock := try_lock(left)) and lock.is_locked:
                left.unlink(missing_ok=True)
                lock.release()
    os.umask(mask := os.umask(0))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    while not (lock := try_lock(temporary, 0o666 & ~mask)):
        pass  # another process takes it for one that was left
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
    """Any OSError in here is one of reading `path`."""
    try:
        yield
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        raise NrcgError(f"{path}: {'no such file' if absent else f'cannot be read ({error.strerror})'}") from None


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, without a byte order mark; raises NrcgError naming the file when it cannot be read."""
    try:
        with _reading(path):
            return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise NrcgError(f"{path}: not a text in UTF-8 ({error}); mend it, or delete it and make it again") from None


def read_lines(path: str | Path) -> str:
    """The text of a table that a program wrote: its last line must have an end, else the file was cut short."""
    text = read_text(path)
    if text and not text.endswith("\n"):
        raise NrcgError(f"{path}: its last line has no end, so the file was cut short; delete it and make it again")
    return text


def read_json(path: str | Path) -> Any:
    """Read JSON; raises NrcgError naming the file when it is missing or damaged."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NrcgError(f"{path}: not valid JSON ({error}); mend it, or delete it and make it again") from None


def read_card(path: str | Path, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """Read a JSON object with values of these types; raises NrcgError naming the file and the key where it has none."""
    card = read_json(path)
    if not isinstance(card, dict):
        raise NrcgError(f"{path}: holds no object, but {repr(card)[:40]}; delete it and make it again")
    for key, kind in kinds.items():
        if key not in card:
            raise NrcgError(f"{path}: no key {key!r}; delete it and make it again")
        if not isinstance(card[key], kind) or (isinstance(card[key], bool) and kind is not bool):
            raise NrcgError(f"{path}: {key} is {repr(card[key])[:40]}; delete the file and make it again")
    return card


def require_digest(path: str | Path, expected: Any, card: str | Path) -> None:
    """Raise NrcgError unless the file at `path` has the SHA-256 that its card tells of; nothing is removed."""
    if sha256(path) != expected:
        raise NrcgError(f"{path}: not the file that {card} tells of (SHA-256); remove both and make them again")


def sha256(*paths: str | Path) -> str:
    """Hex SHA-256 over the contents of `paths`, one after the other; raises NrcgError for one that cannot be read."""
    digest = hashlib.sha256()
    for path in paths:
        with _reading(path), open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
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
    with _reading(path), open(path, "rb") as file:
        digest, content = file.read(32), file.read()
    if hashlib.sha256(content).digest() != digest:
        raise NrcgError(f"{path}: damaged, its content is not that of its SHA-256")
    return io.BytesIO(content)
