# Inputs and options of single jobs, derived from the config and the wildcards.
from types import SimpleNamespace

LEAST_TRIAL = 48  # samples per trial of a search for scales; more if `n_tuning` is more
INCEPTION = config["inception_weights"] or "<downloads>/pt_inception-2015-12-05-6726825d.pth"


def image_sources(wildcards):
    """Input files of a data set: the user's icons, or a download if it names no folder."""
    kind, images = settings(wildcards)["kind"], settings(wildcards)["images"]
    source = images.get("source")
    if kind == "celeba" and not source:
        return ["<downloads>/celeba/list_attr_celeba.txt"]
    if kind == "torchvision" and not source:
        return [torchvision_record(images)]
    if kind == "hub" and not Path(source).is_dir():
        return [hub_record("dataset", source)]
    icons = images.get("icons")
    return sorted(map(str, Path(icons).glob("*.[pP][nN][gG]"))) if icons else []


def torchvision_options(wildcards):
    """The arguments of the torchvision data set with this record."""
    every = [data["images"] for data in config["datasets"].values() if data["kind"] == "torchvision"]
    place = f"<downloads>/torchvision/{wildcards.place}.json"
    given = next(each.get("arguments") for each in every if torchvision_record(each) == place)
    return flags({"arguments": given or None})


def image_settings(wildcards, input):
    """The section `images`, with the folder of the download, if any."""
    images = settings(wildcards)["images"]
    downloaded = {"source": str(Path(input[0]).parent)} if input and not images.get("icons") else {}
    return as_json({**images, **downloaded})


def classifier_sources(wildcards):
    """Input of a classifier's import: the authors' file, or a local file of weights."""
    source = settings(wildcards)["classifiers"].get(wildcards.role, {}).get("pretrained")
    if not source:
        return [f"<downloads>/authors/{wildcards.dataset}/{wildcards.role}.safetensors"]
    path = next(iter(source.values()), None) or {}
    return [path["path"]] if "path" in path else []


def ddpm_sources(wildcards):
    """Input of a DDPM's import; none for a user's folder."""
    data = settings(wildcards)
    if not data["ddpm"]["pretrained"]:
        return [f"<downloads>/authors/{wildcards.dataset}/ddpm.safetensors"]
    folder = Path(data["ddpm"]["pretrained"]).is_dir()
    return [] if folder else [hub_record("model", data["ddpm"]["pretrained"])]


def ddpm_import_options(wildcards, input):
    """The source of a DDPM's import, with the architecture for a bare U-Net file."""
    data = settings(wildcards)
    if data["ddpm"]["pretrained"]:
        return flags({"source": Path(input[0]).parent if input else data["ddpm"]["pretrained"]})
    origin = AUTHORS[wildcards.dataset]["ddpm"]
    return flags({"source": input[0], **origin, "unet": data["ddpm"]["unet"], "scheduler": data["scheduler"]})


def needed_downloads(wildcards):
    """All downloads of this run."""
    files = [INCEPTION] if "inception" in config["extractors"] and not config["inception_weights"] else []
    for name in DATASETS:
        data, place = config["datasets"][name], SimpleNamespace(dataset=name)
        files += [] if data["images"].get("icons") else image_sources(place)
        files += ddpm_sources(place) if data["ddpm"]["pretrained"] else []
        if data["weights"] == "authors":
            files += collect("<downloads>/authors/{dataset}/{role}.safetensors", dataset=name, role=AUTHORS[name])
    return files


@cache
def point_options(dataset, setup, scale):
    """Options of `nrcg sample` common to all shards of a point; unguided samples have no guidance."""
    data = config["datasets"][dataset]
    options = {"precision": data["sampling"]["precision"], "seed": config["seed"]}
    options["class_label"] = data["ddpm"]["class_label"]
    if (how := sampling(dataset, setup))["scheduler"] is not None:
        options["scheduler"] = json.dumps(how["scheduler"], sort_keys=True)
    if setup != UNGUIDED:
        options |= {"target": data["target"], "scale": scale, "guidance": guidance(dataset, setup)}
    return flags({**options, "num_inference_steps": how["num_inference_steps"]})


def shard_options(wildcards):
    """Options of `nrcg sample` for a shard."""
    size = settings(wildcards)["sampling"]["shard_size"]
    start = int(wildcards.shard) * size
    stop = min(start + size, n_drawn(wildcards.dataset, wildcards.setup))
    return f"{point_options(wildcards.dataset, wildcards.setup, wildcards.scale)} --start {start} --stop {stop}"


