"""Registries of things that a config chooses by name; each is registered where it is defined."""

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from nrcg.checks import Rule, check
from nrcg.errors import NrcgError

Thing = TypeVar("Thing", bound=Callable[..., Any])


class Registry(dict[str, Callable[..., Any]]):
    """Classes or functions of one `kind` by name, in order; a config names them as `sign` or `{ema: {beta: 0.99}}`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __missing__(self, name: object) -> Callable[..., Any]:
        raise NrcgError(f"{self.kind} {name!r}: unknown; use one of {', '.join(self)}")

    def register(self, name: str) -> Callable[[Thing], Thing]:
        """Decorator that registers a class or function as `name`. Raises ValueError for a name in use."""
        if name in self:
            raise ValueError(f"{self.kind} {name!r} is registered already; choose another name")

        def file(thing: Thing) -> Thing:
            self[name] = thing
            return thing

        return file

    def choose(self, section: Any, given: int = 0) -> Callable[..., Any]:
        """The entry of a section with its arguments bound, all but the first `given`; functions pass through."""
        if callable(section) and not isinstance(section, type):
            return section
        if isinstance(section, str):
            section = {section: {}}
        if not isinstance(section, Mapping) or len(section) != 1:
            raise NrcgError(f"{self.kind} {section!r}: write a name, or {{name: {{argument: value}}}}")
        ((name, arguments),) = section.items()
        arguments = {} if arguments is None else arguments
        check_arguments(self[name], f"{self.kind} {name}", arguments, given)
        return partial(self[name], **arguments) if arguments else self[name]

    def build(self, section: Any) -> Any:
        """The entry of a section, called with the section's arguments."""
        return self.choose(section)()


def call(thing: Callable[..., Any], where: str, arguments: Any, *given: Any, **also: Any) -> Any:
    """thing(*given, **also, **arguments), after a check of `arguments`, which come from a config."""
    check_arguments(thing, where, arguments, len(given), also)
    return thing(*given, **also, **arguments)


def check_arguments(thing: Callable, where: str, arguments: Any, given: int = 0, also: Collection[str] = ()) -> None:
    """Refuse unknown and missing arguments of `thing`, apart from its first `given` parameters and those in `also`."""
    if not isinstance(arguments, Mapping):
        raise NrcgError(f"{where}: {arguments!r}: give an object with one value per key")
    parameters = inspect.signature(thing).parameters
    free = {name: parameters[name] for name in list(parameters)[given:] if name not in also}
    named = {name: each for name, each in free.items() if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)}
    takes_any = any(each.kind is each.VAR_KEYWORD for each in free.values())
    for key, value in arguments.items():
        if not isinstance(key, str) or key in also or (key not in named and not takes_any):
            near = ", ".join(get_close_matches(str(key), named, n=3, cutoff=0)) or "none"
            raise NrcgError(f"{where}: unknown key {key}; nearest are {near}")
        rule = getattr(named.get(key) and named[key].annotation, "__metadata__", [None])[0]
        if isinstance(thing, FunctionType) and isinstance(rule, Rule):  # a class checks its own fields
            check(where, {key: value}, {key: rule})
    for name, each in named.items():
        if each.default is each.empty and name not in arguments:
            raise NrcgError(f"{where}: no key {name}; add it")


def load_module(name: str) -> ModuleType:
    """Import a module once: a dotted name, or the path of a .py file."""
    path = str(Path(name).resolve())
    if name.endswith(".py") and not Path(name).is_file():
        raise NrcgError(f"module {name}: no such file")
    try:
        if not name.endswith(".py"):
            return import_module(name)
        if path not in sys.modules:
            spec: Any = spec_from_file_location(path, path)
            sys.modules[path] = module_from_spec(spec)  # before it runs: dataclasses look for their module there
            spec.loader.exec_module(sys.modules[path])
        return sys.modules[path]
    except Exception as error:  # any error of the user's code
        sys.modules.pop(path, None)
        raise NrcgError(f"module {name}: cannot be imported ({type(error).__name__}: {error})") from error


def load_function(name: str) -> Callable[..., Any]:
    """The function named by `package.module:function` or `path/to/file.py:function`."""
    module, _, function = name.rpartition(":")
    if not (module and function):
        raise NrcgError(f"function {name!r}: write package.module:function, or path/to/file.py:function")
    found = getattr(load_module(module), function, None)
    if not callable(found):
        raise NrcgError(f"function {name}: {module} has no function {function!r}")
    return found
