"""Writes the tables of config/README.md: of the schema's keys, and of the arguments of what a config names."""

import inspect
import re
from inspect import getdoc
from pathlib import Path

import yaml

from nrcg.cli.slots import slots
from nrcg.datasets import kinds
from nrcg.evaluation.extractors import extractors
from nrcg.evaluation.metrics import metrics
from nrcg.guidance import ClassifierGuidance
from nrcg.models.sources import sources
from nrcg.training.settings import ClassifierTraining, DDPMTraining

ROOT = Path(__file__).parent.parent
README = ROOT / "config/README.md"
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
MARK = re.compile(r"(<!-- made: (\S+) -->\n).*?(<!-- end -->)", re.S)


def resolved(part):
    """A part of the schema with what it refers to; its own words win."""
    if "$ref" not in part:
        return part
    return {**SCHEMA["$defs"][part["$ref"].rsplit("/", 1)[1]], **{key: v for key, v in part.items() if key != "$ref"}}


def type_of(part):
    """A type and its range, in words."""
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    names = part.get("type", [])
    names = names if isinstance(names, list) else [names]
    words = " or ".join({"object": "section", "array": "list"}.get(name, name) for name in names)
    for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("exclusiveMaximum", "<")):
        if key in part:
            words += f" {sign} {part[key]}"
    return words


def shown(value):
    return f"`{yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix('...' + chr(10)).strip()}`"


def keys(part, place):
    """Rows of a section of the schema, and of the sections in it."""
    for key, value in part.get("properties", {}).items():
        value = resolved(value)
        default = shown(value["default"]) if "default" in value else "–" if value.get("type") == "object" else "needed"
        yield f"{place}{key}", type_of(value), default, value.get("description", "")
        if place or key != "datasets":
            yield from keys(value, f"{place}{key}.")
            if "properties" in (inner := resolved(value.get("additionalProperties") or {})):
                yield from keys(inner, f"{place}{key}.<name>.")


def arguments(function, but=()):
    """Rows of a function's arguments: names and defaults of its signature, meanings of its docstring or comments."""
    doc = (function.__doc__ or "").partition("Args:\n")[2]
    indent = len(doc) - len(doc.lstrip(" "))
    told = dict(re.findall(r"^    (\w+): .*  # (.*)$", inspect.getsource(function), re.M))
    told |= dict(re.findall(rf"^ {{{indent}}}(\w+): (.*(?:\n {{{indent + 1},}}.*)*)", doc, re.M))
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in but:
            default = "needed" if parameter.default is parameter.empty else shown(plain(parameter.default))
            yield name, default, " ".join(told[name].split())


def plain(value):
    return list(value) if isinstance(value, tuple) else value


def table(head, rows):
    lines = [head, ["---"] * len(head), *([f"`{first}`", *rest] for first, *rest in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def made(name):
    """The table of a mark `<!-- made: NAME -->`."""
    if name == "run":
        return table(["key", "type", "default", "meaning"], keys(SCHEMA, ""))
    if name == "dataset":
        return table(["key", "type", "default", "meaning"], keys(SCHEMA["$defs"]["dataset"], ""))
    kind, _, which = name.partition(":")
    functions = {
        "images": lambda: kinds[which],
        "training": lambda: {"classifier": ClassifierTraining, "ddpm": DDPMTraining}[which],
        "guidance": lambda: ClassifierGuidance,
    }
    if kind in functions:
        but = ("classifier", "target", "scale") if kind == "guidance" else ()
        return table(["key", "default", "meaning"], arguments(functions[kind](), but))
    head = ["name", "arguments and defaults", "meaning"]
    if kind == "slots":
        parts = slots().items()
        return "\n".join(f"`{slot}`:\n\n{table(head, [blank(row) for row in rows])}" for slot, rows in parts)
    if kind in (registries := {"metrics": metrics, "extractors": extractors}):
        rows = [(thing, getdoc(entry).partition("\n")[0]) for thing, entry in registries[kind].items()]
        return table(["name", "meaning"], rows)
    rows = []
    for thing, entry in sources.items():
        given = inspect.signature(entry).parameters.values()
        words = [each.name + (f": {shown(each.default)}" if each.default is not each.empty else "") for each in given]
        rows.append((thing, ", ".join(words).replace("`", "") or "–", (entry.__doc__ or "").partition("\n")[0]))
    return table(head, rows)


def blank(row):
    return tuple(cell or "–" for cell in row)


def page():
    """config/README.md with its tables made anew."""
    return MARK.sub(lambda match: f"{match[1]}{made(match[2])}{match[3]}", README.read_text())


if __name__ == "__main__":
    README.write_text(page())
