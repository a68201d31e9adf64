"""Tables in, or one line that says which file and column is wrong."""

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nrcg.errors import NrcgError
from nrcg.io.files import read_lines, read_text

POINT_TEXT = ("dataset", "setup", "metric")
POINT_NUMBERS = ("scale", "value", "stderr", "n", "n_diverged", "features")


def read_table(path: str | Path, *, text: Sequence[str] = (), numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV (or .tsv) file's columns `text` as strings and `numbers` as float64, blank numbers as NaN.

    Raises NrcgError naming the file, and the column where one is missing or holds something else than numbers; and for
    a .csv file, which a program wrote, that was cut short.
    """
    path = Path(path)
    by_hand = path.suffix == ".tsv"
    content = io.StringIO(read_text(path) if by_hand else read_lines(path))
    try:
        table = pd.read_csv(content, sep="\t" if by_hand else ",", dtype=str, keep_default_na=False)
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
        wrong = table[column][values.isna() & ~blank & (table[column].str.lower() != "nan")]
        if len(wrong):
            raise NrcgError(f"{path}: column {column!r} holds {wrong.iloc[0]!r} where a number belongs")
        table[column] = values
    return table[[*text, *numbers]]


def read_points(path: str | Path, dataset: str | None = None) -> pd.DataFrame:
    """Read the collected metrics of one data set, columns POINT_TEXT and POINT_NUMBERS; scale is NaN if unconditional.

    `dataset` chooses among several; None takes the file's only one. Raises NrcgError naming the file if it is absent,
    ambiguous, holds a scale that is not positive, or a point's metric twice.
    """
    points = read_table(path, text=POINT_TEXT, numbers=POINT_NUMBERS)
    present = list(points["dataset"].unique())
    if dataset is None and len(present) > 1:
        raise NrcgError(f"{path}: column 'dataset' holds {', '.join(present)}; say which one to show")
    if dataset is not None and dataset not in present:
        raise NrcgError(f"{path}: column 'dataset' has no {dataset!r}; it holds {', '.join(present)}")
    points = points[points["dataset"] == (dataset or present[0])].reset_index(drop=True)
    if (points["scale"] <= 0).any():
        raise NrcgError(f"{path}: column 'scale' must be positive, or blank where there is no guidance")
    double = points[points.duplicated(["setup", "scale", "metric"])]
    if len(double):
        row = double.iloc[0]
        raise NrcgError(f"{path}: {row['metric']!r} of {row['setup']!r} at scale {row['scale']:g} stands there twice")
    return points


def read_paper(path: str | Path, dataset: str) -> pd.DataFrame:
    """Read the paper's numbers for `dataset`: columns setup, metric, scale (NaN if unconditional), value; may be empty.

    Accuracy is a share in 0…1.
    """
    paper = read_table(path, text=("dataset", "setup", "metric"), numbers=("scale", "value"))
    return paper[paper["dataset"] == dataset].drop(columns="dataset").reset_index(drop=True)
