"""The verb that saves import time."""

from typing import Annotated

from typer import Argument

from nrcg.cli.options import app


@app.command(context_settings={"allow_interspersed_args": False})
def warm(command: Annotated[list[str], Argument(help="Command and arguments, such as snakemake --cores 2.")]) -> None:
    """Run a command whose `nrcg` jobs start without seconds of imports: nrcg warm snakemake --cores 2.

    All jobs are forks of one process that has imported torch, so Snakemake's benchmarks state their time, but not their
    memory. Without effect on other machines, in containers and conda environments, and elsewhere than on Linux.
    """
    from nrcg.runtime.warm import run_warm

    run_warm(command)
