"""Things that are chosen by name in a config: each is registered where it is defined, and checks its own arguments."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, TypeVar

from nrcg.errors import NrcgError

Thing = TypeVar("Thing", bound=Callable[..., Any])


class Registry(Mapping[str, Callable[..., Any]]):
    """Classes or functions of one kind by name, in the order in which they were registered.

    A section of a config names one of them, and gives its keyword arguments where it has any:

        stabilizer: sign
        stabilizer: {ema: {beta: 0.99}}

    Args:
        kind: what they are, in the singular, for messages: `stabilizer`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[[Thing], Thing]:
        """Decorator that files a class or function under `name`. Raises ValueError for a name that is taken."""
        if name in self._things:
            raise ValueError(f"{self.kind} {name!r} is registered already; choose another name")

        def file(thing: Thing) -> Thing:
            self._things[name] = thing
            return thing

        return file

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """The thing of this name; raises NrcgError, which lists the names, for another."""
        if not isinstance(name, str) or name not in self._things:
            raise NrcgError(f"{self.kind} {name!r}: unknown; use one of {', '.join(self._things)}")
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def build(self, section: Any) -> Any:
        """What a section describes: the named thing, called with the section's arguments.

        Args:
            section: a name, or a mapping from one name to keyword arguments (None is none).

        Raises:
            NrcgError: naming the key, for a section of another form, an unknown name, and arguments that the thing
                does not take or refuses.
        """
        if isinstance(section, str):
            section = {section: {}}
        if not isinstance(section, Mapping) or len(section) != 1:
            raise NrcgError(f"{self.kind} {section!r}: write a name, or {{name: {{argument: value}}}}")
        ((name, arguments),) = section.items()
        return call(self[name], f"{self.kind} {name}", {} if arguments is None else arguments)


def call(thing: Callable[..., Any], where: str, arguments: Any, *given: Any, **also: Any) -> Any:
    """thing(*given, **also, **arguments) with `arguments` from a config.

    Raises:
        NrcgError: which begins with `where`, for arguments that are no mapping, an argument that the thing does not
            take, one that it lacks, and one that `given` or `also` hold already.
    """
    if not isinstance(arguments, Mapping):
        raise NrcgError(f"{where}: {arguments!r}: give an object, a value for each key")
    parameters = inspect.signature(thing).parameters
    free = [name for name in list(parameters)[len(given) :] if name not in also]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for key in arguments:
            if key not in free:
                near = ", ".join(get_close_matches(str(key), free, n=3, cutoff=0)) or "none"
                raise NrcgError(f"{where}: unknown key {key}; nearest are {near}")
    for name in free:
        parameter = parameters[name]
        needed = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if needed and name not in arguments:
            raise NrcgError(f"{where}: no key {name}; give one")
    return thing(*given, **also, **arguments)


def load_module(name: str) -> None:
    """Import a module that registers things: a dotted name, or the path of a .py file.

    Raises NrcgError where there is none, and for one that cannot be imported.
    """
    try:
        if not name.endswith(".py"):
            import_module(name)
            return
        if not Path(name).is_file():
            raise NrcgError(f"module {name}: no such file")
        spec = spec_from_file_location(Path(name).stem, name)
        spec.loader.exec_module(module_from_spec(spec))
    except NrcgError:
        raise
    except Exception as error:  # whatever the user's own code raises
        raise NrcgError(f"module {name}: cannot be imported ({type(error).__name__}: {error})") from error
