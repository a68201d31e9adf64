"""Tables 1 to 3: unconditional and guided samples, the paper's numbers beside ours; and all points."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.evaluation.uncertainty import mark_notes
from nrcg.io.tables import read_paper, read_points
from nrcg.plots import figures
from nrcg.plots.best import best_setup
from nrcg.plots.setups import Setup, extractor_of, known_setups, metric_label, read_setups
from nrcg.plots.style import File
from nrcg.report.text_tables import NOTE_ERROR, Table, cell, plain, write

ORDER = ("accuracy", "accuracy/", "accuracy_judge", "fid", "cfid", "fd_", "cfd_")  # whole names, or beginnings
NUMBERS = {"": "value", "_stderr": "stderr", "_n": "n", "_diverged": "n_diverged"}  # of a column of the CSV file

NOTE_OTHER = "FD ({0}) uses {0} features: it is not FID and must not be compared with the paper's FID and cFID."
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
    """
    points, known = read_points(csv, dataset), read_setups(setups)
    dataset = points["dataset"].iloc[0]
    free, told = points[points["scale"].isna()], read_paper(paper, dataset)
    if free.empty:
        raise NrcgError(f"{csv}: no unconditional point (blank 'scale') of {dataset}; sample and score it")
    reported = told[told["scale"].notna()]
    same = points[points["setup"].isin(reported["setup"].iloc[:1]) & points["scale"].notna()]
    try:
        same, best = (_by_classifier(_best(part) if len(part) else part, free, known) for part in (same, points))
    except NrcgError as error:
        raise NrcgError(f"{csv}: {error}") from None
    shown = {"unconditional": free} | ({_heading(same, known): same} if len(same) else {})
    if _heading(best, known) not in shown:
        shown[f"our best: {_heading(best, known)}"] = best
    theirs = {}
    if len(reported):
        theirs = {"paper: unconditional": told[told["scale"].isna()], f"paper: {_heading(reported, known)}": reported}
    metrics = _in_order([name for part in (free, same, best, told) for name in part["metric"]])
    data = _numbers(metrics, {"unconditional": free, "ours": same, "best": best}, told)
    text = {"metric": [*map(_name, metrics, data["features"]), "samples n", "diverged"]}
    for heading, part in {**shown, **theirs}.items():
        cells = [
            cell(row, row.name, digits=2 if heading in theirs else 1) for _, row in _indexed(part, metrics).iterrows()
        ]
        text[heading] = [*cells, _count(part, "n"), _count(part, "n_diverged")]
    text = pd.DataFrame(text)
    others = dict.fromkeys(name for name in map(extractor_of, metrics) if name not in ("", "Inception"))
    notes = [NOTE_ERROR, NOTE_BEST, *mark_notes(text.to_numpy().ravel()), *map(NOTE_OTHER.format, others)]
    notes += [NOTE_PAPER] if theirs else []
    caption = title or f"{dataset}, target {target}: unconditional and guided samples"
    write(outputs, Table(caption, text, data, [*notes, *note.splitlines()]))


@figures.register("points")
def write_all_points(
    outputs: list[str], *, csv: File, setups: File, dataset: str | None = None, title: str = "", note: str = ""
) -> None:
    """Every score of every point, a row each: the unguided samples, then by the setups' order and scale."""
    points = read_points(csv, dataset)
    known = known_setups(read_setups(setups), list(points["setup"].unique()), csv, setups)
    order = {setup.name: i for i, setup in enumerate(known)}
    points = points.assign(guided=points["scale"].notna(), place=points["setup"].map(order))
    metrics, rows, data = _in_order(points["metric"]), [], []
    for (guided, place, scale), part in points.groupby(["guided", "place", "scale"], dropna=False):
        found, setup = _indexed(part, metrics), known[place]
        counts = {"n": _count(part, "n"), "diverged": _count(part, "n_diverged")}
        cells = {metric_label(metric): cell(row, metric) for metric, row in found.iterrows()}
        rows.append({"setup": setup.label, "scale": f"{scale:g}" if guided else "–", **counts, **cells})
        numbers = {"n": part["n"].max(), "n_diverged": part["n_diverged"].max(), **found["value"]}
        data.append({"setup": setup.name, "scale": scale, **numbers})
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


def _indexed(points: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A point's rows indexed by these metrics, NaN where it has no value."""
    return points.dropna(subset="value").drop_duplicates("metric").set_index("metric").reindex(metrics)


def _name(metric: str, features: float) -> str:
    """The metric's label, with extractor and feature dimension for a distance that we measured."""
    label = metric_label(metric)
    return label if np.isnan(features) else f"{label} [{extractor_of(metric) or '?'}, {features:g} features]"


def _count(points: pd.DataFrame, column: str) -> str:
    return (plain(points[column].max()) if column in points else "") or "–"


def _numbers(metrics: Sequence[str], ours: dict[str, pd.DataFrame], told: pd.DataFrame) -> pd.DataFrame:
    """The CSV file: a row for each metric, unguided, of the paper's setup and of the best one, and the paper's own."""
    found = {name: _indexed(part, metrics) for name, part in ours.items()}
    data = {"features": pd.concat([frame["features"] for frame in found.values()], axis=1).bfill(axis=1).iloc[:, 0]}
    for name, frame in found.items():
        if name != "unconditional":
            data |= {f"{name}_{key}": next(iter(ours[name][key]), np.nan) for key in ("setup", "scale")}
        data |= {f"{name}{end}": frame[column] for end, column in NUMBERS.items()}
    free, guided = (_indexed(told[told["scale"].notna() == guided], metrics) for guided in (False, True))
    data |= {"paper_unconditional": free["value"], "paper_setup": guided["setup"], "paper_scale": guided["scale"]}
    return pd.DataFrame(data | {"paper_best": guided["value"]}, index=metrics).rename_axis("metric").reset_index()
