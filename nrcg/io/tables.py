"""Tables in, joined and out; one that is wrong is one line that says which file and column."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.io.files import read_lines, read_text, write_text

CURVE_COLUMNS = ["setup", "metric", "t", "mean", "std", "n"]  # of the forward analysis
SCORE_COLUMNS = ["metric", "value", "stderr", "n", "n_diverged", "features"]  # of the scores of a point
POINT = ["dataset", "setup", "scale"]  # before them where the scores of many points are collected
COUNTS = ("t", "n", "n_diverged", "features")  # whole numbers


def read_table(path: str | Path, *, text: Sequence[str] = (), numbers: Sequence[str] = ()) -> pd.DataFrame:
    """A CSV (or .tsv) file's columns `text` as strings and `numbers` as float64, blank as NaN; refuses a cut .csv."""
    path = Path(path)
    content, separator = (read_text(path), "\t") if path.suffix == ".tsv" else (read_lines(path), ",")
    try:
        table = pd.read_csv(io.StringIO(content), sep=separator, dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise NrcgError(f"{path}: not a readable table ({str(error).strip()}); delete it and make it again") from None
    for column in (*text, *numbers):
        if column not in table:
            raise NrcgError(f"{path}: no column {column!r}; it has {', '.join(map(str, table.columns))}")
    if table.empty:
        raise NrcgError(f"{path}: no rows; delete it and make it again")
    for column in numbers:
        blank = table[column].str.strip() == ""
        values = pd.to_numeric(table[column].mask(blank), errors="coerce").astype("float64")
        wrong = values.isna() & ~blank & (table[column].str.lower() != "nan")
        if column in COUNTS:
            wrong |= values.notna() & (values % 1 != 0)
        if wrong.any():
            raise NrcgError(f"{path}: column {column!r} holds {table[column][wrong].iloc[0]!r} where a number belongs")
        table[column] = values
    return table[[*text, *numbers]]


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, atomically; counts as whole numbers, NaN as a blank."""
    counts = dict.fromkeys(table.select_dtypes("number").columns.intersection(COUNTS), "Int64")
    write_text(path, table.astype(counts).to_csv(index=False))


def select_curves(tables: Sequence[str | Path], metrics: Sequence[str], setups: Sequence[str]) -> pd.DataFrame:
    """The rows of `metrics` for `setups`, in the order of both; all have the first, others where it was measured."""
    rows = pd.concat([read_table(path, text=CURVE_COLUMNS[:2], numbers=CURVE_COLUMNS[2:]) for path in tables])
    curves = dict(list(rows.groupby(["metric", "setup"])))
    if missing := [setup for setup in setups if (metrics[0], setup) not in curves]:
        raise NrcgError(f"{tables[0]} and others: no {metrics[0]} of setup {missing[0]!r}")
    wanted = [(metric, setup) for metric in metrics for setup in setups]
    return pd.concat([curves[key] for key in wanted if key in curves], ignore_index=True)


def collect_scores(parts: Sequence[tuple[str, str, float | None, str | Path]]) -> pd.DataFrame:
    """The scores of (dataset, setup, scale or None, CSV file) sorted, None first; columns POINT and SCORE_COLUMNS."""
    tables = []
    for dataset, setup, scale, path in parts:
        table = read_table(path, text=SCORE_COLUMNS[:1], numbers=SCORE_COLUMNS[1:])
        tables.append(table.assign(dataset=dataset, setup=setup, scale=np.nan if scale is None else scale))
    table = pd.concat(tables)[POINT + SCORE_COLUMNS]
    return table.sort_values(POINT, kind="stable", na_position="first", ignore_index=True)


def read_points(path: str | Path, dataset: str | None = None) -> pd.DataFrame:
    """The collected scores of one data set (None: the only one), columns POINT and SCORE_COLUMNS; NaN: no scale."""
    points = read_table(path, text=("dataset", "setup", "metric"), numbers=("scale", *SCORE_COLUMNS[1:]))
    present = list(points["dataset"].unique())
    if dataset is None and len(present) > 1:
        raise NrcgError(f"{path}: column 'dataset' holds {', '.join(present)}; say which one to show")
    if dataset is not None and dataset not in present:
        raise NrcgError(f"{path}: column 'dataset' has no {dataset!r}; it holds {', '.join(present)}")
    points = points[points["dataset"] == (dataset or present[0])][POINT + SCORE_COLUMNS].reset_index(drop=True)
    if (points["scale"] <= 0).any():
        raise NrcgError(f"{path}: column 'scale' must be positive, or blank where there is no guidance")
    for row in points[points.duplicated(["setup", "scale", "metric"])].itertuples():
        raise NrcgError(f"{path}: {row.metric!r} of {row.setup!r} at scale {row.scale:g} stands there twice")
    return points


def read_paper(path: str | Path, dataset: str) -> pd.DataFrame:
    """The paper's numbers for `dataset`: setup, metric, scale (NaN if unguided), value (shares in 0…1), if any."""
    paper = read_table(path, text=("dataset", "setup", "metric"), numbers=("scale", "value"))
    return paper[paper["dataset"] == dataset].drop(columns="dataset").reset_index(drop=True)
