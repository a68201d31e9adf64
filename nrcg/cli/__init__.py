"""`nrcg VERB …`: a thin verb for each rule of the workflow, and the only place that parses arguments."""

import io
import logging
import sys

from nrcg.cli import analyse, data, draw, fetch, make, plan  # noqa: F401  (each registers its verbs)
from nrcg.cli.options import app
from nrcg.errors import NrcgError, Stopped


def main() -> None:
    """Run a verb; bad input is one line on standard error and exit status 2, a stop on request one line and 75."""
    stderr = io.BufferedWriter(_Heedless(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(stderr, sys.stderr.encoding, sys.stderr.errors, line_buffering=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "httpx2", "fontTools"):  # a line for every request of the hub, every glyph of a PDF
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        app()
    except NrcgError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(75)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is imported only where it is needed
            raise
        reason = str(error).partition("\n")[0]
        print(f"error: the device has no room for the networks ({reason}); use another --device", file=sys.stderr)
        sys.exit(2)


class _Heedless(io.FileIO):
    """Standard error without which the work goes on: its disk may be full, and a signal may have ended its `tee`."""

    def write(self, text: bytes) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)
