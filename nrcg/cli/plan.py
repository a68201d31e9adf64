"""The verb that estimates the cost of a run."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from nrcg.cli.console import say_result
from nrcg.cli.options import app, split_pair
from nrcg.errors import NrcgError

DRY_RUNS = "Output of `snakemake -n`; default: standard input. Several as NAME=FILE: the plans side by side."


@app.command()
def plan(
    rates: Annotated[Path, Option(help="Table (TSV) of the cost per job of each rule.")],
    dry_runs: Annotated[list[str] | None, Argument(help=DRY_RUNS)] = None,
    out: Annotated[Path | None, Option(help="CSV file for the table.")] = None,
) -> None:
    """Estimate the cost of a run: snakemake -n --cores 16 | nrcg plan --rates config/rates.tsv."""
    import pandas as pd

    from nrcg.io.files import read_text, write_text
    from nrcg.report.plan import price, read_dry_run, report, report_beside, together

    if dry_runs and len(dry_runs) > 1:
        plans: dict[str, list[pd.DataFrame]] = {}
        for name, file in (split_pair(text, "dry run") for text in dry_runs):
            plans.setdefault(name, []).append(read_dry_run(read_text(file), file))
        priced = {name: price(together(jobs), rates) for name, jobs in plans.items()}
        costs, page = pd.concat(priced, names=["plan"]).reset_index("plan"), report_beside(priced, rates)
    else:
        text, origin = (read_text(dry_runs[0]), dry_runs[0]) if dry_runs else (_standard_input(), "standard input")
        costs = price(read_dry_run(text, origin), rates)
        page = report(costs, rates)
    if out:
        write_text(out, costs.to_csv(index=False))
    say_result(page)


def _standard_input() -> str:
    """The text that is piped in."""
    from nrcg.report.plan import COMMAND

    if sys.stdin is None or sys.stdin.isatty():
        raise NrcgError(f"standard input: no dry run; pipe one in: {COMMAND}")
    try:
        return sys.stdin.read()
    except (OSError, ValueError) as error:
        raise NrcgError(f"standard input: cannot be read ({error}); pipe a dry run in: {COMMAND}") from None
