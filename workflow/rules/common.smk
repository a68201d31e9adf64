# Names of files and lists of jobs, derived from the config; nothing is run here.
import json
import shlex
from functools import cache
from math import ceil
from pathlib import Path

import pandas as pd
import yaml
from jsonschema import Draft202012Validator
from snakemake.exceptions import WorkflowError


def check(value, schema, where):
    """Refuse a value that its schema does not allow, in one line that names the key."""
    validator = Draft202012Validator(
        yaml.safe_load(Path(workflow.basedir, f"workflow/schemas/{schema}.schema.yaml").read_text())
    )
    for error in validator.iter_errors(value):
        raise WorkflowError(f"{where}: {'.'.join(map(str, error.path)) or 'top level'}: {error.message}")


check(config, "config", "config")
SETUPS = pd.read_csv(config["setups"], sep="\t", dtype=str, keep_default_na=False)
for row in SETUPS.to_dict("records"):
    check(row, "setups", f"{config['setups']}: setup {row.get('setup')}")
SETUPS = SETUPS.set_index("setup", drop=False)

DATASETS = config["run_datasets"]
if unknown := [name for name in DATASETS if name not in config["datasets"]]:
    raise WorkflowError(f"run_datasets: no {unknown[0]!r} under datasets; there are {', '.join(config['datasets'])}")
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

IMAGE_SET = [f"{DATA}/{name}" for name in ("card.json", "images.npy", "labels.npy", "split.npy")]
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


wildcard_constraints:
    dataset="|".join(DATASETS),
    classifier="nonrobust|robust|judge",
    on="xt|x0",
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


def guided_points(dataset):
    """(setup, scale) of every guided point of a data set, in the order of the setups table."""
    scales = scales_of(dataset)
    if unknown := [setup for setup in scales if setup not in SETUPS.index or setup == UNGUIDED]:
        known = ", ".join(SETUPS.index.drop(UNGUIDED))
        raise WorkflowError(f"datasets.{dataset}.scales: unknown setup {unknown[0]!r}; {config['setups']} has {known}")
    return [(setup, f"{scale:g}") for setup in SETUPS.index if setup in scales for scale in scales[setup]]


def points(dataset):
    """Every point of a data set; the unconditional one has scale `none`."""
    return [(UNGUIDED, "none"), *guided_points(dataset)]


def n_samples(dataset, setup):
    return config["datasets"][dataset]["sampling"]["n_unconditional" if setup == UNGUIDED else "n_samples"]


def shards(dataset, setup, scale, first=None):
    """The sample shards of a point, or only those that hold its `first` samples."""
    n = min(first or n_samples(dataset, setup), n_samples(dataset, setup))
    count = ceil(n / config["datasets"][dataset]["sampling"]["shard_size"])
    stem = [SHARD.format(dataset=dataset, setup=setup, scale=scale, shard=f"{i:03d}") for i in range(count)]
    return [f"{name}.npy" for name in stem]


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


def has_forward(dataset):
    """Whether the forward process is analysed (figures 1 to 4)."""
    return "forward" in config["datasets"][dataset]


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
    text = f"{n} guided samples a point, {free} unconditional, of {size}×{size}, T = {steps}"
    if data["sampling"]["num_inference_steps"] != steps:
        text += f" in {data['sampling']['num_inference_steps']} steps"
    return f"run “{config['run']}”: {text}"


for name in DATASETS:
    shown = config["datasets"][name]["showcase"]
    if (shown["setup"], f"{shown['scale']:g}") not in guided_points(name):
        raise WorkflowError(f"datasets.{name}.showcase: {shown['setup']} at {shown['scale']} is not among the scales")
    if config["datasets"][name]["target"] not in class_names(name):
        raise WorkflowError(
            f"datasets.{name}.target: no class {config['datasets'][name]['target']!r}; "
            f"classes are {', '.join(class_names(name))}"
        )
    for setup, _ in guided_points(name):
        if SETUPS.loc[setup, "classifier"] not in config["datasets"][name]["classifiers"]:
            raise WorkflowError(f"datasets.{name}.scales.{setup}: needs datasets.{name}.classifiers.robust")
