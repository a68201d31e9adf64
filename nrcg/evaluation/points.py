"""The scores of all points of a data set: collecting, reading, averages over training runs, best scales."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.evaluation.uncertainty import T95, Z95, wilson
from nrcg.io.tables import SCORE_COLUMNS, read_table

POINT = ["dataset", "setup", "scale"]
COLUMNS = [*POINT[:2], "repeat", "scale", *SCORE_COLUMNS]  # columns of the file
REAL = "real"  # the setup whose samples are held-out images of the target class
REJECTION = "rejection"  # the setup of the unguided samples that the guiding classifier assigns to the target class
SEEDS = ("tuning", "reported")


def collect_scores(parts: Sequence[tuple[str, str, int, str | Path]]) -> pd.DataFrame:
    """The scores of (dataset, setup, training run, CSV file), sorted, those without a scale first."""
    tables = []
    for dataset, setup, repeat, path in parts:
        table = read_table(path, text=("seeds", "metric"), numbers=("scale", *SCORE_COLUMNS[2:]))
        tables.append(table.assign(dataset=dataset, setup=setup, repeat=repeat))
    order = [*POINT, "repeat", "seeds"]
    return pd.concat(tables)[COLUMNS].sort_values(order, kind="stable", na_position="first", ignore_index=True)


def read_scores(path: str | Path, dataset: str | None = None) -> pd.DataFrame:
    """The rows of one data set (None: the only one) from a file of `collect_scores`, checked."""
    table = read_table(
        path, text=("dataset", "setup", "seeds", "metric"), numbers=("repeat", "scale", *SCORE_COLUMNS[2:])
    )
    present = list(table["dataset"].unique())
    if dataset is None and len(present) > 1:
        raise NrcgError(f"{path}: column 'dataset' holds {', '.join(present)}; choose one")
    if dataset is not None and dataset not in present:
        raise NrcgError(f"{path}: column 'dataset' has no {dataset!r}; it holds {', '.join(present)}")
    table = table[table["dataset"] == (dataset or present[0])][COLUMNS].reset_index(drop=True)
    if (table["scale"] < 0).any():
        raise NrcgError(f"{path}: column 'scale' must be at least 0, or blank without guidance")
    if len(strange := table[~table["seeds"].isin(SEEDS)]):
        raise NrcgError(f"{path}: column 'seeds' holds {strange['seeds'].iloc[0]!r}; use {' or '.join(SEEDS)}")
    for row in table[table.duplicated(["setup", "repeat", "scale", "seeds", "metric"])].itertuples():
        raise NrcgError(f"{path}: duplicate row for {row.metric!r} of {row.setup!r} at scale {row.scale:g}")
    return table


@dataclass(frozen=True)
class Points:
    """The scores of a data set's points, one row per metric; the scale is NaN without guidance.

    Columns POINT, metric, value, low and high (95 % interval, sampling error only), between (standard deviation between
    training runs of the guiding classifier, without the sampling error; NaN for a single run), n, n_diverged and
    features. n of a share counts all training runs; n of other metrics counts one run, on which their bias depends.
    """

    dataset: str
    reported: pd.DataFrame
    tuning: pd.DataFrame  # scores of unreported samples, for choosing scales; may be empty
    real: pd.DataFrame  # scores of held-out images of the target class; may be empty
    rejection: pd.DataFrame  # scores of the accepted unguided samples; may be empty
    repeats: pd.DataFrame  # as `reported`, with one row per training run

    @cached_property
    def criterion(self) -> str | None:
        """The deciding distance to the target class: cfid if a guided point has it, else the first cfd_NAME."""
        rows = self.reported[self.reported["scale"].notna() & self.reported["value"].notna()]
        found = [name for name in rows["metric"].unique() if name == "cfid" or name.startswith("cfd_")]
        found = [name for name in found if not name.startswith("cfd_infinity")]
        return "cfid" if "cfid" in found else next(iter(found), None)

    @property
    def tuned(self) -> bool:
        """Whether scales are chosen on unreported samples."""
        return bool((self.tuning["metric"] == self.criterion).any())

    @cached_property
    def deciding(self) -> pd.DataFrame:
        """The criterion of guided points, on the tuning samples if there are any."""
        rows = self.tuning if self.tuned else self.reported
        return rows[(rows["metric"] == self.criterion) & rows["scale"].notna() & rows["value"].notna()]

    @cached_property
    def best(self) -> dict[str, float]:
        """The scale per setup with the smallest distance to the target class."""
        setups = self.deciding.groupby("setup")
        return {str(name): float(part["scale"].iloc[part["value"].argmin()]) for name, part in setups}

    @cached_property
    def best_setup(self) -> str | None:
        """The setup with the smallest distance."""
        rows = self.deciding
        return None if rows.empty else str(rows["setup"].iloc[rows["value"].argmin()])

    @property
    def note(self) -> str:
        """A note on how the scales were chosen; empty if no setup has several."""
        if not self.reported.dropna(subset="scale").groupby("setup")["scale"].nunique().gt(1).any():
            return ""
        if not self.tuned:
            return "Scales were chosen on the reported samples, so scores at the best scales are optimistic."
        return f"Scales were chosen on {self.deciding['n'].min():g} other samples per point."

    def at_best(self) -> pd.DataFrame:
        """The reported rows of guided points at the chosen scales."""
        return self.reported[self.reported["scale"] == self.reported["setup"].map(self.best)]


def read_points(path: str | Path, dataset: str | None = None) -> Points:
    """The scores of one data set (None: the only one) from a file of `nrcg measure collect`."""
    table = read_scores(path, dataset)
    real, rejection = (table["setup"] == name for name in (REAL, REJECTION))
    reported, tuning = (table[~real & ~rejection & (table["seeds"] == seeds)] for seeds in ("reported", "tuning"))
    if reported.empty:
        raise NrcgError(f"{path}: no rows with 'reported' in column 'seeds'; score samples first")
    accepted = table[rejection & (table["seeds"] == "reported")]
    ours, chosen_on, images, kept = (_over_trainings(part) for part in (reported, tuning, table[real], accepted))
    return Points(str(table["dataset"].iloc[0]), ours, chosen_on, images, kept, reported)


def _over_trainings(table: pd.DataFrame) -> pd.DataFrame:
    """One row per metric of a point: the mean over training runs; shares are of all their samples."""
    rows = []
    for key, part in table.groupby([*POINT, "metric"], dropna=False, sort=False):
        row = dict(zip([*POINT, "metric"], key, strict=True)) | {"features": part["features"].iloc[0]}
        shares = row["metric"].startswith(("accuracy", "judge_share/"))
        row |= {"value": part["value"].mean(), "n": part["n"].sum(min_count=1) if shares else part["n"].min()}
        row["n_diverged"] = part["n_diverged"].sum() if shares else part["n_diverged"].max()
        low, high, between = part["low"].iloc[0], part["high"].iloc[0], np.nan
        if len(part) > 1:
            ends = (part["value"] - part["low"], part["high"] - part["value"])
            down, up = (np.sqrt((end**2).sum(skipna=False)) / len(part) for end in ends)
            low, high = wilson(row["value"], row["n"]) if shares else (row["value"] - down, row["value"] + up)
            errors = (part["high"] - part["low"]) / 2 / (Z95 if shares else T95)
            between = np.sqrt(np.maximum(0.0, part["value"].var() - (errors**2).mean(skipna=False)))
        rows.append(row | {"low": low, "high": high, "between": between})
    return pd.DataFrame(
        rows, columns=[*POINT, "metric", "value", "low", "high", "between", "n", "n_diverged", "features"]
    )
