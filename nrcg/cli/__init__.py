"""`nrcg VERB …`: one thin verb per rule of the workflow, and the only place that parses arguments."""

import logging
import sys

from nrcg.cli import data, draw, get, measure, plan, sample, scores, train, warm  # noqa: F401  (all register verbs)
from nrcg.cli.console import open_console
from nrcg.cli.options import app
from nrcg.errors import NrcgError, Stopped, first_line
from nrcg.runtime.imports import hide_transformers
from nrcg.runtime.preemption import end, on_signals


def main() -> None:
    """Run a verb. Bad input, lack of memory and disk errors print one line and exit with 2, requested stops with 75."""
    hide_transformers()
    open_console()
    sys.argv[1:] = _common_first(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "httpx2", "fontTools"):  # one line per request of the hub, one per glyph of a PDF
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with on_signals(end):
            app()
    except NrcgError as error:
        _fail(str(error))
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(75)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else first_line(error))
    except (MemoryError, RuntimeError) as error:
        from nrcg.runtime.memory import is_out_of_memory

        if type(error).__name__ == "OutOfMemoryError":  # torch's
            _fail(f"the networks do not fit in the device's memory ({first_line(error)}); use another --device")
        if not is_out_of_memory(error):
            raise
        _fail(f"not enough memory ({first_line(error)}); choose smaller sizes, or a machine with more")


def _common_first(words: list[str]) -> list[str]:
    """Move `--log FILE` and `--module NAME`, allowed anywhere, before the verb, as typer requires.

    Not those of the command that `nrcg warm` runs.
    """
    common, rest, words = [], [], list(words)
    while words and rest != ["warm"]:
        taken, words = (words[:2], words[2:]) if words[0] in ("--log", "--module") else (words[:1], words[1:])
        (common if len(taken) == 2 else rest).extend(taken)
    return common + rest + words


def _fail(reason: str) -> None:
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(2)
