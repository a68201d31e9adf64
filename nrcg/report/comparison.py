"""Every number that the paper reports, ours beside it; where there is none, the reason, never another number."""

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.evaluation.uncertainty import mark_notes
from nrcg.io.tables import read_points, read_table
from nrcg.plots import figures
from nrcg.plots.setups import extractor_of, is_share, metric_label, read_setups
from nrcg.plots.style import File
from nrcg.report.text_tables import NOTE_ERROR, Table, cell, plain, write

MEASURED_BY = {"accuracy": "the guiding classifier", "Inception": "Inception (pytorch-fid)"}
STATES = ("measured", "not measured", "not run")
POINT = ["dataset", "setup", "scale"]
DATA = [*POINT, "metric", "paper", "ours", "stderr", "difference", "n", "n_diverged", "features", "measured_by",
        "weights", "state"]  # fmt: skip

NOTE_DIFFERENCE = "Difference: ours − the paper's; of accuracies in percentage points (pp)."
NOTE_ABSENT = {
    "not run": "Not run: no samples of this data set, setup and scale s. Numbers of other scales are not comparable.",
    "not measured": "Not measured: there are samples, but not this metric. An FD (judge) is not an FID.",
}
NOTE_PAPER = (
    "FID and cFID of the paper are of torchvision's Inception, ours of pytorch-fid's: they differ for that reason too."
)
NOTE_N = "The paper's n is 50 176 samples, 1 024 for CelebA-HQ."


@figures.register("comparison")
def write_comparison(
    outputs: list[str], *, scores: list[str], paper: File, setups: File, weights: dict[str, str], title: str = "",
    note: str = "",
) -> None:  # fmt: skip
    """Every number of the paper, and ours of the same setup and scale with the difference.

    What was not run or not measured says so. A distance from few samples is marked as in tables 1 to 3.

    Args:
        scores: collected scores: dataset, setup, scale, metric, value, stderr, n, n_diverged, features; each data set
            in one file.
        weights: for each data set in `scores`, whose networks were run, in words.
    """
    ours, known = _read_scores(scores), read_setups(setups)
    for name in ours["dataset"].unique():
        if name not in weights:
            raise NrcgError(f"weights: nothing about data set {name!r}; say whose networks were run")
    told = read_table(paper, text=("dataset", "setup", "metric"), numbers=("scale", "value")).dropna(subset="value")
    table = told.rename(columns={"value": "paper"})
    table = table.merge(ours.dropna(subset="value"), "left", [*POINT, "metric"])
    table = table.merge(ours[POINT].drop_duplicates().assign(run=True), "left", POINT).rename(columns={"value": "ours"})
    measured = table["ours"].notna()
    table["state"] = np.select([measured, table["run"].notna()], STATES[:2], STATES[2])
    table["difference"] = table["ours"] - table["paper"]
    table["measured_by"] = table.apply(_measured_by, axis=1).where(measured)
    table["weights"] = table["dataset"].map(weights).where(measured)
    text = pd.DataFrame([_cells(row) for _, row in table.iterrows()])
    text["setup"] = text["setup"].map(lambda name: known[name].label if name in known else name)
    counts = {state: int((table["state"] == state).sum()) for state in STATES}
    notes = [f"{len(text)} numbers: {', '.join(f'{n} {state}' for state, n in counts.items())} here.", NOTE_DIFFERENCE]
    notes += [NOTE_ERROR, *mark_notes(text.to_numpy().ravel())]
    notes += [line for state, line in NOTE_ABSENT.items() if counts[state]] + [NOTE_PAPER, NOTE_N, *note.splitlines()]
    caption = title or "The paper's numbers, and ours"
    write(outputs, Table(caption, text, table[DATA], notes, align="llrlrrrrll"))


def _read_scores(paths: list[str]) -> pd.DataFrame:
    """The points of all data sets."""
    points: dict[str, pd.DataFrame] = {}
    for path in paths:
        for name in read_table(path, text=("dataset",))["dataset"].unique():
            if name in points:
                raise NrcgError(f"{path}: data set {name!r} is in another file of scores too; name one of them")
            points[name] = read_points(path, name)
    if not points:
        raise NrcgError("scores: name at least one file")
    return pd.concat(points.values())


def _cells(row: pd.Series) -> dict[str, str]:
    """A row for reading."""
    metric, theirs, ours = row["metric"], pd.Series({"value": row["paper"]}), row.rename({"ours": "value"})
    start = {"data set": row["dataset"], "setup": row["setup"], "s": plain(row["scale"]) or "–",
             "metric": metric_label(metric), "paper": cell(theirs, metric, digits=2)}  # fmt: skip
    if row["state"] != "measured":
        return start | {"ours": row["state"]} | dict.fromkeys(("difference", "n", "measured by", "weights"), "–")
    factor, unit = (100, " pp") if is_share(metric) else (1, "")
    lost = f" ({row['n_diverged']:g} diverged)" if row["n_diverged"] > 0 else ""
    return start | {
        "ours": cell(ours, metric, digits=2),
        "difference": f"{factor * row['difference']:+.2f}{unit}".replace("-", "−"),
        "n": f"{plain(row['n'])}{lost}",
        "measured by": row["measured_by"],
        "weights": row["weights"],
    }


def _measured_by(row: pd.Series) -> str:
    extractor = extractor_of(row["metric"])
    by = MEASURED_BY.get(extractor or row["metric"], extractor or "–")
    return by if np.isnan(row["features"]) else f"{by}, {row['features']:g} features"
