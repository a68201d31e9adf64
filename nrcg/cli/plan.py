"""The verb that estimates the cost of a run."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from nrcg.cli.console import say_result
from nrcg.cli.options import app
from nrcg.errors import NrcgError


@app.command()
def plan(
    rates: Annotated[Path, Option(help="Table (TSV) of the cost per job of each rule.")],
    dry_run: Annotated[Path | None, Argument(help="Output of `snakemake -n`; default: standard input.")] = None,
    out: Annotated[Path | None, Option(help="CSV file for the table.")] = None,
) -> None:
    """Estimate the cost of a run: snakemake -n --cores 16 | nrcg plan --rates config/rates.tsv."""
    from nrcg.io.files import read_text, write_text
    from nrcg.report.plan import COMMAND, price, read_dry_run, report

    if dry_run is None and (sys.stdin is None or sys.stdin.isatty()):
        raise NrcgError(f"standard input: no dry run; pipe one in: {COMMAND}")
    try:
        text = read_text(dry_run) if dry_run else sys.stdin.read()
    except (OSError, ValueError) as error:
        raise NrcgError(f"standard input: cannot be read ({error}); pipe a dry run in: {COMMAND}") from None
    costs = price(read_dry_run(text, str(dry_run or "standard input")), rates)
    if out:
        write_text(out, costs.to_csv(index=False))
    say_result(report(costs, rates))
