"""The slots of guidance and all registered choices, including the user's, for help and documentation."""

import inspect
import json
from typing import Annotated, Any

from typer import Option
from typer.core import TyperCommand

from nrcg.cli import options

POSITIONAL = ("logits", "target", "step", "size", "direction", "u", "_")  # passed by the loop
GIVEN = ("classifier", "target", "scale")  # keys outside of `guidance` in a config


def slots() -> dict[str, list[tuple[str, str, str]]]:
    """Per slot, rows of name, arguments with defaults, and the first line of the docstring."""
    from nrcg.guidance import SLOTS

    return {slot: [(name, *_told(thing)) for name, thing in entries.items()] for slot, entries in SLOTS.items()}


def _told(thing: Any) -> tuple[str, str]:
    arguments = [each for each in inspect.signature(thing).parameters.values() if each.name not in POSITIONAL]
    shown = (each.name + ("" if each.default is each.empty else f"={each.default!r}") for each in arguments)
    return ", ".join(shown), (inspect.getdoc(thing) or "").partition("\n")[0]


def described() -> str:
    """The slots as text."""
    lines = ["Slots of guidance, each {SLOT: NAME} or {SLOT: {NAME: {ARGUMENT: VALUE}}}:"]
    for slot, rows in slots().items():
        lines += ["", f"  {slot}", *(f"    {name}({given}): {meaning}" for name, given, meaning in rows)]
    return "\n".join(lines).replace("():", ":")


def schema() -> dict[str, Any]:
    """JSON schema of a row's `guidance`: the names of each slot; `ClassifierGuidance` checks the values."""
    from nrcg.guidance import ClassifierGuidance

    def choice(rows: list[tuple[str, str, str]]) -> dict[str, Any]:
        named = {name: {"description": meaning} for name, _, meaning in rows}
        section = {"type": "object", "properties": named, "additionalProperties": False, "maxProperties": 1}
        return {"anyOf": [{"enum": [*named, None]}, section]}

    chosen = {slot: choice(rows) for slot, rows in slots().items()}
    chosen["stabilizer"] = {"anyOf": [chosen["stabilizer"], {"type": "array", "items": chosen["stabilizer"]}]}
    properties: dict[str, Any] = {
        name: {} for name in inspect.signature(ClassifierGuidance).parameters if name not in GIVEN
    }
    properties |= chosen
    return {"type": "object", "properties": properties, "additionalProperties": False}


class WithSlots(TyperCommand):
    """A command whose help ends with the slots of `--guidance`."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        print(described())


@options.app.command("slots")
def show(
    as_schema: Annotated[bool, Option("--schema", help="As JSON schema of a row's `guidance`.")] = False,
) -> None:
    """List the choices for each slot of guidance, including those of `--module`."""
    print(json.dumps(schema(), indent=2, ensure_ascii=False) if as_schema else described())
