"""Files of scores as `nrcg measure collect` writes them, from plain numbers."""

from pathlib import Path
from typing import Any

import pandas as pd

from nrcg.evaluation.uncertainty import wilson

COLUMNS = ["dataset", "setup", "repeat", "scale", "seeds", "metric", "value", "low", "high", "n", "n_diverged",
           "features"]  # fmt: skip


def rows_of(
    setup: str, scale: float | str, values: dict[str, Any], *, n: int = 256, lost: int = 0, half: float | None = 0.02,
    features: int | str = "", seeds: str = "reported", repeat: int = 1, dataset: str = "sportballs",
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for each metric of a point: shares with Wilson's interval, others with `half` of the value to either side.

    Without `half` there are no intervals, as of samples for choosing a scale; `features` belong to distances alone.
    """
    rows = []
    for metric, value in values.items():
        share = metric.startswith(("accuracy", "judge_share/"))
        low, high = "", ""
        if half is not None and metric != "unet_evaluations" and value != "":
            low, high = map(float, wilson(value, n)) if share else (value * (1 - half), value * (1 + half))
        of = "" if share or metric == "unet_evaluations" else features
        row = (dataset, setup, repeat, scale, seeds, metric, value, low, high, n, lost, of)
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows


def write_scores(path: Path, rows: list[dict[str, Any]]) -> Path:
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path, index=False)
    return path


def add_scores(path: Path, rows: list[dict[str, Any]]) -> None:
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path, mode="a", header=False, index=False)


def edit(path: Path, column: str, rows: Any, value: Any) -> None:
    """Write a value into a column of a CSV file, where `rows` of the table of strings holds."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[rows(table), column] = value
    table.to_csv(path, index=False)
