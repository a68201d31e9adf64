# Checks of the config before the first job; all mistakes are reported at once. The library functions that a section
# configures check its content.
from contextlib import contextmanager

from nrcg.runtime.imports import hide_transformers, show_transformers

PROBLEMS = []
LEAST_SCALE = 0.0001  # smaller scales would need an exponent in file names
MOST_SHARDS = 10_000  # per point
AUTHORS_EXPECT = {  # settings that the released weights need, by data set
    "celeba": {"size": 64, "attribute": "Male"},
    "sportballs": {"size": 64, "ball": ["baseball", "basketball", "volleyball", "soccer"]},
    "celebahq": {"size": 256},
}


@contextmanager
def noted(where):
    """Record the library's errors inside, with their place in the config, and continue."""
    from nrcg.errors import NrcgError

    try:
        yield
    except NrcgError as error:
        PROBLEMS.append(f"{where}: {error}")


def wrong(where, reason):
    PROBLEMS.append(f"{where}: {reason}")


def check_place(key, path):
    """Check that a user's file or folder exists; None is allowed."""
    if path and not Path(path).exists():
        wrong(key, f"no such file or folder: {path}")


def check_setups():
    """Each row must be valid guidance, except one row without guidance."""
    from nrcg.guidance import guidance_from
    from torch import nn

    place = f"setups ({config['setups']})"
    free = [name for name, row in SETUPS.items() if "guidance" not in row]
    if len(free) != 1:
        wrong(
            place, f"{len(free)} rows without guidance; every figure compares with one, {UNGUIDED or 'unconditional'}"
        )
    for name in {REAL, REJECTION} & set(SETUPS):
        wrong(place, f"{name!r} is reserved for a row of the scores; rename this setup")
    for name, row in SETUPS.items():
        with noted(place):
            guidance_from(row.get("guidance", {}), nn.ReLU(), target=0, scale=1.0, where=name)
    for role, setup in config["roles"].items():
        if setup not in SETUPS:
            wrong(f"roles.{role}", f"no setup {setup!r} in {config['setups']}; use one of {', '.join(SETUPS)}")


def check_points(place, dataset, data):
    """Setups, scales, counts and the point of figure 9."""
    scales = scales_of(dataset)
    for setup in scales:
        if setup not in SETUPS or setup == UNGUIDED:
            known = ", ".join(name for name in SETUPS if name != UNGUIDED and AGAIN not in name)
            wrong(f"{place}.scales", f"no setup {setup!r} in {config['setups']}; use one of {known}")
        elif SETUPS[setup]["classifier"] not in data["classifiers"]:
            wrong(f"{place}.scales.{setup}", f"needs {place}.classifiers.{SETUPS[setup]['classifier']}")
        for scale in scales[setup]:
            if float(plain(scale)) != scale:
                wrong(f"{place}.scales.{setup}", f"{scale!r} has more than six digits; round it")
            elif 0 < scale < LEAST_SCALE:
                wrong(f"{place}.scales.{setup}", f"{scale!r} is below {LEAST_SCALE}; raise it, or write 0 for unguided")
    if UNGUIDED and SETUPS[UNGUIDED]["classifier"] not in data["classifiers"]:
        wrong(f"{place}.classifiers", f"no {SETUPS[UNGUIDED]['classifier']!r}, which scores {UNGUIDED} samples")
    for setup in searched(dataset):
        if setup not in SETUPS or setup == UNGUIDED:
            wrong(f"{place}.scales", f"no setup {setup!r} in {config['setups']}")
    shown = data["showcase"]
    if shown["setup"] not in searched(dataset) and plain(shown["scale"]) not in map(
        plain, scales.get(shown["setup"], [])
    ):
        wrong(f"{place}.showcase", f"{shown['setup']} at {shown['scale']} is not among {place}.scales")
    for key, setup in {"n_unconditional": UNGUIDED, "n_samples": "guided"}.items():
        if n_shards(dataset, setup) > MOST_SHARDS:
            wrong(f"{place}.sampling.{key}", f"needs more than {MOST_SHARDS} shards per point; raise shard_size")


