"""Output of a verb, to the terminal and to the file of `--log`; failures of either do not stop the work."""

import errno
import io
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nrcg.errors import NrcgError

STALE = re.compile(rb"[^\n]*\r(?=[^\r\n])")  # earlier text of a rewritten line


class _Log:
    """A copy of all output; of a rewritten line (a progress bar) only the last version."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.file: io.FileIO | None = None
        self.lock, self.rewrites = threading.RLock(), False
        self.line, self.start = b"", 0  # the unfinished line, and its position in the file

    def open(self, path: Path | None) -> Path | None:
        """Copy all output from now on to a new file; warns once if it cannot be written."""
        self.path = path
        with self._given_up():
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.file = io.FileIO(path, "w")
                self.rewrites = path.is_file()  # false for a pipe
        return path

    def write(self, text: bytes) -> None:
        with self.lock, self._given_up():
            if self.file and self.rewrites:
                if self.line:
                    self.file.seek(self.start)
                    self.file.truncate()
                whole, end, self.line = STALE.sub(b"", self.line + text).rpartition(b"\n")
                self._put((whole + end).replace(b"\r", b""))
                self.start, text = self.file.tell(), self.line.replace(b"\r", b"")
            self._put(text)

    def _put(self, text: bytes) -> None:
        while self.file and text:
            text = text[self.file.write(text) :]

    @contextmanager
    def _given_up(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.file = None
            line = f"warning: --log {self.path}: cannot be written ({error.strerror}); continuing without it\n"
            # Not by print: this may be within a write to standard error.
            _streams.get("stderr", sys.stderr.buffer).write(line.encode())


class _Stream(io.FileIO):
    """Standard output or error whose write errors (full disk, closed pipe) do not stop the work."""

    failure: OSError | None = None

    def write(self, text: Any) -> int:
        try:
            written = super().write(text)
        except OSError as error:
            self.failure, written = error, len(text)
        LOG.write(bytes(memoryview(text)[:written]))
        return written


LOG = _Log()
_streams: dict[str, _Stream] = {}


def open_console() -> None:
    """Replace sys.stdout and sys.stderr, even if closed, by streams that never fail."""
    for number in range(3):  # else one of the verb's files could become standard error
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, number in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        encoding, errors = (before.encoding, before.errors) if before else ("utf-8", "backslashreplace")
        _streams[name] = _Stream(number, "w", closefd=False)
        stream = io.TextIOWrapper(io.BufferedWriter(_streams[name]), encoding, errors, line_buffering=True)
        setattr(sys, name, stream)


def say_result(text: str) -> None:
    """Print the result of a verb; unlike other output, raises NrcgError if it cannot be written."""
    sys.stdout.write(text)
    sys.stdout.flush()
    failure = _streams["stdout"].failure if "stdout" in _streams else None
    if failure and failure.errno != errno.EPIPE:  # a reader such as `head` may close the pipe
        raise NrcgError(f"standard output: cannot be written ({failure.strerror})")
