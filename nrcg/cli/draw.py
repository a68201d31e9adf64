"""The verb that draws figures, grids and tables by name, from CSV files and sample shards."""

from importlib import import_module
from inspect import formatannotation, getdoc, signature, unwrap
from pkgutil import iter_modules
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer import Argument, Option
from typer.core import TyperCommand

from nrcg import plots, report
from nrcg.cli.options import Note, Outs, Style, Title, app, parse_json
from nrcg.errors import NrcgError
from nrcg.plots import WORDS, figures
from nrcg.registry import call


def load_figures() -> None:
    """Import the modules that register figures; slow because of matplotlib."""
    for package in (plots, report):
        for module in iter_modules(package.__path__):
            import_module(f"{package.__name__}.{module.name}")


class _Draw(TyperCommand):
    """A command whose help lists the figures."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        load_figures()
        texts = [f"{name}: {(getdoc(drawn) or '').partition(chr(10))[0]}" for name, drawn in figures.items()]
        self.epilog = "\n\n".join([*WORDS["help"], "Figures:", *texts])
        super().format_help(ctx, formatter)


@app.command("draw", cls=_Draw)
def draw(
    figure: Annotated[str, Argument(metavar="FIGURE", help="Name from the list below.", show_default=False)],
    arguments: Annotated[str, Option(help="Keyword arguments of the figure: JSON, or @file.json.")],
    out: Outs,
    style: Style = None,
    title: Title = "",
    note: Note = [],  # noqa: B006
) -> None:
    """Draw a figure or write a table from existing files."""
    load_figures()
    drawn, given = figures[figure], parse_json(arguments, "--arguments")
    common = {"style": style, "title": title, "note": "\n".join(note)}
    common = {key: value for key, value in common.items() if key in signature(drawn).parameters}
    hints = get_type_hints(unwrap(drawn))
    for key, value in given.items():
        if key in hints and not _fits(value, hints[key]):
            raise NrcgError(f"figure {figure}: {key} {value!r}: must be {formatannotation(hints[key])}")
    call(drawn, f"figure {figure}", given, out, **common)


def _fits(value: Any, hint: Any = Any) -> bool:
    """Whether a JSON value fits a parameter's annotation; paths are strings."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is UnionType:
        return any(_fits(value, part) for part in inner)
    if kind in (list, dict):
        parts = value.values() if isinstance(value, dict) else value
        return isinstance(value, kind) and all(_fits(part, *inner[-1:]) for part in parts)
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    return kind is Any or isinstance(value, kind)
