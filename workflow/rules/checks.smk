# All that can be known of a config to be wrong, before the first job; every mistake at once.


def beside(*paths):
    """Files and folders of the user's that are not there; (key, path) pairs, a path may be None."""
    for key, path in paths:
        if path and not Path(path).exists():
            yield f"{key}: no such file or folder: {path}"


def attempt(where, function, *args, **kwargs):
    """What the library has against a section of the config, named by its place."""
    from nrcg.errors import NrcgError

    try:
        function(*args, **kwargs)
    except NrcgError as error:
        yield f"{where}: {error}"


def is_hub_id(source):
    """Whether a name is one of a hub repository, `owner/name` or `owner/name@revision`, and not of a folder."""
    parts = source.partition("@")[0].split("/")
    return len(parts) == 2 and parts[0].strip(".~") != "" and all(parts)


def folder_problems(key, source):
    """A folder that is not there, for a key that takes a hub repository too."""
    if source and not Path(source).is_dir() and not is_hub_id(source):
        yield f"{key}: no such folder: {source}; write a folder that is there, or a hub id such as owner/name"


def point_problems(dataset):
    """Setups, scales and the point that figure 9 shows."""
    place, data = f"datasets.{dataset}", config["datasets"][dataset]
    scales = scales_of(dataset)
    for setup in scales:
        if setup not in SETUPS.index or setup == UNGUIDED:
            known = ", ".join(name for name in SETUPS.index if name != UNGUIDED)
            yield f"{place}.scales: no setup {setup!r} in {config['setups']}; there are {known}"
        elif SETUPS.loc[setup, "classifier"] not in data["classifiers"]:
            yield f"{place}.scales.{setup}: needs {place}.classifiers.{SETUPS.loc[setup, 'classifier']}"
        names = [plain(scale) for scale in scales[setup]]
        if len(set(names)) < len(names):
            yield f"{place}.scales.{setup}: two of {', '.join(names)} are the same"
    shown = data["showcase"]
    if plain(shown["scale"]) not in map(plain, scales.get(shown["setup"], [])):
        yield f"{place}.showcase: {shown['setup']} at {shown['scale']} is not among {place}.scales"
    for key, setup in {"n_unconditional": UNGUIDED, "n_samples": "guided"}.items():
        if n_shards(dataset, setup) > MOST_SHARDS:
            yield f"{place}.sampling.{key}: makes more than {MOST_SHARDS} shards per point; raise shard_size"


def guidance_problems():
    """Rows of the setups table that no guidance can be made of."""
    from nrcg.cli.options import parse_economy, parse_stabilizer
    from nrcg.guidance import ClassifierGuidance
    from torch import nn

    if UNGUIDED not in SETUPS.index:
        yield f"setups ({config['setups']}): has no row {UNGUIDED!r}; every figure compares with it"
    for row in SETUPS.itertuples():
        place = f"setups ({config['setups']}): {row.setup}"
        unable = list(attempt(f"{place}: stabilizer", parse_stabilizer, row.stabilizer))
        unable += attempt(f"{place}: economy", parse_economy, row.economy)
        yield from unable or attempt(
            place,
            lambda row: ClassifierGuidance(
                nn.Identity(),
                target=0,
                scale=1.0,
                on=row.on,
                stabilizer=parse_stabilizer(row.stabilizer),
                **parse_economy(row.economy),
            ),
            row,
        )


def data_problems(dataset):
    """The images, and that data set, networks and classes agree as far as files and config tell."""
    from nrcg.datasets.sportballs import check_arguments

    place, data = f"datasets.{dataset}", config["datasets"][dataset]
    images = data["images"]
    yield from beside((f"{place}.scores_from", data["scores_from"]), (f"{place}.images.icons", images.get("icons")))
    if data["kind"] == "celeba":
        yield from beside((f"{place}.images.source", images["source"]))
    if data["kind"] == "celebahq":
        yield from folder_problems(f"{place}.images.source", images["source"])
    if data["kind"] == "sportballs":
        names = {"ball": "balls", "scale": "scales"}
        yield from attempt(
            f"{place}.images", check_arguments, **{names.get(key, key): value for key, value in images.items()}
        )
    if data["target"] not in class_names(dataset):
        yield f"{place}.target: no class {data['target']!r}; classes are {', '.join(class_names(dataset))}"
    if strange := [name for name in class_names(dataset) if not name.isprintable()]:
        yield f"{place}: class {strange[0]!r} has characters that cannot be printed; rename it"
    if data["weights"] == "authors":
        for key, value in AUTHORS_EXPECT[data["kind"]].items():
            if images[key] != value:
                yield f"{place}.images.{key}: the authors' weights need {value}"
    for name in needed_classifiers(dataset):
        yield from classifier_problems(dataset, name)


