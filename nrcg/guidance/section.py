"""Sections of a config, such as rows of setups: arguments of `ClassifierGuidance` as JSON and YAML have them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from nrcg.errors import NrcgError
from nrcg.guidance.guidance import ClassifierGuidance
from nrcg.guidance.objectives import objectives
from nrcg.guidance.stabilizers import Stabilizer, stabilizers
from nrcg.registry import call


def guidance_from(section: Any, classifier: nn.Module, target: Any, scale: float, where: str) -> ClassifierGuidance:
    """The guidance of a section, such as {"on": "x0", "stabilizer": {"ema": {"beta": 0.99}}, "interval": [0, 240]}.

    Args:
        section: mapping of arguments of `ClassifierGuidance`, less the next three. `objective` and `stabilizer` are
            registered names, or {name: {argument: value}}; a stabiliser may be None.
        classifier, target, scale: as of `ClassifierGuidance`.
        where: the section's place, with which errors begin, such as `config/setups.yaml: nonrobust_x0`.

    Raises:
        NrcgError: naming the key that is unknown, with the nearest ones, or whose value cannot be.
    """
    with _at(where):
        if isinstance(section, Mapping):
            section = {key: _MAKERS.get(key, lambda value: value)(value) for key, value in section.items()}
        return call(ClassifierGuidance, "guidance", section, classifier=classifier, target=target, scale=scale)


def stabilizer_from(section: Any, where: str) -> Stabilizer | None:
    """The stabiliser of a section: a registered name, {name: {argument: value}}, or None; raises as `guidance_from`."""
    with _at(where):
        return _stabilizer(section)


@contextmanager
def _at(where: str) -> Iterator[None]:
    try:
        yield
    except NrcgError as error:
        raise NrcgError(f"{where}: {str(error).removeprefix('guidance: ')}") from None


def _stabilizer(section: Any) -> Stabilizer | None:
    return None if section is None else stabilizers.build(section)


def _objective(section: Any) -> Any:
    return section if isinstance(section, str) else objectives.choose(section, given=2)


_MAKERS = {"objective": _objective, "stabilizer": _stabilizer}