def check_images(place, dataset, data):
    """Images, classes and the target."""
    images = data["images"]
    check_place(f"{place}.scores_from", data["scores_from"])
    with noted(f"{place}.images"):
        classes = class_names(dataset)
        if data["target"] not in classes:
            wrong(f"{place}.target", f"no class {data['target']!r}; classes are {', '.join(classes)}")
        if strange := [name for name in classes if not name.isprintable()]:
            wrong(place, f"class {strange[0]!r} has unprintable characters; rename it")
    if data["weights"] == "authors":
        if dataset not in AUTHORS:
            wrong(f"{place}.weights", f"no {dataset!r} in {config['authors_weights']}; write own, or add its files")
        for key, value in AUTHORS_EXPECT.get(dataset, {}).items():
            if images.get(key) != value:
                wrong(f"{place}.images.{key}", f"the authors' weights need {value}")


def check_classifier(place, dataset, name, given):
    """Training settings, a source, or a user's folder with fitting classes and image size."""
    from nrcg.io.files import read_card
    from nrcg.models.ddpm import takes_images
    from nrcg.models.sources import check_source
    from nrcg.registry import call
    from nrcg.training.settings import ClassifierTraining

    folder, place = given["pretrained"], f"{place}.classifiers.{name}"
    with noted(place):
        training = {key: value for key, value in given.items() if key not in OF_SOURCE}
        call(ClassifierTraining, "classifier training", training)
    if isinstance(folder, dict):
        with noted(place):
            check_source(folder, class_names(dataset), given.get("outputs"))
        return
    for key in OF_SOURCE[1:]:
        if given.get(key) is not None:
            wrong(f"{place}.{key}", "only for a classifier whose `pretrained` names a source; remove it")
    if not folder:
        return
    place = f"{place}.pretrained"
    check_place(place, Path(folder, "model.safetensors"))
    with noted(place):
        card = read_card(Path(folder, "card.json"), classes=list, architecture=(str, dict))
        if card["classes"] != class_names(dataset):
            wrong(place, f"{folder} has the classes {card['classes']}, not {class_names(dataset)}")
        size = config["datasets"][dataset]["images"]["size"]
        if not takes_images(card.get("size", size), size):
            wrong(place, f"{folder} was trained on images of {card['size']} pixels, not {size}")


def check_ddpm(place, dataset, data):
    """The diffusion model: image size, number of steps, and whether it can sample."""
    from nrcg.diffusion.steps import FIXED, LEARNED, set_timesteps
    from nrcg.io.files import read_card
    from nrcg.io.hub import HUB_ID
    from nrcg.models.ddpm import build_scheduler, check_channels, check_unet, load_scheduler, sampling_scheduler
    from nrcg.registry import call
    from nrcg.training.settings import DDPMTraining

    model, steps, total = (
        data["ddpm"],
        data["sampling"]["num_inference_steps"],
        data["scheduler"]["num_train_timesteps"],
    )
    with noted(f"{place}.scheduler"):
        scheduler = build_scheduler(data["scheduler"])
        if scheduler.config.variance_type in LEARNED:
            wrong(
                f"{place}.scheduler.variance_type",
                f"{scheduler.config.variance_type}: cannot be learned here; use one of {', '.join(FIXED)}",
            )
        own = {f"{config['setups']}: {name}": name for name in scales_of(dataset) if "sampling" in SETUPS.get(name, {})}
        for where, setup in {place: UNGUIDED, **own}.items():
            if setup in SETUPS:
                how = sampling(dataset, setup)
                with noted(f"{where}.sampling.scheduler"):
                    sampler, options = sampling_scheduler(scheduler, how["scheduler"])
                    with noted(f"{where}.sampling.num_inference_steps"):
                        set_timesteps(sampler, how["num_inference_steps"], options.get("timesteps"))
    pretrained, place = model["pretrained"], f"{place}.ddpm"
    if pretrained:
        if not (Path(pretrained).is_dir() or HUB_ID.fullmatch(pretrained)):
            wrong(
                f"{place}.pretrained",
                f"no such folder: {pretrained}; give an existing folder, or a hub id such as owner/name",
            )
        if Path(pretrained).is_dir():
            with noted(f"{place}.pretrained"):
                unet = read_card(ddpm_part(pretrained, "unet") / "config.json")
                check_unets_images(f"{place}.pretrained", dataset, unet)
                scheduler = load_scheduler(ddpm_part(pretrained, "scheduler"))
                set_timesteps(scheduler, steps)
                if scheduler.config.num_train_timesteps != total:
                    own = scheduler.config.num_train_timesteps
                    wrong(f"{place}.pretrained", f"trained with {own} timesteps; num_train_timesteps is {total}")
                check_channels("unet", unet, scheduler.config.variance_type)
    elif ddpm_is_trained(dataset) and not (model["unet"] and model["training"]):
        wrong(place, "needs `unet` and `training`, or `pretrained`")
    else:
        check_unets_images(f"{place}.unet", dataset, model["unet"])
        with noted(f"{place}.unet"):
            check_unet(model["unet"])
        with noted(f"{place}.training"):
            training = {key: value for key, value in model["training"].items() if key not in WATCHING}
            batch = call(DDPMTraining, "DDPM training", training).batch_size
            if batch % model["gpus"]:
                wrong(f"{place}.gpus", f"{model['gpus']} do not divide the batch_size {batch}")


