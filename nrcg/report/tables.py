"""Tables 1 to 3: unconditional beside guided samples, the paper's numbers beside ours; and all points."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.evaluation.uncertainty import mark_notes
from nrcg.io.tables import read_paper, read_points
from nrcg.plots.style import metric_label
from nrcg.report.best import best_setup
from nrcg.report.text_tables import NOTE_ERROR, Table, cell, field, plain, setup_column, write

EXTRACTORS = {"fid": "Inception", "cfid": "Inception", "fd_judge": "judge", "cfd_judge": "judge"}
ORDER = ("accuracy", "accuracy_judge", "fid", "cfid", "fd_judge", "cfd_judge")

NOTE_JUDGE = (
    "FD (judge) uses the judge's features: it is not FID and must not be compared with the paper's FID and cFID."
)
NOTE_BEST = "Scales: the one of each setup that comes nearest to the target class."
NOTE_PAPER = "The paper's FID and cFID: torchvision's Inception, its own sample size; ours, where given: pytorch-fid's."


def write_table(
    csv: str | Path,
    outputs: Sequence[str | Path],
    *,
    setups_tsv: str | Path,
    target_name: str,
    paper_csv: str | Path,
    dataset: str | None = None,
    criterion: str | None = None,
    title: str = "",
    note: str = "",
) -> None:
    """Write unconditional beside guided samples of the paper's setup and of our best one, and the paper's numbers.

    csv          collected metrics: dataset, setup, scale, metric, value, stderr, n, n_diverged, features
    outputs      .csv (plain numbers), .md, .tex (booktabs) and .html paths
    target_name  the class asked for
    paper_csv    the paper's numbers, columns dataset, setup, scale, metric, value
    dataset      which data set of the file; None takes its only one
    criterion    see `best_setup`

    The setup that the paper reports is taken at our best scale of it; the best of all setups has a column of its own
    where it is another. An accuracy by another classifier than the unguided samples' has a row of its own where the
    unguided samples were scored by that classifier too. A distance from no more samples than features, or from few, is
    marked. Raises NrcgError naming file and column.
    """
    points = read_points(csv, dataset)
    dataset = points["dataset"].iloc[0]
    free = points[points["scale"].isna()]
    if free.empty:
        raise NrcgError(f"{csv}: no unconditional point (blank 'scale') of {dataset}; sample and score it")
    paper, labels = read_paper(paper_csv, dataset), setup_column(setups_tsv)
    reported = paper[paper["scale"].notna()]
    same = points[points["setup"].isin(reported["setup"].iloc[:1]) & points["scale"].notna()]
    try:
        best = _point(points, criterion)
        same = _point(same, criterion) if len(same) else same
    except NrcgError as error:
        raise NrcgError(f"{csv}: {error}") from None
    own = setup_column(setups_tsv, "classifier")
    table = _compare(*(_by_classifier(part, free, own) for part in (free, same, best)), paper, labels)
    caption = title or f"{dataset}, target {target_name}: unconditional and guided samples"
    table = Table(caption, table.header, table.rows, table.notes + note.splitlines(), table.data)
    write(table, outputs)


def _point(points: pd.DataFrame, criterion: str | None) -> pd.DataFrame:
    """The rows of the best point."""
    setup, scale = best_setup(points, criterion)
    return points[(points["setup"] == setup) & (points["scale"] == scale)]


def _by_classifier(part: pd.DataFrame, free: pd.DataFrame, classifiers: dict[str, str]) -> pd.DataFrame:
    """The point, its accuracy under the name of its classifier where the unguided samples have that one too."""
    name = f"accuracy/{classifiers.get(part['setup'].iloc[0], '')}" if len(part) else ""
    return part.replace({"metric": {"accuracy": name}}) if name in set(free["metric"]) else part


def _heading(point: pd.DataFrame, labels: dict[str, str]) -> str:
    setup, scale = point["setup"].iloc[0], point["scale"].iloc[0]
    return f"{labels.get(setup, setup)}, s = {scale:g}"


def _compare(
    free: pd.DataFrame, same: pd.DataFrame, best: pd.DataFrame, paper: pd.DataFrame, labels: dict[str, str]
) -> Table:
    reported, notes = paper[paper["scale"].notna()], [NOTE_ERROR, NOTE_BEST]
    ours = [free, same] if len(same) else [free]
    header = ["metric", "unconditional", *(_heading(part, labels) for part in ours[1:])]
    if not len(same) or _heading(same, labels) != _heading(best, labels):
        ours.append(best)
        header.append(f"our best: {_heading(best, labels)}")
    theirs = [paper[paper["scale"].isna()], reported] if len(reported) else []
    header += ["paper: unconditional", f"paper: {_heading(reported, labels)}"] if theirs else []
    rows, data = [], [["metric", "features", *_columns("unconditional"), "ours_setup", "ours_scale", *_columns("ours"),
                       "best_setup", "best_scale", *_columns("best"),
                       "paper_unconditional", "paper_setup", "paper_scale", "paper_best"]]  # fmt: skip
    metrics = _metrics(pd.concat([free, same, best]), extra=list(paper["metric"]))
    for metric in metrics:
        found = [_row(part, metric) for part in ours]
        told = [_row(part, metric) for part in theirs]
        cells = [cell(row, metric) for row in found] + [cell(row, metric, digits=2) for row in told]
        rows.append([_name(metric, found), *cells])
        data.append(_data_row(metric, [free, same, best], paper))
    blank = ["–"] * len(theirs)
    rows.append(["samples n", *(_count(part, "n") for part in ours), *blank])
    rows.append(["diverged", *(_count(part, "n_diverged") for part in ours), *blank])
    notes += mark_notes(*rows)
    if any(EXTRACTORS.get(metric) == "judge" for metric in metrics):
        notes.append(NOTE_JUDGE)
    if theirs:
        notes.append(NOTE_PAPER)
    return Table("", header, rows, notes, data)


def write_all_points(
    csv: str | Path,
    outputs: Sequence[str | Path],
    *,
    setups_tsv: str | Path,
    dataset: str | None = None,
    title: str = "",
    note: str = "",
) -> None:
    """Write every point of a data set, a row each: unconditional first, then by the setups' order and scale.

    csv, outputs, dataset  as for `write_table`

    Raises NrcgError naming file and column.
    """
    points = read_points(csv, dataset)
    labels = setup_column(setups_tsv)
    for name in points["setup"].unique():
        if name not in labels:
            raise NrcgError(f"{csv}: column 'setup' holds {name!r}, which {setups_tsv} does not list")
    metrics = _metrics(points, extra=())
    order = {name: i for i, name in enumerate(labels)}
    groups = sorted(points.groupby(["setup", "scale"], dropna=False, sort=False),
                    key=lambda item: (not np.isnan(item[0][1]), order[item[0][0]], item[0][1]))  # fmt: skip
    header = ["setup", "scale", "n", "diverged", *(metric_label(metric) for metric in metrics)]
    data = [["setup", "scale", "n", "n_diverged", *metrics]]
    rows = []
    for (setup, scale), part in groups:
        found = [_row(part, metric) for metric in metrics]
        rows.append([labels[setup], "–" if np.isnan(scale) else f"{scale:g}", _count(part, "n"),
                     _count(part, "n_diverged"), *map(cell, found, metrics)])  # fmt: skip
        data.append([setup, plain(scale), plain(part["n"].max()), plain(part["n_diverged"].max()),
                     *(field(row, "value") for row in found)])  # fmt: skip
    notes = [NOTE_ERROR, *mark_notes(*rows)]
    caption = title or f"{points['dataset'].iloc[0]}: every setup and scale"
    write(Table(caption, header, rows, notes + note.splitlines(), data), outputs)


def _metrics(points: pd.DataFrame, extra: Sequence[str]) -> list[str]:
    """Known metrics in their fixed order, then the rest (shares per class) as they come."""
    present = list(dict.fromkeys([*points["metric"], *extra]))
    by_name = [m for m in present if m.startswith("accuracy/")]
    order = [ORDER[0], *by_name, *ORDER[1:]]
    return [m for m in order if m in present] + [m for m in present if m not in order]


def _row(points: pd.DataFrame, metric: str) -> pd.Series | None:
    rows = points[(points["metric"] == metric) & points["value"].notna()]
    return rows.iloc[0] if len(rows) else None


def _name(metric: str, rows: Sequence[pd.Series | None]) -> str:
    """The metric's label, with extractor and feature dimension for a distance that we measured."""
    features = [row["features"] for row in rows if row is not None and not np.isnan(row["features"])]
    if not features:
        return metric_label(metric)
    return f"{metric_label(metric)} [{EXTRACTORS.get(metric, '?')}, {features[0]:g} features]"


def _count(points: pd.DataFrame, column: str) -> str:
    value = points[column].max()
    return "–" if np.isnan(value) else f"{value:.0f}"


def _columns(name: str) -> list[str]:
    return [name, f"{name}_stderr", f"{name}_n", f"{name}_diverged"]


def _data_row(metric: str, ours: Sequence[pd.DataFrame], paper: pd.DataFrame) -> list:
    """A row of the CSV file: unconditional, the paper's setup, the best one, and the paper's numbers."""
    found = [_row(part, metric) for part in ours]
    features = next((value for row in found if (value := field(row, "features")) != ""), "")
    line = [metric, features]
    for part, row in zip(ours, found, strict=True):
        if part is not ours[0]:
            line += [part["setup"].iloc[0], plain(part["scale"].iloc[0])] if len(part) else ["", ""]
        line += [field(row, name) for name in ("value", "stderr", "n", "n_diverged")]
    free, guided = _row(paper[paper["scale"].isna()], metric), _row(paper[paper["scale"].notna()], metric)
    return [*line, field(free, "value"), "" if guided is None else guided["setup"], field(guided, "scale"),
            field(guided, "value")]  # fmt: skip
