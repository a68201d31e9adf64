"""Tables of text: how a number looks in a cell, and the formats CSV, Markdown, LaTeX and HTML."""

import csv as csv_module
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.evaluation.uncertainty import NOTE_INTERVAL, mark, wilson
from nrcg.io.files import write_text
from nrcg.io.tables import read_table
from nrcg.plots.style import is_share
from nrcg.report import pages

NOTE_ERROR = f"Brackets: {NOTE_INTERVAL}. n counts all samples, diverged ones included."

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "≤": r"$\le$", "†": r"$\dagger$",
    "‡": r"$\ddagger$", "–": "--", "—": "---", "−": "$-$", "×": r"$\times$", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of strings for reading and its plain numbers for the machine."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]
    data: list[list]  # rows of the CSV file, its header first
    align: str = ""  # l or r for each column; blank is l, then r

    def sides(self) -> str:
        return self.align or "l" + "r" * (len(self.header) - 1)


def setup_column(setups_tsv: str | Path, column: str = "label") -> dict[str, str]:
    """Labels by setup, or another column, in row order."""
    table = read_table(setups_tsv, text=("setup", column))
    return dict(zip(table["setup"], table[column], strict=True))


def cell(row: pd.Series | None, metric: str, digits: int = 1) -> str:
    """A value with its unit, the interval of a share of n samples, the mark of a distance; an absent one is a dash."""
    if row is None:
        return "–"
    if not is_share(metric):
        return f"{row['value']:.2f}{mark(row)}"
    text = f"{100 * row['value']:.{digits}f} %"
    if np.isnan(row.get("n", np.nan)):
        return text
    low, high = wilson(row["value"], row["n"])
    return f"{text} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def field(row: pd.Series | None, name: str) -> str:
    """A number of the row as the CSV holds it, blank for an absent row."""
    return "" if row is None else plain(row[name])


def plain(value: float) -> str:
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

    rule = "|" + "|".join("---" if side == "l" else "---:" for side in table.sides()) + "|"
    lines = [f"**{table.caption}**", "", line(table.header), rule, *map(line, table.rows), ""]
    return "\n".join([*lines, *(f"{note}  " for note in table.notes)]).rstrip() + "\n"


def to_latex(table: Table) -> str:
    """A `table` environment; needs the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(latex_escape, cells)) + r" \\"

    notes = r" \\ ".join(map(latex_escape, table.notes))
    return "\n".join(
        [r"\begin{table}", r"\centering", rf"\caption{{{latex_escape(table.caption)}}}",
         rf"\begin{{tabular}}{{{table.sides()}}}", r"\toprule", line(table.header), r"\midrule",
         *map(line, table.rows), r"\bottomrule", r"\end{tabular}", "",
         rf"\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}}}", r"\end{table}", ""]
    )  # fmt: skip


def to_html(table: Table) -> str:
    """A page that a browser opens by itself."""
    body = pages.table(table.header, table.rows, align=table.sides(), caption=table.caption)
    return pages.page(table.caption, body, pages.notes(table.notes))


FORMATS: dict[str, Callable[[Table], str]] = {".csv": to_csv, ".md": to_markdown, ".tex": to_latex, ".html": to_html}


def write(table: Table, outputs: Sequence[str | Path]) -> None:
    """Write the table to each path, in the format of its suffix; raises NrcgError on one that is not in FORMATS."""
    for path in map(Path, outputs):
        if path.suffix not in FORMATS:
            raise NrcgError(f"{path}: tables are written as {', '.join(FORMATS)}; choose one of these names")
    for path in map(Path, outputs):
        write_text(path, FORMATS[path.suffix](table))
