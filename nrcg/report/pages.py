"""Pages for a browser: one HTML file each, which needs no other."""

from collections.abc import Sequence
from html import escape

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 2em auto; padding: 0 1.5em; max-width: 80em; }
div { overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; }
caption { text-align: left; font-weight: bold; padding: .4em 0; }
th, td { padding: .35em .7em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #888; }
.right { text-align: right; white-space: nowrap; }
.notes { color: #555; font-size: 90%; }
"""


def page(title: str, *parts: str) -> str:
    """A whole document, UTF-8, of parts that are HTML; `title` is plain text."""
    head = f'<meta charset="utf-8">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>'
    body = "\n".join(part for part in parts if part)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def paragraph(text: str) -> str:
    """Plain text as a paragraph, none where it is blank."""
    return f"<p>{escape(text)}</p>" if text else ""


def notes(lines: Sequence[str]) -> str:
    """Plain lines as a list in small print."""
    return '<ul class="notes">\n' + "\n".join(f"<li>{escape(line)}</li>" for line in lines) + "\n</ul>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, align: str, caption: str = "") -> str:
    """A table of plain text; `align` has l or r for each column."""
    sides = ["" if side == "l" else ' class="right"' for side in align]

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}{s}>{escape(c)}</{tag}>" for c, s in zip(cells, sides, strict=True)) + "</tr>"

    head = f"<caption>{escape(caption)}</caption>\n" if caption else ""
    body = "\n".join(line(row, "td") for row in rows)
    return f"<div><table>\n{head}<thead>{line(header, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
