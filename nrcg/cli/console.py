"""What a verb says: to the terminal, and into the file of `--log`. Neither can make its work fail."""

import errno
import io
import os
import re
import stat
import sys
import threading
from pathlib import Path

from nrcg.errors import NrcgError


class _Log:
    """A file with all that was said; of a line that was rewritten (a progress bar) only how it was last."""

    def __init__(self) -> None:
        self.file: io.FileIO | None = None
        self.lock = threading.RLock()
        self.path, self.line, self.rewrite, self.rewrites = Path(), 0, False, False

    def open(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = io.FileIO(path, "w")
            self.rewrites = stat.S_ISREG(os.fstat(self.file.fileno()).st_mode)  # not so a pipe
        except OSError as error:
            self._give_up(error)

    def write(self, text: bytes) -> None:
        with self.lock:
            try:
                for piece in re.findall(rb"[^\r\n]+|\r|\n", text) if self.file else []:
                    self._add(piece)
            except OSError as error:
                self._give_up(error)

    def _add(self, piece: bytes) -> None:
        if piece == b"\r":
            self.rewrite = True
            return
        if self.rewrite and piece != b"\n" and self.rewrites:
            self.file.seek(self.line)
            self.file.truncate()
        self.rewrite = False
        while piece:
            written = self.file.write(piece)
            last, piece = piece[:written], piece[written:]
        if last == b"\n" and self.rewrites:
            self.line = self.file.tell()

    def _give_up(self, error: OSError) -> None:
        self.file = None
        line = f"warning: --log {self.path}: cannot be written ({error.strerror}); going on without it\n"
        # Not by print: this may be within a write to standard error.
        _streams.get("stderr", sys.stderr.buffer).write(line.encode())


class _Stream(io.FileIO):
    """Standard output or error without which the work goes on: its disk may be full, its `tee` may have ended."""

    failure: OSError | None = None

    def write(self, text: bytes) -> int:
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


def log_to(path: Path | None) -> Path | None:
    """Copy into a new file, from now on, all that is said; a file that cannot be written is told of once."""
    if path is not None:
        LOG.open(path)
    return path


def say_result(text: str) -> None:
    """Print what a verb was asked for; raises NrcgError when it cannot be written, unlike other lines."""
    sys.stdout.write(text)
    sys.stdout.flush()
    failure = _streams["stdout"].failure if "stdout" in _streams else None
    if failure and failure.errno != errno.EPIPE:  # `| head` has seen enough
        raise NrcgError(f"standard output: cannot be written ({failure.strerror})")