def ddpm_part(folder, name):
    """The folder of a DDPM's U-Net or scheduler; some DDPMs have both at the root."""
    return Path(folder, name) if Path(folder, name).is_dir() else Path(folder)


def check_unets_images(where, dataset, unet):
    """The U-Net must fit the image size, the classifiers' noise channels, and the class label."""
    from nrcg.models.ddpm import takes_images

    data, place = config["datasets"][dataset], f"datasets.{dataset}"
    size, found, channels = data["images"]["size"], unet.get("sample_size"), unet.get("in_channels", 3)
    if not takes_images(found, size):
        wrong(where, f"sample_size {found}, but images.size is {size}; they must be equal")
    for name, given in data["classifiers"].items():
        if is_trained(dataset, name) and given.get("channels", 3) != channels:
            wrong(f"{place}.classifiers.{name}.channels", f"the U-Net has {channels}; they must be equal")
    told = data["ddpm"]["class_label"] is not None
    if bool(unet.get("num_class_embeds") or unet.get("class_embed_type")) != told:
        wrong(f"{place}.ddpm.class_label", "not used by this U-Net; remove it" if told else "this U-Net needs one")


def check_extractors(place, dataset, data):
    """The judge, the extractors (registered ones or classifiers of the data set), the metrics, and the repeats."""
    from nrcg.evaluation.extractors import extractors
    from nrcg.evaluation.metrics import metrics

    known = [name for name in extractors if name != "classifier"]
    if data["judge"] not in data["classifiers"]:
        wrong(f"{place}.judge", f"no {data['judge']!r} under {place}.classifiers; name one of them")
    for name in config["extractors"]:
        if name not in data["classifiers"] and name not in known:
            there = ", ".join([*known, *(name for name in data["classifiers"] if AGAIN not in name)])
            wrong("extractors", f"extractor {name!r}: unknown; {dataset} has {there}")
    for name in config["metrics"]:
        with noted("metrics"):
            metrics[name]
    used = {SETUPS[setup]["classifier"] for setup, scales in data["scales"].items() if scales and setup in SETUPS}
    guiding = used & set(data["classifiers"])
    if data["repeats"] > 1 and not any(is_trained(dataset, name) for name in guiding):
        wrong(f"{place}.repeats", "no guiding classifier is trained here; remove it")


def check_config():
    from nrcg.registry import load_module

    for name in config["modules"]:
        with noted("modules"):
            load_module(name)
    for key in ("paper_results", "style", "inception_weights"):
        check_place(key, config[key])
    check_setups()
    known = not PROBLEMS  # valid setups determine which classifiers are needed
    for dataset in DATASETS:
        place, data, before = f"datasets.{dataset}", config["datasets"][dataset], len(PROBLEMS)
        for check in (check_points, check_images, check_extractors, check_ddpm):
            check(place, dataset, data)
        for name in needed_classifiers(dataset) if known and len(PROBLEMS) == before else []:
            check_classifier(place, dataset, name, data["classifiers"][name])
    refuse(PROBLEMS)


if workflow.is_main_process:
    hide_transformers()
    check_config()
    show_transformers()
