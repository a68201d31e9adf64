"""`nrcg VERB …`: a thin verb for each rule of the workflow, and the only place that parses arguments."""

import logging
import sys

from nrcg.cli import analyse, data, draw, fetch, make  # noqa: F401  (each registers its verbs)
from nrcg.cli.options import app
from nrcg.errors import NrcgError


def main() -> None:
    """Run a verb; bad input is one line on standard error and exit status 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "httpx2", "fontTools"):  # a line for every request of the hub, every glyph of a PDF
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        app()
    except NrcgError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
