# Reads the config and the setups, fills in defaults, and checks them with their schemas.
import math

import yaml
from jsonschema import Draft202012Validator, validators
from nrcg.errors import NrcgError
from nrcg.io.yaml_files import read_yaml
from snakemake.exceptions import WorkflowError


def is_number(_, value):
    """Whether a value is a finite number; YAML also has .nan and .inf."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(_, value):
    """Whether a value was written as an integer; 320.0 would be passed on unchanged."""
    return isinstance(value, int) and not isinstance(value, bool)


def with_defaults(validator, properties, instance, schema):
    """Fill in defaults of missing keys, then check all keys."""
    for key, part in properties.items():
        if "default" in part and isinstance(instance, dict):
            instance.setdefault(key, part["default"])
    yield from Draft202012Validator.VALIDATORS["properties"](validator, properties, instance, schema)


TYPES = Draft202012Validator.TYPE_CHECKER.redefine_many({"number": is_number, "integer": is_integer})
Validator = validators.extend(Draft202012Validator, {"properties": with_defaults}, type_checker=TYPES)


def violations(value, schema, where):
    """Violations of a schema, one line each with the key."""
    text = (PROJECT / f"workflow/schemas/{schema}.schema.yaml").read_text(encoding="utf-8")
    for error in Validator(yaml.safe_load(text)).iter_errors(value):
        said = error.message
        if error.validator == "pattern" and "description" in error.schema:
            said = f"{error.instance!r} must be {error.schema['description']}"
        yield f"{'.'.join([where, *map(str, error.path)])}: {said}"


def refuse(problems):
    """Stop if there are problems, with one line per problem."""
    if lines := list(dict.fromkeys(problems)):
        raise WorkflowError("\n".join(lines))


def checked(key):
    """The YAML file named by a key of the config, checked with the schema of the same name."""
    place = f"{key} ({config[key]})"
    try:
        rows = read_yaml(config[key])
    except NrcgError as error:
        raise WorkflowError(f"{place}: {error}")
    refuse(violations(rows, key, place))
    return rows


def located(path):
    """A path of the config: `~` is the home directory; paths missing in the working directory refer to the project."""
    if path is None:
        return None
    place = Path(path).expanduser()
    return str(next((found for found in (place, PROJECT / place) if found.exists()), path))


def located_source(pretrained):
    """`located` for a classifier: for a folder, or for `path` or the file in `function` of a source."""

    def argument(key, value):
        file, colon, function = str(value).rpartition(":")
        if key == "function" and file.endswith(".py"):
            return f"{located(file)}{colon}{function}"
        return located(value) if key == "path" and isinstance(value, str) else value

    if not isinstance(pretrained, dict):
        return located(pretrained)
    return {
        name: {key: argument(key, value) for key, value in given.items()} if isinstance(given, dict) else given
        for name, given in pretrained.items()
    }


def middle(scales):
    """The middle one of a setup's scales, the lower one of two; 1 if they are yet to be found."""
    return sorted(scales)[(len(scales) - 1) // 2] if isinstance(scales, list) and scales else 1


refuse(violations(config, "config", "config"))
for key in ("setups", "paper_results", "style", "inception_weights", "authors_weights"):
    config[key] = located(config[key])
config["roles"] = {role: setup for role, setup in config["roles"].items() if setup is not None}
config["modules"] = [located(name) if name.endswith(".py") else name for name in config["modules"]]
for data in config["datasets"].values():
    if (shown := data["showcase"])["scale"] is None:
        shown["scale"] = middle(data["scales"].get(shown["setup"]))
    data["scores_from"] = located(data["scores_from"])
    data["ddpm"]["pretrained"] = located(data["ddpm"]["pretrained"])
    for key in {"icons", "source"} & set(data["images"]):
        data["images"][key] = located(data["images"][key])
    for classifier in data["classifiers"].values():
        classifier["pretrained"] = located_source(classifier["pretrained"])

SETUPS = checked("setups")
UNGUIDED = next((name for name, row in SETUPS.items() if "guidance" not in row), None)
AUTHORS = checked("authors_weights")
DATASETS = config["run_datasets"]
refuse(
    f"run_datasets: no {name!r} under datasets; use one of {', '.join(config['datasets'])}"
    for name in DATASETS
    if name not in config["datasets"]
)


# Repeated training runs of guiding classifiers: one setup and one classifier each, named NAME~NUMBER.
AGAIN = "~"
for number in range(2, 1 + max((config["datasets"][name]["repeats"] for name in DATASETS), default=1)):
    for name, row in [(name, row) for name, row in SETUPS.items() if "guidance" in row and AGAIN not in name]:
        SETUPS[f"{name}{AGAIN}{number}"] = {**row, "classifier": f"{row['classifier']}{AGAIN}{number}"}
    for data in config["datasets"].values():
        classifiers = data["classifiers"]
        for name in [name for name in classifiers if AGAIN not in name]:
            classifiers[f"{name}{AGAIN}{number}"] = {
                **classifiers[name],
                "seed": classifiers[name].get("seed", 0) + number - 1,
            }
