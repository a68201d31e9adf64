"""Tables 1 to 3: unconditional beside the best conditional setup, the paper's numbers beside ours; and all points."""

import csv as csv_module
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.files import write_text
from nrcg.plots.reading import read_paper, read_points, read_table
from nrcg.plots.style import is_share, metric_label

EXTRACTORS = {"fid": "Inception", "cfid": "Inception", "fd_judge": "judge", "cfd_judge": "judge"}
ORDER = ("accuracy", "accuracy_judge", "fid", "cfid", "fd_judge", "cfd_judge")
PER_FEATURE = 10  # fewer samples per feature than this are called a small sample

NOTE_SINGULAR = "† n ≤ feature dimension: the covariance is singular; compare the distance only at equal n."
NOTE_SMALL = f"‡ small sample: fewer than {PER_FEATURE} samples per feature, the distance is biased upwards."
NOTE_JUDGE = (
    "FD (judge) uses the judge's features: it is not FID and must not be compared with the paper's FID and cFID."
)
NOTE_PAPER = "The paper's FID and cFID: torchvision's Inception, its own sample size; ours, where given: pytorch-fid's."
NOTE_ERROR = "± one standard error. n counts all samples, diverged ones included."

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "≤": r"$\le$", "†": r"$\dagger$",
    "‡": r"$\ddagger$", "–": "--", "—": "---", "×": r"$\times$", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of strings for reading and its plain numbers for the machine."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]
    data: list[list]  # rows of the CSV file, its header first


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
    labels = _labels(setups_tsv)
    table = _compare(free, best, read_paper(paper_csv, dataset), labels)
    caption = title or f"{dataset}, target {target_name}: unconditional beside the best guided setup"
    table = Table(caption, table.header, table.rows, table.notes + ([note] if note else []), table.data)
    _write(table, outputs)


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
        rows.append([_name(metric, ours), *(_cell(row, metric) for row in (*ours, *theirs)[: len(header) - 1])])
        data.append(_data_row(metric, ours, theirs, setup, scale))
    blank = ["–"] * (len(header) - 3)
    rows.append(["samples n", *(_count(part, "n") for part in (free, best)), *blank])
    rows.append(["diverged", *(_count(part, "n_diverged") for part in (free, best)), *blank])
    text = "".join(cell for row in rows for cell in row)
    notes += [line for line in (NOTE_SINGULAR, NOTE_SMALL) if line[0] in text]
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
    labels = _labels(setups_tsv)
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
                     _count(part, "n_diverged"), *map(_cell, found, metrics)])  # fmt: skip
        data.append([setup, _plain(scale), _plain(part["n"].max()), _plain(part["n_diverged"].max()),
                     *(_field(row, "value") for row in found)])  # fmt: skip
    text = "".join(cell for row in rows for cell in row)
    notes = [NOTE_ERROR] + [line for line in (NOTE_SINGULAR, NOTE_SMALL) if line[0] in text]
    caption = title or f"{points['dataset'].iloc[0]}: every setup and scale"
    _write(Table(caption, header, rows, notes + ([note] if note else []), data), outputs)


def _labels(setups_tsv: str | Path) -> dict[str, str]:
    table = read_table(setups_tsv, text=("setup", "label"))
    return dict(zip(table["setup"], table["label"], strict=True))


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


def _cell(row: pd.Series | None, metric: str) -> str:
    if row is None:
        return "–"
    share = is_share(metric)
    factor, digits, unit = (100, 1, " %") if share else (1, 2, "")
    if share and "n" not in row:  # the paper gives hundredths of a percent
        digits = 2
    text = f"{row['value'] * factor:.{digits}f}"
    if not np.isnan(row.get("stderr", np.nan)):
        text += f" ± {row['stderr'] * factor:.{digits}f}"
    return text + unit + _mark(row)


def _mark(row: pd.Series) -> str:
    """† for a singular covariance, ‡ for a small sample; diverged samples give no features."""
    features = row.get("features", np.nan)
    if np.isnan(features):
        return ""
    if row["n"] <= features:
        return " †"
    return " ‡" if row["n"] < PER_FEATURE * features else ""


def _count(points: pd.DataFrame, column: str) -> str:
    value = points[column].max()
    return "–" if np.isnan(value) else f"{value:.0f}"


def _data_row(metric: str, ours: list, theirs: list, setup: str, scale: float) -> list:
    features = next((value for row in ours if (value := _field(row, "features")) != ""), "")
    numbers = [[_field(row, name) for name in ("value", "stderr", "n", "n_diverged")] for row in ours]
    return [metric, features, *numbers[0], setup, _plain(scale), *numbers[1], _field(theirs[0], "value"),
            "" if theirs[1] is None else theirs[1]["setup"], _field(theirs[1], "scale"),
            _field(theirs[1], "value")]  # fmt: skip


def _field(row: pd.Series | None, name: str) -> str:
    return "" if row is None else _plain(row[name])


def _plain(value: float) -> str:
    """A number as the CSV holds it: no rounding, no trailing .0, blank for none."""
    if np.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def latex_escape(text: str) -> str:
    """Plain Unicode text for LaTeX, x̂₀ as a formula."""
    pieces = ["".join(LATEX.get(char, char) for char in piece) for piece in text.split("x̂₀")]
    return r"$\hat{x}_0$".join(pieces)


def to_csv(table: Table) -> str:
    """Plain numbers, a header line first; shares 0…1."""
    buffer = io.StringIO()
    csv_module.writer(buffer, lineterminator="\n").writerows(table.data)
    return buffer.getvalue()


def to_markdown(table: Table) -> str:
    """A caption line, a pipe table, and the notes."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join(["---", *["---:"] * (len(table.header) - 1)]) + "|"
    lines = [f"**{table.caption}**", "", line(table.header), rule, *map(line, table.rows), ""]
    return "\n".join([*lines, *(f"{note}  " for note in table.notes)]).rstrip() + "\n"


def to_latex(table: Table) -> str:
    """A `table` environment; needs the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(latex_escape, cells)) + r" \\"

    notes = r" \\ ".join(map(latex_escape, table.notes))
    return "\n".join(
        [r"\begin{table}", r"\centering", rf"\caption{{{latex_escape(table.caption)}}}",
         rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}", r"\toprule", line(table.header), r"\midrule",
         *map(line, table.rows), r"\bottomrule", r"\end{tabular}", "",
         rf"\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}}}", r"\end{table}", ""]
    )  # fmt: skip


FORMATS: dict[str, Callable[[Table], str]] = {".csv": to_csv, ".md": to_markdown, ".tex": to_latex}


def _write(table: Table, outputs: Sequence[str | Path]) -> None:
    for path in map(Path, outputs):
        if path.suffix not in FORMATS:
            raise NrcgError(f"{path}: tables are written as {', '.join(FORMATS)}; choose one of these names")
    for path in map(Path, outputs):
        write_text(path, FORMATS[path.suffix](table))
