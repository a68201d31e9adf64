# Names of files and lists of jobs, derived from the config; nothing is run here.
import json
import math
import shlex
from functools import cache
from math import ceil
from pathlib import Path

import pandas as pd
import yaml
from jsonschema import Draft202012Validator, validators
from snakemake.exceptions import WorkflowError


def is_number(_, value):
    """Whether a value is a finite number; YAML has .nan and .inf too."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(_, value):
    """Whether a value was written as a whole number: 320.0 would reach a verb as it is."""
    return isinstance(value, int) and not isinstance(value, bool)


TYPES = Draft202012Validator.TYPE_CHECKER.redefine_many({"number": is_number, "integer": is_integer})
Validator = validators.extend(Draft202012Validator, type_checker=TYPES)


def violations(value, schema, where):
    """What its schema does not allow in a value, a line each that names the key."""
    text = (PROJECT / f"workflow/schemas/{schema}.schema.yaml").read_text(encoding="utf-8")
    for error in Validator(yaml.safe_load(text)).iter_errors(value):
        said = error.message
        if error.validator == "pattern" and "description" in error.schema:
            said = f"{error.instance!r} must be {error.schema['description']}"
        yield f"{'.'.join([where, *map(str, error.path)])}: {said}"


def refuse(problems):
    """End with every problem that was found, a line each; go on where there is none."""
    if lines := list(dict.fromkeys(problems)):
        raise WorkflowError("\n".join(lines))


def read_tsv(key, schema, index):
    """The table that a key of the config names, by the columns `index`; each row is checked by the schema."""
    place = f"{key} ({config[key]})"
    try:
        table = pd.read_csv(config[key], sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise WorkflowError(f"{place}: cannot be read as a table of tab-separated values ({error})")
    rows = table.to_dict("records")
    refuse(line for number, row in enumerate(rows, 2) for line in violations(row, schema, f"{place}, line {number}"))
    refuse(
        f"{place}: {' '.join(map(str, row))} stands there twice"
        for row in table[table.duplicated(index)][index].itertuples(index=False)
    )
    return table.set_index(index, drop=False)


def located(path):
    """A path of the config: `~` is the home directory; what the working directory lacks is the project's own file."""
    if path is None:
        return None
    place = Path(path).expanduser()
    return str(next((found for found in (place, PROJECT / place) if found.exists()), path))


refuse(violations(config, "config", "config"))
for key in ("setups", "paper_results", "style", "inception_weights", "authors_weights"):
    config[key] = located(config[key])
for data in config["datasets"].values():
    data["scores_from"] = located(data.get("scores_from"))
    data["ddpm"]["pretrained"] = located(data["ddpm"]["pretrained"])
    for key in {"icons", "source"} & set(data["images"]):
        data["images"][key] = located(data["images"][key])
    for classifier in data["classifiers"].values():
        classifier["pretrained"] = located(classifier.get("pretrained"))

SETUPS = read_tsv("setups", "setups", ["setup"]).set_index("setup", drop=False)

DATASETS = config["run_datasets"]
refuse(
    f"run_datasets: no {name!r} under datasets; there are {', '.join(config['datasets'])}"
    for name in DATASETS
    if name not in config["datasets"]
)
UNGUIDED = "unconditional"
UNGUIDED_SCORED_BY = "nonrobust"  # the paper's accuracy of unguided samples needs some classifier

RUN = f"results/{config['run']}"
HOME = f"{RUN}/{{dataset}}"
DATA = f"{HOME}/data"
DDPM = f"{HOME}/ddpm"
CLASSIFIER = f"{HOME}/classifiers/{{classifier}}"
FORWARD = f"{HOME}/forward/{{classifier}}_{{on}}.csv"
SHARD = f"{HOME}/samples/{{setup}}/scale_{{scale}}/shard_{{shard}}"
FIRST = f"{HOME}/samples/{{setup}}/scale_{{scale}}/first.npy"
SCORE = f"{HOME}/scores/{{setup}}_scale_{{scale}}.csv"
SCORES = f"{HOME}/scores.csv"
VERDICTS = f"{HOME}/verdicts/{{setup}}_scale_{{scale}}.csv"
REFERENCE = f"{HOME}/references/{{extractor}}_{{part}}.npz"
FIGURE = f"{HOME}/figures/"
LOGS = f"{RUN}/logs/{{dataset}}/"
BENCHMARKS = f"{RUN}/benchmarks/{{dataset}}/"
DOWNLOADS = "results/downloads"  # shared by all runs
PICTURED = 256  # samples of a point that are kept for pictures when its shards are deleted

WATCHING = ("checkpoint_every", "preview_every")  # keys of a training that change no result
MOST_SHARDS = 10_000  # of a point

IMAGE_SET = [f"{DATA}/{name}" for name in ("card.json", "images.npy", "labels.npy", "split.npy")]
CLASSIFIER_FILES = ["model.safetensors", "card.json"]
DDPM_FILES = ["unet/diffusion_pytorch_model.safetensors", "unet/config.json", "scheduler/scheduler_config.json"]


