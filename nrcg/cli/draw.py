"""The verb that draws: figures, grids and tables by name, from CSV files and sample shards."""

from importlib import import_module
from inspect import getdoc, signature
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer import Argument, Context, Option
from typer.core import TyperCommand

from nrcg.cli.options import Note, Outs, Style, Title, app, parse_json
from nrcg.errors import NrcgError
from nrcg.plots import figures
from nrcg.registry import call

DEFINED_IN = ("plots.forward", "plots.scales", "plots.samples", "plots.before_after", "plots.training",
              "report.tables", "report.findings")  # fmt: skip


def load_figures() -> None:
    """Import all modules that register figures, which takes matplotlib and so a moment."""
    for name in DEFINED_IN:
        import_module(f"nrcg.{name}")


class _Draw(TyperCommand):
    """Its help lists the figures."""

    def format_help(self, ctx: Context, formatter: Any) -> None:
        load_figures()
        texts = [f"{name}: {(getdoc(drawn) or '').partition(chr(10))[0]}" for name, drawn in figures.items()]
        self.epilog = "\n\n".join(["Figures:", *texts])
        super().format_help(ctx, formatter)


@app.command("draw", cls=_Draw)
def draw(
    figure: Annotated[str, Argument(metavar="FIGURE", help="Its name; see below.", show_default=False)],
    arguments: Annotated[str, Option(help="Keyword arguments of the figure: JSON, or @file.json.")],
    out: Outs,
    style: Style = None,
    title: Title = "",
    note: Note = (),
) -> None:
    """Draw a figure or write a table, from files that were made before."""
    load_figures()
    drawn, given = figures[figure], parse_json(arguments, "--arguments")
    common = {"style": style, "title": title, "note": "\n".join(note)}
    common = {key: value for key, value in common.items() if key in signature(drawn).parameters}
    hints = get_type_hints(drawn.__wrapped__ if hasattr(drawn, "__wrapped__") else drawn)
    for key, value in given.items():
        if key in hints and not _fits(value, hints[key]):
            kind = hints[key].__name__ if isinstance(hints[key], type) else hints[key]
            raise NrcgError(f"figure {figure}: {key} {value!r}: must be {kind}")
    call(drawn, f"figure {figure}", given, out, **common)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is what a parameter's annotation says; a path is a text."""
    inner = get_args(hint)
    if get_origin(hint) is UnionType:
        return any(_fits(value, part) for part in inner)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(part, inner[0]) for part in value)
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(_fits(part, inner[1]) for part in value.values())
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return hint is Any or isinstance(value, hint)
