"""The verb that says what a run costs before anything runs."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from nrcg.cli.console import say_result
from nrcg.cli.options import app
from nrcg.errors import NrcgError


@app.command()
def plan(
    rates: Annotated[Path, Option(help="Table (TSV) of what a job of each rule costs.")],
    dry_run: Annotated[Path | None, Argument(help="Text of `snakemake -n`; without it, standard input.")] = None,
    measured: Annotated[
        list[Path] | None,
        Option(help="Folder benchmarks of a run at the same settings: its seconds replace the table's; repeat."),
    ] = None,
    out: Annotated[Path | None, Option(help="CSV file to write too: a row for each rule and data set.")] = None,
) -> None:
    """What a run will cost: snakemake -n --cores 16 | nrcg plan --rates config/rates.tsv."""
    from nrcg.io.files import write_text
    from nrcg.report.plan import COMMAND, YOURS, price, read_benchmarks, read_dry_run, read_rates, report, summary

    if dry_run is None and (sys.stdin is None or sys.stdin.isatty()):
        raise NrcgError(f"standard input: no dry run; pipe one in: {COMMAND}")
    try:
        text = sys.stdin.read() if dry_run is None else dry_run.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise NrcgError(
            f"{dry_run or 'standard input'}: cannot be read ({error}); pipe a dry run in: {COMMAND}"
        ) from None
    jobs = read_dry_run(text, str(dry_run or "standard input"))
    priced = price(jobs, read_rates(rates), read_benchmarks(measured or []))
    if measured and YOURS not in set(priced["basis"]):
        echo(f"{', '.join(map(str, measured))}: no benchmark of any of these jobs", err=True)
    if out:
        write_text(out, summary(priced, ["rule", "dataset"]).to_csv(index=False))
    say_result(report(priced, rates))
