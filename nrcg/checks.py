"""Checks of values from outside, such as a config: each error names the key and the values it allows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np

from nrcg.errors import NrcgError


class Rule(NamedTuple):
    """A requirement on a value, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def whole(low: int, high: int | None = None) -> Rule:
    """An integer in [low, high]; floats such as 320.0 and truth values are refused."""
    words = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"

    def holds(value: Any) -> bool:
        integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return integer and low <= value and (high is None or value <= high)

    return Rule(words, holds)


def number(low: float = -math.inf, high: float = math.inf, *, without: Sequence[float] = ()) -> Rule:
    """A finite number in [low, high], except those in `without`."""
    bounds = []
    if math.isfinite(low):
        bounds.append(f" {'above' if low in without else 'of at least'} {low:g}")
    if math.isfinite(high):
        bounds.append(f" {'below' if high in without else 'of at most'} {high:g}")

    def holds(value: Any) -> bool:
        real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        return real and math.isfinite(value) and low <= value <= high and value not in without

    return Rule("a finite number" + " and".join(bounds), holds)


def one_of(*values: Any) -> Rule:
    """One of these texts or None."""
    words = ", ".join("null" if value is None else str(value) for value in values)
    return Rule(f"one of {words}", lambda value: (value is None or isinstance(value, str)) and value in values)


def maybe(rule: Rule) -> Rule:
    """None, or a value that obeys `rule`."""
    return Rule(f"{rule.words}, or null", lambda value: value is None or rule.holds(value))


def listed(rule: Rule, low: int = 1) -> Rule:
    """A list or tuple of at least `low` values that obey `rule`."""
    return Rule(
        f"a list of at least {low}, each {rule.words}",
        lambda value: isinstance(value, list | tuple) and len(value) >= low and all(map(rule.holds, value)),
    )


def one_or_two(rule: Rule) -> Rule:
    """A value that obeys `rule`, or a list of two."""
    return Rule(
        f"{rule.words}, or two", lambda value: rule.holds(value) or (listed(rule, 2).holds(value) and len(value) == 2)
    )


FRACTIONS = Rule(
    "two numbers (low, high) with 0 <= low <= high <= 1",
    lambda v: listed(number(0, 1), 2).holds(v) and len(v) == 2 and v[0] <= v[1],
)
FLAG = Rule("true or false", lambda value: isinstance(value, bool | np.bool_))
NAME = Rule("a name", lambda value: isinstance(value, str) and bool(value.strip()))
SEED = whole(0, 2**64 - 1)


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width in pixels of a size: one number, or [height, width]."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def shown_size(size: int | Sequence[int]) -> str:
    """A size as text: height×width."""
    return "×".join(map(str, sides(size)))


def spread(rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """Rules by key, from {"several keys": rule}."""
    return {key: rule for keys, rule in rules.items() for key in keys.split()}


def check(section: str, values: Any, rules: Mapping[str, Rule]) -> None:
    """Raise NrcgError unless `values` is a mapping whose keys are in `rules` and whose values obey them."""
    if not isinstance(values, Mapping):
        raise NrcgError(f"{section}: {_short(values)}; give an object with one value per key")
    if unknown := [str(key) for key in values if key not in rules]:
        near = ", ".join(get_close_matches(unknown[0], rules, n=3, cutoff=0))
        raise NrcgError(f"{section}: unknown key {', '.join(sorted(unknown))}; nearest are {near}")
    for key, value in values.items():
        if not rules[key].holds(value):
            raise NrcgError(f"{section}: {key} {_short(value)}: must be {rules[key].words}")


def check_fields(section: str, made: Any) -> None:
    """`check` for a dataclass with rules in its annotations: `epochs: Annotated[int, whole(1)] = 20`."""
    rules = {each.name: each.type.__metadata__[0] for each in fields(made) if hasattr(each.type, "__metadata__")}
    check(section, {name: getattr(made, name) for name in rules}, rules)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}…"
