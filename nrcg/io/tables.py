"""Reading, joining and writing tables; errors name the file and the column."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nrcg.errors import NrcgError
from nrcg.io.files import read_lines, read_text, write_text

CURVE_COLUMNS = ["setup", "metric", "t", "mean", "std", "n"]  # of the forward analysis
VERDICTS = ("seed", "diverged", "guiding", "judge")  # required columns of the verdicts about a point's samples
SCORE_COLUMNS = ["seeds", "metric", "value", "low", "high", "n", "n_diverged", "features"]  # of the scores of a point
COUNTS = ("t", "seed", "repeat", "n", "n_diverged", "features")  # whole numbers


def read_table(path: str | Path, *, text: Sequence[str] = (), numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Columns of a CSV or .tsv file: `text` as strings, `numbers` as float64 (blank: NaN); refuses a truncated .csv."""
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
    """Write a table as CSV, atomically; counts as integers, NaN as blank."""
    counts = dict.fromkeys(table.select_dtypes("number").columns.intersection(COUNTS), "Int64")
    write_text(path, table.astype(counts).to_csv(index=False))


def select_curves(tables: Sequence[str | Path], metrics: Sequence[str], setups: Sequence[str]) -> pd.DataFrame:
    """The rows of `metrics` for `setups`, in this order; only the first metric must exist for every setup."""
    rows = pd.concat([read_table(path, text=CURVE_COLUMNS[:2], numbers=CURVE_COLUMNS[2:]) for path in tables])
    curves = dict(list(rows.groupby(["metric", "setup"])))
    if missing := [setup for setup in setups if (metrics[0], setup) not in curves]:
        raise NrcgError(f"{tables[0]} and others: no {metrics[0]} of setup {missing[0]!r}")
    wanted = [(metric, setup) for metric in metrics for setup in setups]
    return pd.concat([curves[key] for key in wanted if key in curves], ignore_index=True)


def read_verdicts(path: str | Path) -> pd.DataFrame:
    """The verdicts about a point's samples: VERDICTS and one column per further classifier, by ascending seed."""
    names = [name for name in read_header(path) if name != "seed"]
    table = read_table(path, text=names, numbers=("seed",))[["seed", *names]].astype({"seed": int})
    for column in VERDICTS:
        if column not in table:
            raise NrcgError(f"{path}: no column {column!r}; score its samples again")
    if not table["seed"].is_monotonic_increasing or not table["diverged"].isin(["True", "False"]).all():
        raise NrcgError(f"{path}: not verdicts (one row per seed, ascending); score its samples again")
    return table.assign(diverged=table["diverged"] == "True")


def read_header(path: str | Path) -> list[str]:
    """Names of the columns of a CSV file."""
    return next(csv.reader([read_lines(path).partition("\n")[0]]))


def read_paper(path: str | Path, dataset: str) -> pd.DataFrame:
    """The paper's numbers for `dataset`, if any: setup, metric, scale (NaN if unguided), value (shares in 0…1)."""
    paper = read_table(path, text=("dataset", "setup", "metric"), numbers=("scale", "value"))
    return paper[paper["dataset"] == dataset].drop(columns="dataset").reset_index(drop=True)
