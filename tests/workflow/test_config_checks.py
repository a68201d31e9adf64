"""What is wrong with a config is said before the first job: all of it, a line each that names the key."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from environment_yml import ROOT
from scratch import snakemake
from snakemake.utils import update_config

BALLS = "datasets.sportballs"
OF_SCHEMA = {  # keys below the overlay's top, the wrong value, and what is said of it
    "seed": (1000.0, "seed: 1000.0 is not of type 'integer'"),
    f"{BALLS}.scales.robust": ([float("nan")], f"{BALLS}.scales.robust.0: nan"),
    f"{BALLS}.sampling.n_samples": (320.0, f"{BALLS}.sampling.n_samples: 320.0 is not of type 'integer'"),
    f"{BALLS}.target": ("base\nball", f"{BALLS}.target"),
    "run": ("..", r"run: '\.\.' must be a name of letters"),
    "style": ("a\nb", "style: "),
    "metrics": (["kid"], "metrics: "),
}
OF_MEANING = {
    f"{BALLS}.sampling.num_inference_steps": (400, "num_inference_steps is 400; .* 100"),
    f"{BALLS}.images.size": (64, f"{BALLS}.ddpm.pretrained: sample_size 32, .*size is 64"),
    f"{BALLS}.images.ball": (["baseball", "tennis"], f"{BALLS}.images: .*tennis"),
    f"{BALLS}.scheduler.beta_schedule": ("foo", f"{BALLS}.scheduler: .*beta_schedule.*foo"),
    f"{BALLS}.scales.robust": ([1.0000001, 1], f"{BALLS}.scales.robust: 1.0000001 has more than six digits"),
    f"{BALLS}.scales.robots": ([1], f"{BALLS}.scales: no setup 'robots'"),
    f"{BALLS}.sampling.n_samples": (10**12, f"{BALLS}.sampling.n_samples: .*shards per point"),
    f"{BALLS}.showcase.scale": (15, f"{BALLS}.showcase"),
    f"{BALLS}.scores_from": ("nowhere.csv", f"{BALLS}.scores_from: no such file.*nowhere.csv"),
    "style": ("nowhere.mplstyle", "style: no such file.*nowhere.mplstyle"),
    "inception_weights": ("nowhere.pth", "inception_weights: no such file"),
    "metrics": (["fd", "fid"], "metrics: metric 'fid': unknown; use one of fd, kid, precision"),
    f"{BALLS}.repeats": (2, f"{BALLS}.repeats: no guiding classifier is trained here"),
}


def nested(changes):
    """{"a.b": value} as {"a": {"b": value}}."""
    whole = {}
    for place, value in changes.items():
        *outer, last = place.split(".")
        section = whole
        for key in outer:
            section = section.setdefault(key, {})
        section[last] = value
    return whole


def refused(checkout, tmp_path, changes, base="demo"):
    """What a dry run of an overlay says, as one text without line breaks; it must fail."""
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(yaml.safe_dump(nested(changes)))
    words = ["-n", "--quiet", "all", "--configfile", checkout / f"config/{base}.yaml", overlay]
    output = snakemake(checkout, *words, check=False)
    assert "Traceback" not in output and "Job stats" not in output, output
    return output


OF_SECTIONS = [  # what the functions say that the sections configure: a key, the wrong value, and what is said of it
    ("images.n", 320.0, "images: .*n 320.0: must be a whole number"),
    ("images.valid_fraction", float("nan"), "images: .*valid_fraction nan"),
    ("images.seeed", 1, "images: .*unknown key seeed; nearest are seed"),
    ("images.source", "data", "images: .*unknown key source"),
    ("kind", "mnist", "images: .*'mnist': unknown; use one of celeba"),
    ("target", "tennis", "target: no class 'tennis'"),
    ("sampling.scheduler", "DDIM", "sampling.scheduler: scheduler 'DDIM': name one of diffusers"),
    ("scales.robots", [1], "scales: no setup 'robots' in .*use one of"),
    ("weights", "authors", "weights: no"),
    ("classifiers.judge.architecture", "vgg", "classifiers.judge: architecture 'vgg': unknown"),
    ("classifiers.judge.pretrained", {"timm": {"nam": "a"}}, "classifiers.judge: source .* timm: no key name"),
    ("classifiers.judge.pretrained", {"timm": "resnet18"}, "classifiers.judge: source .* timm: .*give an object"),
    (
        "classifiers.judge",
        {"pretrained": {"timm": {"name": "resnet18"}}, "outputs": {"baseball": 429, "soccer": 805}},
        "classifiers.judge: outputs: no class 'basketball'; the classes are baseball, basketball, soccer",
    ),
    ("classifiers.judge.input", {"size": 32}, "classifiers.judge.input: only for a classifier whose"),
    ("classifiers.robust.max_epoch", 3, "classifiers.robust: .*max_epoch; nearest are max_epochs"),
    ("judge", "jury", "judge: no 'jury' under .*classifiers; name one of them"),
    ("ddpm.class_label", 3, "ddpm.class_label: not used by this U-Net; remove it"),
]
OF_THE_RUN = [
    (
        "extractors",
        ["dino"],
        "extractors: extractor 'dino': unknown; sportballs has inception, efficientnet_lite0, dinov2, nonrobust, ",
    ),
    ("roles", {"ema": "ema"}, "roles.ema: no setup 'ema'"),
    ("modules", ["no_such_module"], "modules: module no_such_module: cannot be imported"),
]


def test_what_a_section_must_hold_is_known_to_its_function(checkout, tmp_path):
    """Each mistake in a data set of its own, since one may hide others of the same."""
    changes = {}
    for i, (key, value, _) in enumerate(OF_SECTIONS):
        data = changes[f"d{i}"] = json.loads(json.dumps(demo_data(checkout)))
        update_config(data, nested({key: value}))
    output = refused(checkout, tmp_path, {"datasets": changes, "run_datasets": list(changes)})
    for i, (_, _, message) in enumerate(OF_SECTIONS):
        assert re.search(rf"datasets\.d{i}\.{message}", output), f"{message}\nnot in\n{output}"
    output = refused(checkout, tmp_path, {key: value for key, value, _ in OF_THE_RUN})
    for _, _, message in OF_THE_RUN:
        assert re.search(message, output), f"{message}\nnot in\n{output}"


def demo_data(checkout):
    """The data set of the demo, whole."""
    data = {}
    for name in ("config", "demo"):
        config = yaml.safe_load((checkout / f"config/{name}.yaml").read_text())
        update_config(data, config["datasets"]["sportballs"])
    return data


@pytest.mark.parametrize("mistakes", [OF_SCHEMA, OF_MEANING], ids=["schema", "meaning"])
def test_every_mistake_is_said_at_once(checkout, tmp_path, mistakes):
    output = refused(checkout, tmp_path, {key: value for key, (value, _) in mistakes.items()})
    for _, message in mistakes.values():
        assert re.search(message, output), f"{message}\nnot in\n{output}"


@pytest.mark.parametrize(
    "key, value", [("scheduler.variance_type", "learned_range"), ("scheduler.timestep_spacing", "trialing")]
)
def test_settings_that_no_sample_can_be_drawn_with(checkout, tmp_path, key, value):
    output = refused(checkout, tmp_path, {f"{BALLS}.{key}": value})
    assert key.split(".")[1] in output and value in output


def test_a_folder_that_is_not_there_is_no_repository(checkout, tmp_path):
    places, datasets = ["/nowhere/hq", "./nowhere/hq", "~/no-such-folder", "nowhere"], {}
    for i, place in enumerate(places):
        datasets[f"d{i}"] = json.loads(json.dumps(demo_data(checkout)))
        datasets[f"d{i}"]["ddpm"]["pretrained"] = place
    output = refused(checkout, tmp_path, {"datasets": datasets, "run_datasets": list(datasets)})
    for i, place in enumerate(places):
        assert f"datasets.d{i}.ddpm.pretrained: no such folder: {place}" in output


def test_a_ddpm_of_other_images_and_steps(checkout, tmp_path):
    ddpm = tmp_path / "ddpm"
    shutil.copytree(ROOT / "resources/sportballs32", ddpm)
    changes = (("unet/config", "in_channels", 2), ("scheduler/scheduler_config", "num_train_timesteps", 140))
    for part, key, value in changes:
        path = ddpm / f"{part}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    output = refused(checkout, tmp_path, {f"{BALLS}.ddpm.pretrained": str(ddpm)})
    assert "in_channels 2: must be 1 (grey), 3 (RGB) or 4 (RGBA)" in output
    assert "trained with 140 timesteps; num_train_timesteps is 100" in output


def test_a_classifier_of_other_images_and_classes(checkout, tmp_path):
    card = {"architecture": "mobilenet_v3_small", "classes": ["a", "b", "c"], "size": 64}
    (tmp_path / "card.json").write_text(json.dumps(card))
    output = refused(checkout, tmp_path, {f"{BALLS}.classifiers.judge.pretrained": str(tmp_path)})
    for message in ("has the classes", "images of 64 pixels, not 32", "no such file or folder"):
        assert message in output


def test_a_trained_unet_of_another_size(checkout, tmp_path):
    output = refused(checkout, tmp_path, {"run_datasets": ["sportballs"], f"{BALLS}.images.size": 32}, base="test")
    assert f"{BALLS}.ddpm.unet: sample_size 16, but images.size is 32" in output


def test_gpus_must_divide_the_batch(checkout, tmp_path):
    output = refused(checkout, tmp_path, {"run_datasets": ["sportballs"], f"{BALLS}.ddpm.gpus": 3}, base="test")
    assert f"{BALLS}.ddpm.gpus: 3 do not divide the batch_size 32" in output


TABLE = (ROOT / "config/setups.yaml").read_text()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            TABLE.replace("beta: 0.99", "beta: 1.5", 1)
            .replace("[0, 0.6]", "[0, 240]")
            .replace("on: xt", "onn: xt", 1)
            .replace("beta: 0.9,", "bet: 0.9,"),
            "robust: .*unknown key onn.*\n.*x0_ema0.9: .*key bet.*\n.*x0_ema0.99: EMA: beta 1.5.*\n.*_late: .*interval",
        ),
        (
            TABLE.replace("label:", "lable:", 1),
            "unconditional: 'label' is a required property",
        ),
        (TABLE + TABLE[TABLE.index("\nrobust:") : TABLE.index("\nnonrobust:")], "duplicate key robust"),
        (
            TABLE.replace("classifier: nonrobust\n\nrobust", "classifier: nonrobust\n  guidance: {on: xt}\n\nrobust"),
            "0 rows without",
        ),
        ("a: [", "cannot be read as YAML"),
        ("", "None is not of type 'object'"),
        (None, "no such file"),
    ],
)
def test_the_setups(checkout, tmp_path, table, message):
    place = tmp_path / "setups.yaml"
    if table is not None:
        place.write_text(table)
    output = refused(checkout, tmp_path, {"setups": str(place)})
    assert re.search(message, output), output
    assert str(place) in output


def test_scales_that_file_names_cannot_tell_apart(checkout, tmp_path):
    scales = [1.0000001, 1.0000002, 123456.7, 999999.9]
    output = refused(checkout, tmp_path, {f"{BALLS}.scales.robust": [25, 999999, *scales]})
    for scale in scales:
        assert f"{BALLS}.scales.robust: {scale} has more than six digits" in output
    assert output.count("more than six digits") == len(scales)


def test_one_gpus_config_is_a_part_of_the_papers_grid_at_the_papers_size():
    whole = yaml.safe_load((ROOT / "config/config.yaml").read_text())["datasets"]["sportballs"]
    overlay = yaml.safe_load((ROOT / "config/single_gpu.yaml").read_text())["datasets"]["sportballs"]
    assert not {"images", "scheduler", "target", "objective", "weights"} & overlay.keys()
    assert "unet" not in overlay["ddpm"] and "num_inference_steps" not in overlay["sampling"]
    assert overlay["scales"].keys() == whole["scales"].keys()
    for name, scales in overlay["scales"].items():
        assert len(scales) >= 3 and set(scales) < set(whole["scales"][name])
    assert whole["showcase"]["scale"] in overlay["scales"][whole["showcase"]["setup"]]


def test_the_fast_config_has_one_scale_per_setup_and_a_search_for_it():
    paper, fast, search = (
        yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())["datasets"]
        for name in ("config", "fast", "fast_search")
    )
    assert fast.keys() == paper.keys() and search.keys() == fast.keys() - {"celebahq"}
    for name, data in search.items():
        assert fast[name]["scales"].keys() == data["scales"].keys() == paper[name]["scales"].keys()
        assert set(data["scales"].values()) == {"auto"} and fast[name]["showcase"] == {"scale": None}
        for setup, scales in fast[name]["scales"].items():
            assert len(scales) == 1 and set(scales) < set(paper[name]["scales"][setup])
    for data in fast.values():
        assert not data.keys() - {"sampling", "scales", "showcase"}
        assert not data["sampling"].keys() & {"n_samples", "n_unconditional"}


@pytest.mark.parametrize("name", ["x;touch PWNED;", "x\n"])
def test_names_are_names(checkout, tmp_path, name):
    """Names of runs and data sets become parts of paths and patterns."""
    data = yaml.safe_load((ROOT / "config/config.yaml").read_text())["datasets"]["sportballs"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"run": name, "run_datasets": [name], "datasets": {name: data}}))
    output = snakemake(checkout, "-n", "--configfile", tmp_path / "mine.yaml", check=False)
    assert "run: " in output and "datasets: " in output and "must be a name of letters" in output
    assert not list(Path(checkout).glob("PWNED*"))


def test_the_noise_of_trained_classifiers_has_the_unets_channels(checkout, tmp_path):
    unet = {"in_channels": 1, "out_channels": 1}
    changes = {f"{BALLS}.ddpm.unet.{key}": value for key, value in unet.items()}
    changes[f"{BALLS}.classifiers.judge.channels"] = 1
    output = refused(checkout, tmp_path, {"run_datasets": ["sportballs"], **changes}, base="test")
    assert f"{BALLS}.classifiers.robust.channels: the U-Net has 1; they must be equal" in output
    assert "judge.channels" not in output
