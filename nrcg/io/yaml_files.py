"""YAML in which `on` is a string and duplicate keys are errors."""

import re
from pathlib import Path
from typing import Any

import yaml

from nrcg.errors import NrcgError, one_line
from nrcg.io.files import read_text

BOOL = "tag:yaml.org,2002:bool"


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with only the truth values of YAML 1.2; refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if double := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {double[0]}", node.start_mark)
        return super().construct_mapping(node, deep)


words = yaml.SafeLoader.yaml_implicit_resolvers.items()
Loader.yaml_implicit_resolvers = {first: [one for one in some if one[0] != BOOL] for first, some in words}
Loader.add_implicit_resolver(BOOL, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file; NrcgError if it cannot be read or has a duplicate key."""
    try:
        return yaml.load(read_text(path), Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NrcgError(f"{path}: cannot be read as YAML ({one_line(error)})") from None
