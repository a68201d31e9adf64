"""YAML as people mean it: `on` is a word, no truth value, and no key stands twice."""

import re
from pathlib import Path
from typing import Any

import yaml

from nrcg.errors import NrcgError
from nrcg.io.files import read_text


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the truth values of YAML 1.2 alone, which refuses a key that stands twice."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if double := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{double[0]} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds; raises NrcgError naming the file when it cannot be read, or holds a key twice."""
    try:
        return yaml.load(read_text(path), Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NrcgError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