def classifier_problems(dataset, name):
    """The settings of a training, or a folder of the user's whose classes and architecture must fit."""
    from nrcg.files import read_json
    from nrcg.models.classifier import JUDGES
    from nrcg.training.classifier import ClassifierTraining

    place, section = f"datasets.{dataset}.classifiers.{name}", config["datasets"][dataset]["classifiers"][name]
    folder = section["pretrained"]
    if not folder:
        given = {key: value for key, value in section.items() if key != "pretrained"}
        yield from attempt(place, ClassifierTraining, **given)
        return
    missing = list(beside(*((f"{place}.pretrained", Path(folder, file)) for file in CLASSIFIER_FILES)))
    yield from missing
    if missing:
        return
    problems = list(attempt(f"{place}.pretrained", read_json, Path(folder, "card.json")))
    yield from problems
    card = {} if problems else read_json(Path(folder, "card.json"))
    if not problems and card.get("classes") != class_names(dataset):
        yield f"{place}.pretrained: {folder} knows the classes {card.get('classes')}, not {class_names(dataset)}"
    if not problems and name == "judge" and card.get("architecture") not in JUDGES:
        yield f"{place}.pretrained: {folder} is a {card.get('architecture')}; a judge is one of {', '.join(JUDGES)}"


def ddpm_problems(dataset):
    """The diffusion model: its size, its number of steps, and whether samples can be drawn from it."""
    from nrcg.models.ddpm import build_scheduler, check_sampling, check_unet, load_scheduler
    from nrcg.files import read_json
    from nrcg.training.ddpm import DDPMTraining

    place, data = f"datasets.{dataset}", config["datasets"][dataset]
    ddpm, steps = data["ddpm"], data["sampling"]["num_inference_steps"]
    unable = list(attempt(f"{place}.scheduler", build_scheduler, data["scheduler"]))
    yield from unable
    if not unable:
        scheduler = build_scheduler(data["scheduler"])
        yield from attempt(f"{place}.sampling.num_inference_steps", check_sampling, scheduler, steps)
    yield from folder_problems(f"{place}.ddpm.pretrained", ddpm["pretrained"])
    if ddpm["pretrained"] and Path(ddpm["pretrained"]).is_dir():
        for part in ("unet", "scheduler"):
            folder = Path(ddpm["pretrained"], part)
            folder = folder if folder.is_dir() else Path(ddpm["pretrained"])
            file = folder / ("config.json" if part == "unet" else "scheduler_config.json")
            problems = list(beside((f"{place}.ddpm.pretrained", file)))
            problems = problems or list(attempt(f"{place}.ddpm.pretrained", read_json, file))
            yield from problems
            if not problems and part == "unet":
                yield from size_problems(dataset, f"{place}.ddpm.pretrained", read_json(file))
            if not problems and part == "scheduler":
                own = read_json(file).get("num_train_timesteps", 1000)
                if own != data["scheduler"]["num_train_timesteps"]:
                    yield (
                        f"{place}.scheduler.num_train_timesteps: {data['scheduler']['num_train_timesteps']}, but "
                        f"{ddpm['pretrained']} was trained with {own}"
                    )
                unable = list(attempt(f"{place}.ddpm.pretrained", load_scheduler, folder))
                yield from unable or attempt(
                    f"{place}.sampling.num_inference_steps", check_sampling, load_scheduler(folder), steps
                )
    elif ddpm_is_trained(dataset) and not {"unet", "training"} <= set(ddpm):
        yield f"{place}.ddpm: without `pretrained`, it needs `unet` and `training`"
    elif not ddpm["pretrained"]:
        yield from size_problems(dataset, f"{place}.ddpm.unet", ddpm["unet"])
        yield from attempt(f"{place}.ddpm.unet", check_unet, ddpm["unet"])
    if ddpm_is_trained(dataset) and "training" in ddpm:
        settled = {key: value for key, value in ddpm["training"].items() if key not in WATCHING}
        yield from attempt(f"{place}.ddpm.training", DDPMTraining, **settled)
        if ddpm["training"].get("batch_size", ddpm["gpus"]) % ddpm["gpus"]:
            yield f"{place}.ddpm.gpus: {ddpm['gpus']} do not divide the batch_size {ddpm['training']['batch_size']}"


def size_problems(dataset, where, unet):
    """The U-Net must have the size and the colours of the images."""
    size = config["datasets"][dataset]["images"]["size"]
    found = unet.get("sample_size")
    if found not in (size, [size, size]):
        yield f"{where}: sample_size {found}, but datasets.{dataset}.images.size is {size}; they must be equal"
    for key in ("in_channels", "out_channels"):
        if unet.get(key, 3) != 3:
            yield f"{where}: {key} {unet[key]}, but images have 3 channels"


def problems():
    yield from beside(*((key, config[key]) for key in ("paper_results", "style", "inception_weights")))
    yield from guidance_problems()
    for dataset in DATASETS:
        for find in (point_problems, data_problems, ddpm_problems):
            yield from find(dataset)


if workflow.is_main_process:
    refuse(problems())
