"""Every number that the paper reports, ours beside it; where there is none, the reason, never another number."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.evaluation.uncertainty import mark_notes
from nrcg.io.tables import read_points, read_table
from nrcg.plots.style import is_share, metric_label
from nrcg.report.text_tables import NOTE_ERROR, Table, cell, field, plain, setup_column, write

MEASURED_BY = {
    "accuracy": "the guiding classifier",
    "fid": "Inception (pytorch-fid)",
    "cfid": "Inception (pytorch-fid)",
}
STATES = ("measured", "not measured", "not run")

HEADER = ["data set", "setup", "s", "metric", "paper", "ours", "difference", "n", "measured by", "weights"]
ALIGN = "llrlrrrrll"
DATA = ["dataset", "setup", "scale", "metric", "paper", "ours", "stderr", "difference", "n", "n_diverged", "features",
        "measured_by", "weights", "state"]  # fmt: skip

NOTE_DIFFERENCE = "Difference: ours − the paper's; of accuracies in percentage points (pp)."
NOTE_ABSENT = {
    "not run": "Not run: no samples of this data set, setup and scale s. Numbers of other scales are not comparable.",
    "not measured": "Not measured: there are samples, but not this metric. An FD (judge) is not an FID.",
}
NOTE_PAPER = (
    "FID and cFID of the paper are of torchvision's Inception, ours of pytorch-fid's: they differ for that reason too."
)
NOTE_N = "The paper's n is 50 176 samples, 1 024 for CelebA-HQ."


def write_comparison(
    scores: Sequence[str | Path],
    outputs: Sequence[str | Path],
    *,
    paper_tsv: str | Path,
    setups_tsv: str | Path,
    weights: Mapping[str, str],
    title: str = "",
    note: str = "",
) -> None:
    """Write a row for every number of the paper: its value, ours of the same setup and scale, and the difference.

    scores     collected metrics: dataset, setup, scale, metric, value, stderr, n, n_diverged, features; each data set
               in one file
    outputs    .csv (plain numbers: shares and their differences 0…1), .md, .tex (booktabs) and .html paths
    paper_tsv  the paper's numbers, columns dataset, setup, scale (blank if unconditional), metric, value
    weights    for each data set in `scores`, whose networks were run, in words

    What was not run or not measured says so. A distance from few samples is marked as in tables 1 to 3. Raises
    NrcgError naming the file or data set.
    """
    ours = _read_scores(scores)
    for name in ours:
        if name not in weights:
            raise NrcgError(f"weights: nothing about data set {name!r}; say whose networks were run")
    paper = read_table(paper_tsv, text=("dataset", "setup", "metric"), numbers=("scale", "value"))
    labels = setup_column(setups_tsv)
    rows, data = [], [DATA]
    for _, theirs in paper[paper["value"].notna()].iterrows():
        state, row = _find(ours.get(theirs["dataset"]), theirs)
        rows.append(_cells(theirs, row, state, labels, weights))
        data.append(_numbers(theirs, row, state, weights))
    counts = Counter(line[-1] for line in data[1:])
    notes = [f"{len(rows)} numbers: {', '.join(f'{counts[state]} {state}' for state in STATES)} here.", NOTE_DIFFERENCE,
             NOTE_ERROR, *mark_notes(*rows), *(text for state, text in NOTE_ABSENT.items() if counts[state]),
             NOTE_PAPER, NOTE_N, *note.splitlines()]  # fmt: skip
    write(Table(title or "The paper's numbers, and ours", HEADER, rows, notes, data, ALIGN), outputs)


def _read_scores(paths: Sequence[str | Path]) -> dict[str, pd.DataFrame]:
    """The points of each data set."""
    points: dict[str, pd.DataFrame] = {}
    for path in paths:
        for name in read_table(path, text=("dataset",))["dataset"].unique():
            if name in points:
                raise NrcgError(f"{path}: data set {name!r} is in another file of scores too; name one of them")
            points[name] = read_points(path, name)
    return points


def _find(points: pd.DataFrame | None, theirs: pd.Series) -> tuple[str, pd.Series | None]:
    """Which of STATES the paper's number is in here, and our row of the same setup, scale and metric."""
    if points is None:
        return "not run", None
    same_scale = points["scale"].isna() if np.isnan(theirs["scale"]) else points["scale"] == theirs["scale"]
    point = points[(points["setup"] == theirs["setup"]) & same_scale]
    if point.empty:
        return "not run", None
    row = point[(point["metric"] == theirs["metric"]) & point["value"].notna()]
    return ("not measured", None) if row.empty else ("measured", row.iloc[0])


def _cells(
    theirs: pd.Series, ours: pd.Series | None, state: str, labels: Mapping[str, str], weights: Mapping[str, str]
) -> list[str]:
    metric, scale = theirs["metric"], theirs["scale"]
    start = [theirs["dataset"], labels.get(theirs["setup"], theirs["setup"]), plain(scale) or "–", metric_label(metric),
             cell(theirs, metric, digits=2)]  # fmt: skip
    if ours is None:
        return [*start, state, "–", "–", "–", "–"]
    return [*start, cell(ours, metric, digits=2), _difference(theirs, ours), _count(ours), _measured_by(ours),
            weights[theirs["dataset"]]]  # fmt: skip


def _numbers(theirs: pd.Series, ours: pd.Series | None, state: str, weights: Mapping[str, str]) -> list[str]:
    difference = "" if ours is None else plain(ours["value"] - theirs["value"])
    by, whose = ("", "") if ours is None else (_measured_by(ours), weights[theirs["dataset"]])
    return [theirs["dataset"], theirs["setup"], plain(theirs["scale"]), theirs["metric"], plain(theirs["value"]),
            field(ours, "value"), field(ours, "stderr"), difference, field(ours, "n"), field(ours, "n_diverged"),
            field(ours, "features"), by, whose, state]  # fmt: skip


def _difference(theirs: pd.Series, ours: pd.Series) -> str:
    factor, unit = (100, " pp") if is_share(theirs["metric"]) else (1, "")
    return f"{factor * (ours['value'] - theirs['value']):+.2f}{unit}".replace("-", "−")


def _count(ours: pd.Series) -> str:
    lost = ours["n_diverged"]
    return plain(ours["n"]) + (f" ({lost:g} diverged)" if lost > 0 else "")


def _measured_by(ours: pd.Series) -> str:
    by = MEASURED_BY.get(ours["metric"], "–")
    return by if np.isnan(ours["features"]) else f"{by}, {ours['features']:g} features"
