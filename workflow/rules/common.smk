# Points, networks and options of jobs, derived from the config.
import json
import re
from functools import cache
from math import ceil

from nrcg.checks import shown_size
from nrcg.io.files import fingerprint
from nrcg.methods import expanded

IMAGE_SET = [f"<run>/{{dataset}}/data/{name}" for name in ("card.json", "images.npy", "labels.npy", "split.npy")]
CLASSIFIER = ["model.safetensors", "card.json"]
DDPM = ["unet/diffusion_pytorch_model.safetensors", "unet/config.json", "scheduler/scheduler_config.json"]
POINT = "{setup}/scale_{scale}"
FEATURES = [f"<run>/{{dataset}}/features/{POINT}/{name}.npy" for name in config["extractors"]]
REAL = "real"  # the setup with held-out images as samples
REJECTION = "rejection"  # the setup of unguided samples that the guiding classifier accepts
NAMED = f"[A-Za-z0-9_.{AGAIN}]"  # characters of setup names
OF_SAMPLES = f"(?!{REAL}[_/]scale_none){NAMED}+"  # all setups except REAL
PICTURED = 256  # samples per point that are kept for pictures when the shards are deleted
TRACED = 16  # traced samples per setup, the first reported ones
CLASSIFIERS = sorted({re.escape(name) for dataset in DATASETS for name in config["datasets"][dataset]["classifiers"]})
OF_SOURCE = ("pretrained", "input", "outputs")  # keys of a classifier that are not training settings
WATCHING = ("checkpoint_every", "preview_every")  # training settings that change no result


wildcard_constraints:
    dataset="|".join(DATASETS),
    classifier="|".join(CLASSIFIERS),
    on="xt|x0",
    setup=f"{NAMED}+",
    scale="none|[0-9.]+",
    shard="[0-9]+",
    extractor="|".join(config["extractors"]),


def settings(wildcards):
    """The config of the wildcards' data set."""
    return config["datasets"][wildcards.dataset]


def flags(options):
    """Command-line options: `batch_size: 64` is `--batch-size 64`, a list repeats, a mapping is JSON, null is omitted.

    In alphabetical order, so that reordering a config does not rerun jobs.
    """
    words = []
    for key, value in sorted(options.items()):
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif value is not None:
            for item in value if isinstance(value, list) else [value]:
                words += [option, as_json(item) if isinstance(item, dict) else shlex.quote(str(item))]
    return " ".join(words)


def as_json(value, sort_keys=True):
    """A config section as one shell word."""
    return shlex.quote(json.dumps(value, sort_keys=sort_keys, ensure_ascii=False))


def section(dpath, *but):
    """Params function: a section of the data set's config as JSON, without the keys `but`."""
    found = lookup(dpath=f"datasets/{{dataset}}/{dpath}", within=config)
    return lambda wildcards: as_json({key: value for key, value in found(wildcards).items() if key not in but})


def machine(chosen=lambda data: {}):
    """Params function: options that change no result, such as `--device`, `--threads` and those of `chosen`.

    Because of the argument `threads`, Snakemake does not compare its result with the last run and reruns nothing.
    """
    common = {"device": config["device"], "module": config["modules"]}
    return lambda wildcards, threads: flags({**common, "threads": threads, **chosen(settings(wildcards))})


def folder(name, up=0):
    """Params function: the folder of the first input file `name`, or the folder `up` levels higher."""
    return lambda wildcards, input: Path(input[name][0]).parents[up] if input.get(name) else ""


def plain(scale):
    """A scale as in file names."""
    return f"{scale:g}"


def scales_of(dataset):
    """The guidance scales of each setup to run; an overlay can disable a setup with an empty list."""
    given = config["datasets"][dataset]["scales"]
    return {setup: scales for setup, scales in given.items() if scales and scales != "auto"}


def searched(dataset):
    """The setups with scales to be found by the target `find_scales`."""
    return [setup for setup, scales in config["datasets"][dataset]["scales"].items() if scales == "auto"]


def sampling(dataset, setup):
    """The sampling settings of a setup: the data set's, overridden by its own."""
    return config["datasets"][dataset]["sampling"] | SETUPS[setup].get("sampling", {})


def points(dataset):
    """(setup, scale) of every point of a data set; the unguided one comes first, with scale `none`."""
    scales = scales_of(dataset)
    return [(UNGUIDED, "none"), *((setup, plain(s)) for setup in SETUPS if setup in scales for s in scales[setup])]


def traced(dataset):
    """(setup, scale) of each trace: the showcase's scale, and for other setups the middle scale.

    A single job draws all traces, so setups with separate sampling settings have none.
    """
    shown = config["datasets"][dataset]["showcase"]
    scales = {name: grid for name, grid in scales_of(dataset).items() if "sampling" not in SETUPS[name]}
    chosen = {setup: middle(grid) for setup, grid in scales.items()} | {shown["setup"]: shown["scale"]}
    return [(UNGUIDED, "none"), *((setup, plain(chosen[setup])) for setup in SETUPS if setup in scales)]


def trace_name(setup, scale):
    return f"{setup}_scale_{scale}.npy"


def trainings(dataset, setup):
    """The names of a setup, one per training run of its classifier; a single one if it is not trained here."""
    name = SETUPS[setup]["classifier"]
    repeats = config["datasets"][dataset]["repeats"] if setup != UNGUIDED and is_trained(dataset, name) else 1
    return [setup, *(f"{setup}{AGAIN}{i}" for i in range(2, repeats + 1))]


