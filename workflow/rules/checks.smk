# All that can be known of a config to be wrong, before the first job; every mistake at once.
import os
from contextlib import contextmanager

PROBLEMS = []


@contextmanager
def noted(where):
    """Note what the library refuses inside, with the place of the config that it is about, and go on."""
    from nrcg.errors import NrcgError

    try:
        yield
    except NrcgError as error:
        PROBLEMS.append(f"{where}: {error}")


def wrong(where, reason):
    PROBLEMS.append(f"{where}: {reason}")


def check_place(key, path):
    """A file or folder of the user's; None is none."""
    if path and not Path(path).exists():
        wrong(key, f"no such file or folder: {path}")


def check_source(key, source):
    """A folder or a hub repository, `owner/name` or `owner/name@revision`; None is neither."""
    is_hub_id = source and len(Path(source.partition("@")[0]).parts) == 2 and not source.startswith((".", "~", os.sep))
    if source and not Path(source).is_dir() and not is_hub_id:
        wrong(key, f"no such folder: {source}; write a folder that is there, or a hub id such as owner/name")


def check_setups():
    """Each row of the setups table must make a guidance."""
    from nrcg.cli.options import parse_economy, parse_stabilizer
    from nrcg.guidance import ClassifierGuidance
    from torch import nn

    table = f"setups ({config['setups']})"
    if UNGUIDED not in SETUPS.index:
        wrong(table, f"has no row {UNGUIDED!r}; every figure compares with it")
    for row in SETUPS.itertuples():
        with noted(f"{table}: {row.setup}: stabilizer {row.stabilizer}, economy {row.economy}"):
            how = {"stabilizer": parse_stabilizer(row.stabilizer), **parse_economy(row.economy)}
            ClassifierGuidance(nn.Identity(), target=0, scale=1.0, on=row.on, **how)


def check_points(place, dataset, data):
    """Setups, scales, counts and the point that figure 9 shows."""
    scales = scales_of(dataset)
    for setup in scales:
        if setup not in SETUPS.index or setup == UNGUIDED:
            known = ", ".join(name for name in SETUPS.index if name != UNGUIDED)
            wrong(f"{place}.scales", f"no setup {setup!r} in {config['setups']}; there are {known}")
        elif SETUPS.loc[setup, "classifier"] not in data["classifiers"]:
            wrong(f"{place}.scales.{setup}", f"needs {place}.classifiers.{SETUPS.loc[setup, 'classifier']}")
        for scale in scales[setup]:
            if float(plain(scale)) != scale:
                wrong(f"{place}.scales.{setup}", f"{scale!r} has more than six digits; round it")
    shown = data["showcase"]
    if plain(shown["scale"]) not in map(plain, scales.get(shown["setup"], [])):
        wrong(f"{place}.showcase", f"{shown['setup']} at {shown['scale']} is not among {place}.scales")
    for key, setup in {"n_unconditional": UNGUIDED, "n_samples": "guided"}.items():
        if n_shards(dataset, setup) > MOST_SHARDS:
            wrong(f"{place}.sampling.{key}", f"makes more than {MOST_SHARDS} shards per point; raise shard_size")


def check_images(place, dataset, data):
    """Images and classes."""
    from nrcg.datasets.sportballs import check_arguments

    images, classes = data["images"], class_names(dataset)
    check_place(f"{place}.scores_from", data["scores_from"])
    check_place(f"{place}.images.icons", images.get("icons"))
    if data["kind"] == "celeba":
        check_place(f"{place}.images.source", images["source"])
    if data["kind"] == "celebahq":
        check_source(f"{place}.images.source", images["source"])
    if data["kind"] == "sportballs":
        names = {"ball": "balls", "scale": "scales"}
        with noted(f"{place}.images"):
            check_arguments(**{names.get(key, key): value for key, value in images.items()})
    if data["target"] not in classes:
        wrong(f"{place}.target", f"no class {data['target']!r}; classes are {', '.join(classes)}")
    if strange := [name for name in classes if not name.isprintable()]:
        wrong(place, f"class {strange[0]!r} has characters that cannot be printed; rename it")
    if data["weights"] == "authors":
        for key, value in AUTHORS_EXPECT[data["kind"]].items():
            if images[key] != value:
                wrong(f"{place}.images.{key}", f"the authors' weights need {value}")


