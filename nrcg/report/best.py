"""Which guided samples come nearest to the target class."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from nrcg.errors import NrcgError
from nrcg.io.tables import read_points, read_table


def best_setup(points: pd.DataFrame, criterion: str | None = None) -> tuple[str, float]:
    """The guided (setup, scale) of lowest `criterion`; the earlier row wins a tie.

    points     one data set's rows as read by `read_points`
    criterion  a distance; None takes cfid where it was measured, else cfd_judge

    Raises NrcgError if no guided point has it.
    """
    guided = points[points["scale"].notna() & points["value"].notna()]
    wanted = (criterion,) if criterion else ("cfid", "cfd_judge")
    for metric in wanted:
        rows = guided[guided["metric"] == metric]
        if len(rows):
            row = rows.loc[rows["value"].idxmin()]
            return str(row["setup"]), float(row["scale"])
    raise NrcgError(f"no guided point has a value for {' or '.join(wanted)} in column 'metric'; score one first")


def best_rows(
    csv: str | Path, shards: Mapping[tuple[str, float | None], Path], setups_tsv: str | Path, dataset: str | None = None
) -> list[tuple[str, Path]]:
    """(label, shard) of the unguided samples, then of each setup at its best scale, in the order of the setups table.

    csv      collected metrics: dataset, setup, scale, metric, value, stderr, n, n_diverged, features
    shards   by setup and scale, None for the unguided samples; a setup in `csv` has its best scale here
    dataset  which data set of the file; None takes its only one

    Raises NrcgError naming the file, or the point whose shard is not given.
    """
    points = read_points(csv, dataset)
    rows = []
    for setup, label in read_table(setups_tsv, text=("setup", "label")).itertuples(index=False):
        part = points[points["setup"] == setup]
        if part.empty:
            continue
        try:
            scale = None if part["scale"].isna().any() else best_setup(part)[1]
        except NrcgError as error:
            raise NrcgError(f"{csv}: {setup}: {error}") from None
        if (setup, scale) not in shards:
            raise NrcgError(f"no shard of {setup} at {'no scale' if scale is None else f'scale {scale:g}'}; give one")
        rows.append((label if scale is None else f"{label}, s = {scale:g}", shards[setup, scale]))
    return rows
