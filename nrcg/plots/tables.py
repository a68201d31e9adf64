"""Tables 1 to 3: unconditional beside the best conditional setup, the paper's numbers beside ours; and all points."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.plots.reading import read_paper, read_points
from nrcg.plots.style import metric_label
from nrcg.plots.text_tables import NOTE_ERROR, Table, cell, field, mark_notes, plain, setup_labels, write

EXTRACTORS = {"fid": "Inception", "cfid": "Inception", "fd_judge": "judge", "cfd_judge": "judge"}
ORDER = ("accuracy", "accuracy_judge", "fid", "cfid", "fd_judge", "cfd_judge")

NOTE_JUDGE = (
    "FD (judge) uses the judge's features: it is not FID and must not be compared with the paper's FID and cFID."
)
NOTE_PAPER = "The paper's FID and cFID: torchvision's Inception, its own sample size; ours, where given: pytorch-fid's."


def best_setup(points: pd.DataFrame, criterion: str | None = None) -> tuple[str, float]:
    """The guided (setup, scale) of lowest `criterion`; the earlier row wins a tie.

    points     one data set's rows as read by `read_points`
    criterion  a distance; None takes cfid where it was measured, else cfd_judge

    Raises NrcgError if no guided point has it.
    """
    guided = points[points["scale"].notna() & points["value"].notna()]
    wanted = (criterion,) if criterion else ("cfid", "cfd_judge")
    for metric in wanted:
        rows = guided[guided["metric"] == metric]
        if len(rows):
            row = rows.loc[rows["value"].idxmin()]
            return str(row["setup"]), float(row["scale"])
    raise NrcgError(f"no guided point has a value for {' or '.join(wanted)} in column 'metric'; score one first")


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
    """Write unconditional beside the best guided setup, the paper's numbers beside ours.

    csv          collected metrics: dataset, setup, scale, metric, value, stderr, n, n_diverged, features
    outputs      .csv (plain numbers), .md and .tex (booktabs) paths
    target_name  the class asked for
    paper_csv    the paper's numbers, columns dataset, setup, scale, metric, value
    dataset      which data set of the file; None takes its only one
    criterion    see `best_setup`

    A distance from no more samples than features, or from few, is marked. Raises NrcgError naming file and column.
    """
    points = read_points(csv, dataset)
    dataset = points["dataset"].iloc[0]
    free = points[points["scale"].isna()]
    if free.empty:
        raise NrcgError(f"{csv}: no unconditional point (blank 'scale') of {dataset}; sample and score it")
    try:
        setup, scale = best_setup(points, criterion)
    except NrcgError as error:
        raise NrcgError(f"{csv}: {error}") from None
    best = points[(points["setup"] == setup) & (points["scale"] == scale)]
    labels = setup_labels(setups_tsv)
    table = _compare(free, best, read_paper(paper_csv, dataset), labels)
    caption = title or f"{dataset}, target {target_name}: unconditional beside the best guided setup"
    table = Table(caption, table.header, table.rows, table.notes + ([note] if note else []), table.data)
    write(table, outputs)


def _compare(free: pd.DataFrame, best: pd.DataFrame, paper: pd.DataFrame, labels: dict[str, str]) -> Table:
    setup, scale = best["setup"].iloc[0], best["scale"].iloc[0]
    guided_paper = paper[paper["scale"].notna()]
    header = ["metric", "unconditional", f"{labels.get(setup, setup)}, s = {scale:g}"]
    if len(guided_paper):
        row = guided_paper.iloc[0]
        header += ["paper: unconditional", f"paper: {labels.get(row['setup'], row['setup'])}, s = {row['scale']:g}"]
    metrics = _metrics(pd.concat([free, best]), extra=list(paper["metric"]))
    rows, notes = [], [NOTE_ERROR]
    data = [["metric", "features", "unconditional", "unconditional_stderr", "unconditional_n", "unconditional_diverged",
             "best_setup", "best_scale", "best", "best_stderr", "best_n", "best_diverged",
             "paper_unconditional", "paper_setup", "paper_scale", "paper_best"]]  # fmt: skip
    for metric in metrics:
        ours = [_row(free, metric), _row(best, metric)]
        theirs = [_row(paper[paper["scale"].isna()], metric), _row(guided_paper, metric)]
        cells = [cell(row, metric) for row in ours] + [cell(row, metric, percent_digits=2) for row in theirs]
        rows.append([_name(metric, ours), *cells[: len(header) - 1]])
        data.append(_data_row(metric, ours, theirs, setup, scale))
    blank = ["–"] * (len(header) - 3)
    rows.append(["samples n", *(_count(part, "n") for part in (free, best)), *blank])
    rows.append(["diverged", *(_count(part, "n_diverged") for part in (free, best)), *blank])
    notes += mark_notes(rows)
    if any(EXTRACTORS.get(metric) == "judge" for metric in metrics):
        notes.append(NOTE_JUDGE)
    if len(guided_paper):
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
    labels = setup_labels(setups_tsv)
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
    notes = [NOTE_ERROR, *mark_notes(rows)]
    caption = title or f"{points['dataset'].iloc[0]}: every setup and scale"
    write(Table(caption, header, rows, notes + ([note] if note else []), data), outputs)


def _metrics(points: pd.DataFrame, extra: Sequence[str]) -> list[str]:
    """Known metrics in their fixed order, then the rest (shares per class) as they come."""
    present = list(dict.fromkeys([*points["metric"], *extra]))
    return [m for m in ORDER if m in present] + [m for m in present if m not in ORDER]


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


def _data_row(metric: str, ours: list, theirs: list, setup: str, scale: float) -> list:
    features = next((value for row in ours if (value := field(row, "features")) != ""), "")
    numbers = [[field(row, name) for name in ("value", "stderr", "n", "n_diverged")] for row in ours]
    return [metric, features, *numbers[0], setup, plain(scale), *numbers[1], field(theirs[0], "value"),
            "" if theirs[1] is None else theirs[1]["setup"], field(theirs[1], "scale"),
            field(theirs[1], "value")]  # fmt: skip