def check_classifier(place, dataset, name, section):
    """The settings of a training, or a folder of the user's, whose classes, size and architecture must fit."""
    from nrcg.io.files import read_card
    from nrcg.models.classifier import JUDGES
    from nrcg.training.settings import ClassifierTraining

    folder, place = section["pretrained"], f"{place}.classifiers.{name}"
    if not folder:
        with noted(place):
            ClassifierTraining(**{key: value for key, value in section.items() if key != "pretrained"})
        return
    place = f"{place}.pretrained"
    check_place(place, Path(folder, "model.safetensors"))
    with noted(place):
        card = read_card(Path(folder, "card.json"), classes=list, architecture=str)
        if card["classes"] != class_names(dataset):
            wrong(place, f"{folder} knows the classes {card['classes']}, not {class_names(dataset)}")
        size = config["datasets"][dataset]["images"]["size"]
        if card.get("size", size) != size:
            wrong(place, f"{folder} was trained on images of {card['size']} pixels, not {size}")
        if name == "judge" and card["architecture"] not in JUDGES:
            wrong(place, f"{folder} is a {card['architecture']}; a judge is one of {', '.join(JUDGES)}")


def check_ddpm(place, dataset, data):
    """The diffusion model: its size, its number of steps, and whether samples can be drawn from it."""
    from nrcg.io.files import read_card
    from nrcg.models.ddpm import build_scheduler, check_sampling, check_unet, load_scheduler
    from nrcg.training.settings import DDPMTraining

    ddpm, steps, total = data["ddpm"], data["sampling"]["num_inference_steps"], data["scheduler"]["num_train_timesteps"]
    with noted(f"{place}.scheduler"):
        scheduler = build_scheduler(data["scheduler"])
        with noted(f"{place}.sampling.num_inference_steps"):
            check_sampling(scheduler, steps)
    pretrained, place = ddpm["pretrained"], f"{place}.ddpm"
    if pretrained:
        check_source(f"{place}.pretrained", pretrained)
        if Path(pretrained).is_dir():
            with noted(f"{place}.pretrained"):
                check_size(f"{place}.pretrained", data, read_card(ddpm_part(pretrained, "unet") / "config.json"))
            with noted(f"{place}.pretrained"):
                scheduler = load_scheduler(ddpm_part(pretrained, "scheduler"))
                check_sampling(scheduler, steps)
                if scheduler.config.num_train_timesteps != total:
                    own = scheduler.config.num_train_timesteps
                    wrong(f"{place}.pretrained", f"trained with {own} timesteps; num_train_timesteps is {total}")
    elif ddpm_is_trained(dataset) and not {"unet", "training"} <= set(ddpm):
        wrong(place, "without `pretrained`, it needs `unet` and `training`")
    else:
        check_size(f"{place}.unet", data, ddpm["unet"])
        with noted(f"{place}.unet"):
            check_unet(ddpm["unet"])
        with noted(f"{place}.training"):
            DDPMTraining(**{key: value for key, value in ddpm["training"].items() if key not in WATCHING})
        if ddpm["training"].get("batch_size", ddpm["gpus"]) % ddpm["gpus"]:
            wrong(f"{place}.gpus", f"{ddpm['gpus']} do not divide the batch_size {ddpm['training']['batch_size']}")


def ddpm_part(folder, name):
    """Where a DDPM's folder keeps its U-Net or its scheduler: some keep both at the root."""
    return Path(folder, name) if Path(folder, name).is_dir() else Path(folder)


def check_size(where, data, unet):
    """The U-Net must have the size and the colours of the images."""
    from nrcg.models.ddpm import takes_images

    size, found = data["images"]["size"], unet.get("sample_size")
    if not takes_images(found, size):
        wrong(where, f"sample_size {found}, but images.size is {size}; they must be equal")
    for key in ("in_channels", "out_channels"):
        if unet.get(key, 3) != 3:
            wrong(where, f"{key} {unet[key]}, but images have 3 channels")


def check_config():
    for key in ("paper_results", "style", "inception_weights"):
        check_place(key, config[key])
    check_setups()
    for dataset in DATASETS:
        place, data = f"datasets.{dataset}", config["datasets"][dataset]
        for check in (check_points, check_images, check_ddpm):
            check(place, dataset, data)
        for name in [] if PROBLEMS else needed_classifiers(dataset):
            check_classifier(place, dataset, name, data["classifiers"][name])
    refuse(PROBLEMS)


if workflow.is_main_process:
    check_config()
