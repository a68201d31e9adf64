"""Text tables: number formatting, and the formats CSV, Markdown, LaTeX and HTML."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
import pandas as pd

from nrcg.evaluation.uncertainty import NOTE_INTERVAL, mark
from nrcg.io.files import write_text
from nrcg.plots.setups import is_share
from nrcg.plots.style import File, with_suffix
from nrcg.report import WORDS

NOTE_ERROR = f"Brackets: {NOTE_INTERVAL}; sampling error only. n counts all samples, including diverged ones."
NOTE_BETWEEN = "±: standard deviation between training runs of the guiding classifier, without the sampling error."
PAGE = Template((files("nrcg.report") / "table.html").read_text("utf-8"))


@dataclass(frozen=True)
class Table:
    """A table as text, and its numbers."""

    caption: str
    text: pd.DataFrame  # strings
    data: pd.DataFrame  # content of the CSV file; shares 0…1
    notes: Sequence[str]
    intro: Sequence[str] = ()  # paragraphs above the table
    align: str = ""  # l or r per column; default: l, then r

    @property
    def sides(self) -> str:
        return self.align or "l" + "r" * (self.text.shape[1] - 1)

    def escaped(self, by: Callable[[str], str]) -> pd.DataFrame:
        """Text and headings, escaped for a format."""
        return self.text.map(by).rename(columns=by)


def cell(row: pd.Series, metric: str, digits: int = 1) -> str:
    """A value with unit, interval, mark, and standard deviation between training runs; a dash if missing."""
    if np.isnan(row["value"]):
        return "–"
    if metric == "unet_evaluations":
        return f"{row['value']:g}"
    share, unit = is_share(metric), " %" if is_share(metric) else ""
    say: Callable[[float], str] = (lambda each: f"{100 * each:.{digits}f}") if share else _number
    low, high, between = (row.get(key, np.nan) for key in ("low", "high", "between"))
    text = f"{say(row['value'])}{unit}"
    text += "" if np.isnan(low) else f" [{say(low)}, {say(high)}]"
    text += "" if np.isnan(between) else f" ± {say(between)}"
    return text.replace("-", "−") + mark(row, metric)


def _number(value: float) -> str:
    """Two decimals, or three digits for small numbers."""
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"


def plain(value: Any) -> str:
    """A number for CSV: no rounding, no trailing .0, blank if missing; text is unchanged."""
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else str(int(value)) if float(value).is_integer() else repr(float(value))


def latex_escape(text: str) -> str:
    """Plain Unicode text for LaTeX, x̂₀ as a formula."""
    return r"$\hat{x}_0$".join(piece.translate(str.maketrans(WORDS["latex"])) for piece in text.split("x̂₀"))


def to_csv(table: Table) -> str:
    """A header line and plain numbers."""
    return table.data.map(plain).to_csv(index=False, lineterminator="\n")


def to_markdown(table: Table) -> str:
    """A heading, the introduction, a pipe table, and a list of notes."""
    sides = ["right" if side == "r" else "left" for side in table.sides]
    frame = table.escaped(lambda text: text.replace("|", r"\|"))
    grid = frame.to_markdown(index=False, tablefmt="pipe", colalign=sides, disable_numparse=True)
    notes = "\n".join(f"- {note}" for note in table.notes)
    return "\n\n".join([f"# {table.caption}", *table.intro, grid, notes]) + "\n"


def to_latex(table: Table) -> str:
    """A `table` environment; needs the package booktabs."""
    body = table.escaped(latex_escape).to_latex(index=False, escape=False, column_format=table.sides)
    notes = r" \\ ".join(map(latex_escape, [*table.intro, *table.notes]))
    return Template(WORDS["latex_table"]).substitute(caption=latex_escape(table.caption), body=body, notes=notes)


def to_html(table: Table) -> str:
    """A self-contained page."""
    right = (f"tr :nth-child({i + 1})" for i, side in enumerate(table.sides) if side == "r")
    with pd.option_context("display.max_colwidth", None):
        body = table.text.to_html(index=False, border=0, justify="unset")
    intro = "".join(f"<p>{escape(line)}</p>\n" for line in table.intro)
    notes = "".join(f"<li>{escape(note)}</li>\n" for note in table.notes)
    return PAGE.substitute(caption=escape(table.caption), right=", ".join(right), intro=intro, body=body, notes=notes)


FORMATS: dict[str, Callable[[Table], str]] = {".csv": to_csv, ".md": to_markdown, ".tex": to_latex, ".html": to_html}


def write(outputs: Iterable[File], table: Table) -> None:
    """Write the table to each path; the suffix determines the format."""
    for path in with_suffix(outputs, "tables", FORMATS):
        write_text(path, FORMATS[path.suffix](table))