def scored(dataset):
    """(setup's name in files, scale, setup, training run) of everything scored: all points and their two references."""
    return [
        *((setup, "none", setup, 1) for setup in (REAL, REJECTION)),
        *(
            (name, scale, setup, i)
            for setup, scale in points(dataset)
            for i, name in enumerate(trainings(dataset, setup), 1)
        ),
    ]


def kept(file):
    """Features of samples: kept if configured, so that a new metric needs no new samples."""
    return file if config["keep_features"] else temp(file)


def first_reported(dataset):
    """The seed of the first reported sample; earlier ones are for choosing scales."""
    return config["datasets"][dataset]["sampling"]["n_tuning"]


def n_samples(dataset, setup):
    """Number of reported samples per point."""
    return config["datasets"][dataset]["sampling"]["n_unconditional" if setup == UNGUIDED else "n_samples"]


def n_drawn(dataset, setup):
    """Number of samples per point, including those for choosing scales."""
    return first_reported(dataset) + n_samples(dataset, setup)


def n_shards(dataset, setup):
    return ceil(n_drawn(dataset, setup) / config["datasets"][dataset]["sampling"]["shard_size"])


def guiding_classifiers(dataset):
    """The guiding classifiers of this data set, first training runs only."""
    return sorted({SETUPS[setup]["classifier"] for setup in scales_of(dataset)})


def judge(dataset):
    """The classifier that scores samples; it should not guide."""
    return config["datasets"][dataset]["judge"]


def needed_classifiers(dataset):
    """The classifiers of this run, the judge last."""
    needed = {*guiding_classifiers(dataset), SETUPS[UNGUIDED]["classifier"]}
    needed |= set(config["extractors"]) & set(config["datasets"][dataset]["classifiers"])
    return [*sorted(needed - {judge(dataset)}), judge(dataset)]


def by_authors(dataset, role):
    """Whether a role uses the authors' released weights, which have no judge and no DDPM for CelebA-HQ."""
    return config["datasets"][dataset]["weights"] == "authors" and role in AUTHORS.get(dataset, {})


def classifier_folder(dataset, name, forward=False):
    """A classifier's folder: the user's, imported (figures 1 to 4 of SportBalls use other weights), or trained here."""
    if pretrained := config["datasets"][dataset]["classifiers"][name]["pretrained"]:
        return pretrained if isinstance(pretrained, str) else f"<run>/{dataset}/imported/{name}"
    if not by_authors(dataset, name):
        return f"<run>/{dataset}/classifiers/{name}"
    other = f"{name}_forward"
    return f"<run>/{dataset}/imported/{other if forward and by_authors(dataset, other) else name}"


def classifier(dataset, name, forward=False):
    """Weights and card of a classifier."""
    return [f"{classifier_folder(dataset, name, forward)}/{file}" for file in CLASSIFIER]


def is_trained(dataset, name):
    """Whether a classifier is trained here."""
    return not (config["datasets"][dataset]["classifiers"][name]["pretrained"] or by_authors(dataset, name))


def ddpm_is_trained(dataset):
    return not config["datasets"][dataset]["ddpm"]["pretrained"] and not by_authors(dataset, "ddpm")


@cache
def ddpm(dataset):
    """The DDPM's files: trained here, the user's, or imported (another layout, the hub, or the authors)."""
    folder = config["datasets"][dataset]["ddpm"]["pretrained"]
    if not (folder and all(Path(folder, file).is_file() for file in DDPM)):
        folder = f"<run>/{dataset}/{'ddpm' if ddpm_is_trained(dataset) else 'imported/ddpm'}"
    return [f"{folder}/{file}" for file in DDPM]


def hub_record(repo_type, source):
    """The last file of a download of the hub repository `owner/name` or `owner/name@revision`."""
    return f"<downloads>/{repo_type}s/{'--'.join(Path(source).parts)}/download.json"


def torchvision_record(images):
    """The last file of a torchvision download; downloads with arguments have separate folders."""
    folder = f"torchvision/{fingerprint(**images['arguments'])}" if images.get("arguments") else "torchvision"
    return f"<downloads>/{folder}/{images['name']}.json"


def guidance(dataset, setup):
    """The arguments of a setup's guidance; the default objective is its method's, or else the data set's."""
    row = SETUPS[setup]["guidance"]
    slots = {} if row.get("method") is None else expanded({"method": row["method"]})
    return row if "objective" in slots else {"objective": config["datasets"][dataset]["objective"], **row}


def seen_by(setup):
    """The input of a setup's classifier: x_t or x̂_0."""
    return SETUPS[setup]["guidance"].get("on", "x0")


def forward_setups(dataset, classifier=None, on=None):
    """Setups of the forward analysis, or of one of its jobs: those with full guidance by the data set's objective."""
    return [
        setup
        for setup in SETUPS
        if setup in scales_of(dataset)
        and SETUPS[setup]["guidance"].keys() <= {"on", "stabilizer"}
        and (classifier is None or (SETUPS[setup]["classifier"], seen_by(setup)) == (classifier, on))
    ]


@cache
def class_names(dataset):
    """Classes of a data set, in the order of the labels."""
    from nrcg.datasets import check_images

    data = config["datasets"][dataset]
    return check_images(data["kind"], data["images"])
