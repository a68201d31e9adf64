"""Each example of docs/bring_your_own.md, as it stands: the sections in one run at toy size, then the Python."""

import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest
import timm
import torch
import yaml
from environment_yml import ROOT
from published_layouts import make_folder, make_mnist
from scratch import snakemake
from torchvision.models import ResNet18_Weights, resnet18

from nrcg.io.yaml_files import Loader
from nrcg.models.classifier import load_classifier

PAGE = (ROOT / "docs/bring_your_own.md").read_text()
EXAMPLES = re.findall(r"^\| ?(.*?) ?\| (.*?) \| `([{\[].*)` \|$", PAGE, re.M)
MODULE = """
from torch import nn

from nrcg.evaluation.extractors import Extractor, extractors


def network(width):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))


@extractors.register("mean_colour")
def mean_colour(weights, device):
    return Extractor(3, lambda images: images.mean((2, 3)), device)
"""


def sections():
    """The examples by noun, in order."""
    found, noun = {}, None
    for first, _, section in EXAMPLES:
        noun = first.partition(",")[0] or noun
        found.setdefault(noun, []).append(yaml.load(section, Loader))
    return found


def published(data):
    """Networks that others might have published, with random weights."""
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=2)
    timm.models.save_for_hf(network, data / "timm", {"num_classes": 2})
    torch.save(network.state_dict(), data / "weights.pth")
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    small = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "num_labels": 3,
    }
    ViTForImageClassification(ViTConfig(**small, image_size=16, patch_size=8)).save_pretrained(data / "vit")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(data / "vit")
    checkpoints = data / "torch/hub/checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(resnet18().state_dict(), checkpoints / os.path.basename(ResNet18_Weights.DEFAULT.url))
    (data / "mine.py").write_text(MODULE)


def configured(checkout):
    """A config of three data sets, made of the examples and of what they leave open."""
    found = sections()
    kinds, (trained, pretrained) = found["data set"], found["diffusion model"]
    by_timm, by_torchvision, torchvision, of_timm, transformers, file, function = found["classifier"]
    base = yaml.safe_load((checkout / "config/test.yaml").read_text())["datasets"]["celeba"]
    common = {"scheduler": base["scheduler"], "sampling": base["sampling"] | {"n_samples": 3, "n_unconditional": 4}}
    rows = {"unconditional": {"label": "unconditional", "classifier": "judge"}, "timm_ema": found["guidance"][0]}
    names = ["small", "large", "resnet", "vit", "file", "function"]
    for name in names:
        rows[name] = {"label": name, "classifier": name, "guidance": {"on": "x0"}}
    classifiers = {
        "pets": {"small": by_timm, "judge": by_torchvision, "resnet": torchvision, "timm": of_timm, "vit": transformers}
        | {"file": file, "function": function},
        "digits": {"small": by_timm, "judge": by_timm, "timm": by_timm},
        "faces": {"large": by_torchvision, "judge": by_timm, "timm": by_timm},
    }
    for name in ("small", "judge", "timm"):
        classifiers["digits"][name] = classifiers["digits"][name] | {"channels": 1}
    guides = {"pets": ["resnet", "vit", "file", "function", "timm_ema"], "digits": ["small"], "faces": ["large"]}
    grey = json.loads(json.dumps(trained))
    grey["unet"] |= {"in_channels": 3, "out_channels": 3}
    ddpms, targets = {"pets": grey, "digits": trained, "faces": pretrained}, ["red", "Bag", "male"]
    datasets = {}
    for (name, ddpm), kind, target in zip(ddpms.items(), kinds, targets, strict=True):
        datasets[name] = {**common, **kind, "target": target, "ddpm": ddpm, "classifiers": classifiers[name]}
        datasets[name] |= {"scales": {guide: [2] for guide in guides[name]}}
        datasets[name]["showcase"] = {"setup": guides[name][0], "scale": 2}
    (checkout / "setups.yaml").write_text(yaml.safe_dump(rows, sort_keys=False))
    config = {"run": "own", "run_datasets": list(datasets), "datasets": datasets, "setups": "setups.yaml"}
    config |= {"roles": dict.fromkeys(yaml.safe_load((ROOT / "config/config.yaml").read_text())["roles"])}
    return config | {
        "extractors": found["feature extractor"][0],
        "modules": ["data/mine.py"],
        "device": "cpu",
        "threads": 1,
    }


def test_the_table_has_every_noun():
    found = sections()
    assert {noun: len(rows) for noun, rows in found.items()} == {
        "data set": 3, "diffusion model": 2, "classifier": 7, "feature extractor": 1, "guidance": 1,
    }  # fmt: skip


def test_the_sections_run_from_the_config_to_scores(checkout, monkeypatch):
    make_folder(checkout / "data/pets", n=30)
    make_mnist(checkout / "data", n=40)
    published(checkout / "data")
    monkeypatch.setenv("TORCH_HOME", str(checkout / "data/torch"))
    config = configured(checkout)
    (checkout / "own.yaml").write_text(yaml.safe_dump(config))
    home = checkout / "results/own"
    wanted = [f"results/own/{name}/scores.csv" for name in config["run_datasets"]]
    snakemake(checkout, "--cores", "2", "--configfile", "own.yaml", "--", *wanted)
    for name, data in config["datasets"].items():
        scores = pd.read_csv(home / name / "scores.csv")
        assert set(scores["setup"]) == {"unconditional", *data["scales"]}
        for metric in ("accuracy", "accuracy_judge", "cfd_judge", "fd_timm", "cfd_mean_colour"):
            rows = scores[scores["metric"] == metric]
            assert len(rows) == 1 + len(data["scales"]) and rows["value"].notna().all()
    assert set(scores[scores["metric"] == "fd_mean_colour"]["features"]) == {3}
    imported = {path.parent.name for path in home.glob("pets/imported/*/card.json")}
    assert imported == {"resnet", "timm", "vit", "file", "function"}
    card = load_classifier(home / "pets/imported/resnet")[1]
    assert card["outputs"] == [[281, 282], 207] and card["classes"] == ["blue", "red"]
    trained = json.loads((home / "pets/classifiers/judge/card.json").read_text())
    assert trained["architecture"] == {"torchvision": {"name": "mobilenet_v3_large"}}
    assert json.loads((home / "digits/ddpm/unet/config.json").read_text())["in_channels"] == 1


@pytest.mark.parametrize("block", re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S))
def test_each_python_example(checkout, block):
    code = (
        block.replace("num_inference_steps=100", "num_inference_steps=3")
        + "\nassert 'out' not in vars() or len(out.images) == 4\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
