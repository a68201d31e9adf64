"""YAML as people mean it: `on` is a word, no truth value, and no key stands twice."""

import re
from pathlib import Path
from typing import Any

import yaml

from nrcg.errors import NrcgError, one_line
from nrcg.io.files import read_text

BOOL = "tag:yaml.org,2002:bool"


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the truth values of YAML 1.2 alone, which refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if double := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{double[0]} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


words = yaml.SafeLoader.yaml_implicit_resolvers.items()
Loader.yaml_implicit_resolvers = {first: [one for one in some if one[0] != BOOL] for first, some in words}
Loader.add_implicit_resolver(BOOL, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds; raises NrcgError naming the file when it cannot be read, or holds a key twice."""
    try:
        return yaml.load(read_text(path), Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NrcgError(f"{path}: cannot be read as YAML ({one_line(error)})") from None