def trace_options(wildcards):
    """Options of `nrcg measure trace` common to all setups."""
    sampling, start = settings(wildcards)["sampling"], first_reported(wildcards.dataset)
    stop = start + min(TRACED, sampling["n_samples"], sampling["n_unconditional"])
    target = flags({"target": settings(wildcards)["target"]})
    return f"{point_options(wildcards.dataset, UNGUIDED, 'none')} {target} --start {start} --stop {stop}"


def trace_guides(wildcards):
    """Guidance by trace file, except for the first trace, which is unguided."""
    return {
        trace_name(setup, scale): {
            "classifier": SETUPS[setup]["classifier"],
            "scale": float(scale),
            "guidance": guidance(wildcards.dataset, setup),
        }
        for setup, scale in traced(wildcards.dataset)[1:]
    }


def trace_files(wildcards, input, output):
    """Options with the trace files, their guidance and the classifiers' folders."""
    files = zip(guiding_classifiers(wildcards.dataset), input.classifiers[:: len(CLASSIFIER)], strict=True)
    folders = {name: str(Path(file).parent) for name, file in files}
    also = {
        f"{output[0]}/{name}": {**guide, "classifier": folders[guide["classifier"]]}
        for name, guide in trace_guides(wildcards).items()
    }
    return flags({"also": also, "out": f"{output[0]}/{trace_name(UNGUIDED, 'none')}"})


def scale_options(wildcards):
    """The options of a setup's shards without the scale, and the number of samples per trial."""
    samples = flags({"samples": max(LEAST_TRIAL, first_reported(wildcards.dataset))})
    return f"{point_options(wildcards.dataset, wildcards.setup, None)} {samples}"


SEARCHED = [(name, setup) for name in DATASETS for setup in searched(name)]


def scale_tables(wildcards):
    """Results of the searches for all setups with scales `auto`."""
    if not SEARCHED:
        raise WorkflowError("find_scales: no setup has the scales `auto`; set them for the setups to search")
    return [f"<run>/{name}/scales/{setup}.csv" for name, setup in SEARCHED]


def extractor_files(dataset, extractor):
    """The files of an extractor's weights, if any."""
    if extractor in config["datasets"][dataset]["classifiers"]:
        return classifier(dataset, extractor)
    return [INCEPTION] if extractor == "inception" else []


def extractor_options(dataset, extractor, files):
    """A registered extractor and its weights: a classifier's folder, a file, or nothing."""
    if extractor in config["datasets"][dataset]["classifiers"]:
        return {"extractor": "classifier", "weights": str(Path(files[0]).parent)}
    return {"extractor": extractor, "weights": str(files[0]) if files else None}


def import_options(wildcards, input):
    """The source of a classifier, from the config or the authors' table, with classes and image size."""
    data = settings(wildcards)
    known = data["classifiers"]  # without the authors' classifiers for figures 1 to 4, named NAME_forward
    given = known[wildcards.role if wildcards.role in known else wildcards.role.removesuffix("_forward")]
    source = given["pretrained"]
    if not source:
        n = len(class_names(wildcards.dataset))
        weights = {"path": str(input[0]), "architecture": given["architecture"], "n_logits": 1 if n == 2 else n}
        source = {"file": {**weights, "prefix": "classifier.", **AUTHORS[wildcards.dataset][wildcards.role]}}
    options = {"source": source, "input": given.get("input"), "outputs": given.get("outputs")}
    return flags({**options, "classes": class_names(wildcards.dataset), "size": data["images"]["size"]})


def also_scored_by(wildcards):
    """Other guiding classifiers of this data set, which also score the unguided samples for comparison."""
    others = set(guiding_classifiers(wildcards.dataset)) - {SETUPS[UNGUIDED]["classifier"]}
    return sorted(others) if wildcards.setup == UNGUIDED else []


def extractor_inputs(wildcards):
    """Input function: the files of the extractors' weights."""
    files = {f"weights_{name}": extractor_files(wildcards.dataset, name) for name in config["extractors"]}
    return {key: found for key, found in files.items() if found}


def extractor_sections(dataset, input):
    """The sources of all extractors."""
    return {name: extractor_options(dataset, name, input.get(f"weights_{name}")) for name in config["extractors"]}


def source(wildcards):
    """The setup whose samples are scored."""
    return UNGUIDED if wildcards.setup == REJECTION else wildcards.setup


def scored_files(wildcards, input):
    """The files that a point is scored by, each extractor's by its name."""
    each = {"features": input.features, "reference": input.references}
    pairs = {key: [f"{name}={file}" for name, file in zip(config["extractors"], files)] for key, files in each.items()}
    return flags({**pairs, "verdicts": input.verdicts, "card": input.card or None})
