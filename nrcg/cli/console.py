"""What a verb says: to the terminal, and into the file of `--log`. Neither can make its work fail."""

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

STALE = re.compile(rb"[^\n]*\r(?=[^\r\n])")  # what a line was before it was rewritten


class _Log:
    """A file with all that was said; of a line that was rewritten (a progress bar) only how it was last."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.file: io.FileIO | None = None
        self.lock, self.rewrites = threading.RLock(), False
        self.line, self.start = b"", 0  # the line without an end, and where it begins in the file

    def open(self, path: Path | None) -> Path | None:
        """Copy into a new file, from now on, all that is said; a file that cannot be written is told of once."""
        self.path = path
        with self._given_up():
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.file = io.FileIO(path, "w")
                self.rewrites = path.is_file()  # not so a pipe
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
            line = f"warning: --log {self.path}: cannot be written ({error.strerror}); going on without it\n"
            # Not by print: this may be within a write to standard error.
            _streams.get("stderr", sys.stderr.buffer).write(line.encode())


class _Stream(io.FileIO):
    """Standard output or error without which the work goes on: its disk may be full, its `tee` may have ended."""

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
    """Put streams that never fail in the place of sys.stdout and sys.stderr, also where they are closed."""
    for number in range(3):  # or a file of the verb's would be opened as standard error
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
    """Print what a verb was asked for; raises NrcgError when it cannot be written, unlike other lines."""
    sys.stdout.write(text)
    sys.stdout.flush()
    failure = _streams["stdout"].failure if "stdout" in _streams else None
    if failure and failure.errno != errno.EPIPE:  # `| head` has seen enough
        raise NrcgError(f"standard output: cannot be written ({failure.strerror})")
