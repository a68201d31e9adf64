"""Tables 1 to 3: unconditional and guided samples, the paper's numbers beside ours; and all points."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.evaluation.uncertainty import mark_notes
from nrcg.io.tables import read_paper, read_points
from nrcg.plots import figures
from nrcg.plots.best import best_setup
from nrcg.plots.style import File, Setup, extractor_of, known_setups, metric_label, read_setups
from nrcg.report.text_tables import NOTE_ERROR, Table, cell, plain, write

ORDER = ("accuracy", "accuracy/", "accuracy_judge", "fid", "cfid", "fd_", "cfd_")  # whole names, or beginnings
NUMBERS = {"": "value", "_stderr": "stderr", "_n": "n", "_diverged": "n_diverged"}  # of a column of the CSV file

NOTE_OTHER = "FD ({0}) uses the features of {0}: it is not FID and must not be compared with the paper's FID and cFID."
NOTE_BEST = "Scales: the one of each setup that comes nearest to the target class."
NOTE_PAPER = "The paper's FID and cFID: torchvision's Inception, its own sample size; ours, where given: pytorch-fid's."


@figures.register("table")
def write_table(
    outputs: list[str], *, csv: File, setups: File, target: str, paper: File, dataset: str | None = None,
    title: str = "", note: str = "",
) -> None:  # fmt: skip
    """Unguided samples beside those of the paper's setup and of our best one, and the paper's numbers: tables 1 to 3.

    The setup that the paper reports is taken at our best scale of it; the best of all setups has a column of its own
    where it is another. An accuracy by another classifier than the unguided samples' has a row of its own where the
    unguided samples were scored by that classifier too. A distance from no more samples than features, or from few, is
    marked.

    Args:
        outputs: .csv (plain numbers), .md, .tex (booktabs) and .html paths.
        csv: collected scores: dataset, setup, scale, metric, value, stderr, n, n_diverged, features.
        setups: labels, and the classifiers that guide.
        target: name of the class asked for.
        paper: the paper's numbers, columns dataset, setup, scale, metric, value.
        dataset: which data set of the file; None takes its only one.
        title: caption.
        note: lines of small print.

    Raises:
        NrcgError: naming file and column.
    """
    points, known = read_points(csv, dataset), read_setups(setups)
    dataset = points["dataset"].iloc[0]
    free, told = points[points["scale"].isna()], read_paper(paper, dataset)
    if free.empty:
        raise NrcgError(f"{csv}: no unconditional point (blank 'scale') of {dataset}; sample and score it")
    reported = told[told["scale"].notna()]
    same = points[points["setup"].isin(reported["setup"].iloc[:1]) & points["scale"].notna()]
    try:
        guided = [_best(part) if len(part) else part for part in (same, points)]
    except NrcgError as error:
        raise NrcgError(f"{csv}: {error}") from None
    same, best = (_by_classifier(part, free, known) for part in guided)
    shown = {"unconditional": free}
    if len(same):
        shown[_heading(same, known)] = same
    if not len(same) or _heading(same, known) != _heading(best, known):
        shown[f"our best: {_heading(best, known)}"] = best
    theirs = {}
    if len(reported):
        theirs = {"paper: unconditional": told[told["scale"].isna()], f"paper: {_heading(reported, known)}": reported}
    metrics = _in_order([*free["metric"], *same["metric"], *best["metric"], *told["metric"]])
    rows = []
    for metric in metrics:
        found = {name: _row(part, metric) for name, part in shown.items()}
        cells = {name: cell(row, metric) for name, row in found.items()}
        cells |= {name: cell(_row(part, metric), metric, digits=2) for name, part in theirs.items()}
        rows.append({"metric": _name(metric, list(found.values())), **cells})
    for name, column in (("samples n", "n"), ("diverged", "n_diverged")):
        counts = {heading: _count(part, column) for heading, part in shown.items()}
        rows.append({"metric": name, **counts, **dict.fromkeys(theirs, "–")})
    text = pd.DataFrame(rows)
    data = pd.DataFrame([_numbers(metric, free, same, best, told) for metric in metrics])
    others = dict.fromkeys(name for name in map(extractor_of, metrics) if name not in ("", "Inception"))
    notes = [NOTE_ERROR, NOTE_BEST, *mark_notes(text.to_numpy().ravel()), *map(NOTE_OTHER.format, others)]
    notes += [NOTE_PAPER] if theirs else []
    caption = title or f"{dataset}, target {target}: unconditional and guided samples"
    write(outputs, Table(caption, text, data, [*notes, *note.splitlines()]))


@figures.register("points")
def write_all_points(
    outputs: list[str], *, csv: File, setups: File, dataset: str | None = None, title: str = "", note: str = ""
) -> None:
    """Every score of every point, a row each: the unguided samples, then by the setups' order and scale.

    Args:
        outputs, csv, setups, dataset, title, note: as for `write_table`.

    Raises:
        NrcgError: naming file and column.
    """
    points = read_points(csv, dataset)
    known = known_setups(read_setups(setups), list(points["setup"].unique()), csv, setups)
    order = {setup.name: i for i, setup in enumerate(known)}
    keys = ["guided", "place", "scale"]
    points = points.assign(guided=points["scale"].notna(), place=points["setup"].map(order))
    metrics, rows, data = _in_order(points["metric"]), [], []
    for (guided, place, scale), part in points.groupby(keys, dropna=False):
        found = {metric: _row(part, metric) for metric in metrics}
        start = {"setup": known[place].label, "scale": f"{scale:g}" if guided else "–", "n": _count(part, "n")}
        cells = {metric_label(metric): cell(row, metric) for metric, row in found.items()}
        rows.append({**start, "diverged": _count(part, "n_diverged"), **cells})
        counts = {"n": part["n"].max(), "n_diverged": part["n_diverged"].max()}
        values = {metric: np.nan if row is None else row["value"] for metric, row in found.items()}
        data.append({"setup": known[place].name, "scale": scale, **counts, **values})
    text = pd.DataFrame(rows)
    caption = title or f"{points['dataset'].iloc[0]}: every setup and scale"
    notes = [NOTE_ERROR, *mark_notes(text.to_numpy().ravel()), *note.splitlines()]
    write(outputs, Table(caption, text, pd.DataFrame(data), notes))


def _best(points: pd.DataFrame) -> pd.DataFrame:
    """The rows of the best point."""
    setup, scale = best_setup(points)
    return points[(points["setup"] == setup) & (points["scale"] == scale)]


def _by_classifier(part: pd.DataFrame, free: pd.DataFrame, known: dict[str, Setup]) -> pd.DataFrame:
    """The point, its accuracy under the name of its classifier where the unguided samples have that one too."""
    setup = known.get(part["setup"].iloc[0]) if len(part) else None
    name = f"accuracy/{setup.classifier if setup else ''}"
    return part.replace({"metric": {"accuracy": name}}) if name in set(free["metric"]) else part


def _heading(point: pd.DataFrame, known: dict[str, Setup]) -> str:
    setup, scale = point["setup"].iloc[0], point["scale"].iloc[0]
    return f"{known[setup].label if setup in known else setup}, s = {scale:g}"


def _in_order(metrics: Sequence[str]) -> list[str]:
    """Known metrics in their fixed order, then the rest (shares per class) as they come."""

    def place(metric: str) -> int:
        open_ended = (metric.startswith(name) if name[-1] in "/_" else metric == name for name in ORDER)
        return next((i for i, fits in enumerate(open_ended) if fits), len(ORDER))

    return sorted(dict.fromkeys(metrics), key=place)


def _row(points: pd.DataFrame, metric: str) -> pd.Series | None:
    rows = points[(points["metric"] == metric) & points["value"].notna()]
    return rows.iloc[0] if len(rows) else None


def _name(metric: str, rows: Sequence[pd.Series | None]) -> str:
    """The metric's label, with extractor and feature dimension for a distance that we measured."""
    features = next((row["features"] for row in rows if row is not None and not np.isnan(row["features"])), None)
    label = metric_label(metric)
    return label if features is None else f"{label} [{extractor_of(metric) or '?'}, {features:g} features]"


def _count(points: pd.DataFrame, column: str) -> str:
    return plain(points[column].max()) or "–"


def _numbers(metric: str, free: pd.DataFrame, same: pd.DataFrame, best: pd.DataFrame, told: pd.DataFrame) -> dict:
    """A row of the CSV file: unguided, the paper's setup, the best one, and the paper's numbers."""
    line = {"metric": metric, "features": np.nan}
    for name, part in (("unconditional", free), ("ours", same), ("best", best)):
        row = _row(part, metric)
        if name != "unconditional":
            line |= {f"{name}_{key}": part[key].iloc[0] if len(part) else np.nan for key in ("setup", "scale")}
        line |= {f"{name}{end}": np.nan if row is None else row[column] for end, column in NUMBERS.items()}
        if row is not None and np.isnan(line["features"]):
            line["features"] = row["features"]
    unguided, guided = _row(told[told["scale"].isna()], metric), _row(told[told["scale"].notna()], metric)
    line["paper_unconditional"] = np.nan if unguided is None else unguided["value"]
    columns = {"paper_setup": "setup", "paper_scale": "scale", "paper_best": "value"}
    return line | {name: np.nan if guided is None else guided[column] for name, column in columns.items()}