wildcard_constraints:
    dataset="|".join(DATASETS),
    classifier="nonrobust|robust|judge",
    on="xt|x0",
    setup="[A-Za-z0-9_.]+",
    scale="none|[0-9.]+",
    shard="[0-9]+",
    extractor="inception|judge",
    part="all|target",


def settings(wildcards):
    """The config of the wildcards' data set."""
    return config["datasets"][wildcards.dataset]


def flags(options):
    """Config keys as command-line options: `batch_size: 64` is `--batch-size 64`, a list repeats, null is left out.

    In alphabetical order, so that reordering a config makes nothing run again.
    """
    words = []
    for key, value in sorted(options.items()):
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif value is not None:
            for item in value if isinstance(value, list) else [value]:
                words += [option, shlex.quote(str(item))]
    return " ".join(words)


def as_json(value):
    """A config section as one shell word."""
    return shlex.quote(json.dumps(value, sort_keys=True))


@cache  # called for each shard, and a look into a table is slow
def guiding(setup):
    """The classifier that guides a setup, and whose verdict is its accuracy."""
    return UNGUIDED_SCORED_BY if setup == UNGUIDED else SETUPS.loc[setup, "classifier"]


def scales_of(dataset):
    """The guidance scales of each setup that runs; an overlay leaves a setup out by giving it none."""
    return {setup: scales for setup, scales in config["datasets"][dataset]["scales"].items() if scales}


def plain(scale):
    """A scale as it stands in names of files."""
    return f"{scale:g}"


def guided_points(dataset):
    """(setup, scale) of every guided point of a data set, in the order of the setups table."""
    scales = scales_of(dataset)
    return [(setup, plain(scale)) for setup in SETUPS.index if setup in scales for scale in scales[setup]]


def points(dataset):
    """Every point of a data set; the unconditional one has scale `none`."""
    return [(UNGUIDED, "none"), *guided_points(dataset)]


def n_samples(dataset, setup):
    return config["datasets"][dataset]["sampling"]["n_unconditional" if setup == UNGUIDED else "n_samples"]


def n_shards(dataset, setup):
    return ceil(n_samples(dataset, setup) / config["datasets"][dataset]["sampling"]["shard_size"])


def shards(dataset, setup, scale):
    """The sample shards of a point."""
    names = (f"{i:03d}" for i in range(n_shards(dataset, setup)))
    return [f"{SHARD.format(dataset=dataset, setup=setup, scale=scale, shard=name)}.npy" for name in names]


def kept(file):
    """A shard's images: deleted once they were used, unless the config keeps samples."""
    return file if config["keep_samples"] else temp(file)


def first(dataset, setup, scale):
    """The first samples of a point, one shard."""
    return FIRST.format(dataset=dataset, setup=setup, scale=scale)


def shard_range(wildcards):
    """Seeds of a shard: start and stop."""
    size = settings(wildcards)["sampling"]["shard_size"]
    start = int(wildcards.shard) * size
    return start, min(start + size, n_samples(wildcards.dataset, wildcards.setup))


def forward_setups(dataset, classifier=None, on=None):
    """Guided setups of the forward analysis, or of one of its jobs: those that guide by the data set's objective."""
    rows = SETUPS[(SETUPS["objective"] == "default") & (SETUPS["economy"] == "none")]
    rows = rows[rows["setup"].isin(scales_of(dataset))]
    if classifier:
        rows = rows[(rows["classifier"] == classifier) & (rows["on"] == on)]
    return rows


def forward_tables(dataset):
    """The CSV files of all forward jobs of a data set."""
    pairs = forward_setups(dataset)[["classifier", "on"]].drop_duplicates()
    return [FORWARD.format(dataset=dataset, classifier=c, on=on) for c, on in pairs.itertuples(index=False)]


def figure_setups(dataset, figure):
    """Setups whose curves a figure of the forward process shows: figure 4 adds the stabilised ones."""
    rows = forward_setups(dataset)
    return list(rows.index if figure == "4" else rows.index[rows["stabilizer"] == "none"])


def of_kind(kind):
    """Names of the data sets of a kind, as a pattern for wildcards; `(?!)` matches none."""
    return "|".join(name for name in DATASETS if config["datasets"][name]["kind"] == kind) or "(?!)"


def icon_files(dataset):
    """The user's own PNGs, if any."""
    folder = config["datasets"][dataset]["images"]["icons"]
    return sorted(map(str, Path(folder).glob("*.[pP][nN][gG]"))) if folder else []


def class_names(dataset):
    """Classes of a data set: those named, or every PNG of the user's folder."""
    images = config["datasets"][dataset]["images"]
    return images.get("classes") or images["ball"] or [Path(path).stem for path in icon_files(dataset)]


def note(dataset):
    """Small print of a figure: how large the run was."""
    data = config["datasets"][dataset]
    steps, size = data["scheduler"]["num_train_timesteps"], data["images"]["size"]
    n, free = (data["sampling"][key] for key in ("n_samples", "n_unconditional"))
    text = f"{n} guided samples per point, {free} unguided, {size}×{size} pixels, T = {steps}"
    if data["sampling"]["num_inference_steps"] != steps:
        text += f" in {data['sampling']['num_inference_steps']} steps"
    return f"Run “{config['run']}”: {text}."
