"""Data sets of the general kinds through the real rules: what is downloaded, and that it reaches the image set."""

import json
import shutil

import yaml
from published_layouts import make_folder, make_mnist
from scratch import jobs, snakemake
from snakemake.utils import update_config

from nrcg.datasets.imageset import ImageSet


def configured(checkout, tmp_path, **data):
    """An overlay with one more data set `mine`: SportBalls' at toy size, with other images and keys."""
    texts = [(checkout / f"config/{name}.yaml").read_text() for name in ("config", "test")]
    config = {}
    for text in texts:
        update_config(config, json.loads(json.dumps(yaml.safe_load(text))))
    mine = config["datasets"]["sportballs"] | {"paper": {}, "title": None} | data
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"run": "mine", "run_datasets": ["mine"], "datasets": {"mine": mine}}))
    return ["--configfile", checkout / "config/test.yaml", path]


FASHION = {"kind": "torchvision", "target": "Bag", "images": {"name": "FashionMNIST", "size": 16, "padding": 2}}


def test_a_set_of_torchvision_is_fetched_once_and_made(checkout, tmp_path):
    words = configured(checkout, tmp_path, **FASHION)
    record, card = "results/downloads/torchvision/FashionMNIST.json", "results/mine/mine/data/card.json"
    planned = snakemake(checkout, "-n", *words, "--", card)
    assert jobs(planned) == {"download_torchvision": 1, "images": 1}
    assert "download_torchvision" in jobs(snakemake(checkout, "-n", *words, "--", "downloads"))
    make_mnist((checkout / record).parent)  # then nothing is fetched
    snakemake(checkout, "--cores", "1", *words, "--", card)
    assert json.loads((checkout / record).read_text())["images"] == [30, 15]
    made = ImageSet.open(checkout / card.removesuffix("/card.json"))
    assert made.images.shape == (45, 16, 16, 3) and made.card["parameters"]["padding"] == 2
    assert "Nothing to be done" in snakemake(checkout, "-n", *words, "--", card)


def test_other_arguments_are_another_download(checkout, tmp_path):
    places = set()
    for split in ("letters", "digits"):
        images = {"name": "EMNIST", "size": 16, "arguments": {"split": split}, "classes": ["a", "b"]}
        words = configured(checkout, tmp_path, **FASHION | {"images": images, "target": "a"})
        output = snakemake(checkout, "-n", "-p", *words, "--", "downloads")
        assert f"""nrcg get torchvision EMNIST --arguments '{{"split": "{split}"}}' --out results/d""" in output
        places |= {line.strip() for line in output.splitlines() if "output: " in line and "EMNIST.json" in line}
    assert len(places) == 2


def test_a_folder_of_pictures_that_are_not_square(checkout, tmp_path):
    pets = make_folder(tmp_path / "my pets")
    images = {"source": str(pets), "size": [16, 24], "fit": "crop"}
    ddpm = {"unet": {"sample_size": [16, 24], "down_block_types": ["DownBlock2D"] * 2, "norm_num_groups": 4,
                     "up_block_types": ["UpBlock2D"] * 2, "block_out_channels": [8, 16]},
            "training": {"epochs": 1}}  # fmt: skip
    words = configured(checkout, tmp_path, kind="folder", target="red", images=images, ddpm=ddpm)
    output = snakemake(checkout, "-n", "-p", *words)
    assert "16×24 pixels" in output and "validation images of 16×24, target red" in output
    card = "results/mine/mine/data/card.json"
    snakemake(checkout, "--cores", "1", *words, "--forcerun", "images", "--", card)
    assert json.loads((checkout / card).read_text())["size"] == [16, 24]
    shutil.rmtree(pets / "red")
    assert "datasets.mine.images: source" in snakemake(checkout, "-n", *words, check=False)


MISTAKES = [  # in one data set each
    ({"images": {"size": 16}}, "images: images: no key name; add it"),
    ({"images": {"name": "SVHN", "size": 16}}, "images: classes: SVHN has no class names"),
    (
        {"kind": "hub", "images": {"source": "owner/name", "size": 16}},
        "images: classes: none, and owner/name is not downloaded",
    ),
    ({"kind": "hub", "images": {"size": 16}}, "images: images: no key source; add it"),
    ({"kind": "folder", "images": {"source": "nowhere", "size": 16}}, "images: source nowhere: no such folder"),
    ({"weights": "authors"}, "weights: no 'd5' in config/authors_weights.yaml"),
    ({"target": "Ball"}, "target: no class 'Ball'; classes are T-shirt/top"),
]


def test_mistakes_are_named_before_the_first_job(checkout, tmp_path):
    words = configured(checkout, tmp_path, **FASHION)
    config = yaml.safe_load(words[-1].read_text())
    mine = config["datasets"].pop("mine")
    config["datasets"] = {f"d{i}": mine | data for i, (data, _) in enumerate(MISTAKES)}
    words[-1].write_text(yaml.safe_dump(config | {"run_datasets": list(config["datasets"])}))
    output = snakemake(checkout, "-n", *words, check=False)
    for i, (_, message) in enumerate(MISTAKES):
        assert f"datasets.d{i}.{message}" in output, output
    assert "Traceback" not in output
