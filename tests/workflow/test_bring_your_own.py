"""Each example of docs/bring_your_own.md, as it stands: the sections in one run at toy size, then the Python.

The run's module has a stabiliser, an objective and an extractor too: one registration each, and the config runs them.
"""

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
MINE = {"on": "x0", "objective": "margin", "stabilizer": {"half_sign": {"size": 0.5}}}
MODULE = '''
from dataclasses import dataclass

from torch import nn

from nrcg.evaluation.extractors import Extractor, extractors
from nrcg.guidance import objectives, stabilizers


def network(width):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))


@stabilizers.register("half_sign")
@dataclass(frozen=True)
class HalfSign:
    """The sign of the gradient, `size` long."""

    size: float = 1.0

    def init(self, gradient_like):
        return None

    def update(self, gradient, state):
        return self.size * gradient.sign(), state


@objectives.register("margin")
def margin(logits, target):
    """How far the target's logit is above the mean of all."""
    return logits.gather(1, target[:, None])[:, 0] - logits.mean(1)


@extractors.register("mean_colour")
def mean_colour(weights, device):
    """Mean of red, green and blue."""
    return Extractor(3, lambda images: images.mean((2, 3)), device)
'''


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
    names = {"resnet": torchvision, "vit": transformers, "file": file, "function": function}
    rows = {"unconditional": {"label": "unconditional", "classifier": "timm"}, "ema": found["guidance"][0]}
    rows |= {name: {"label": name, "classifier": name, "guidance": {"on": "x0"}} for name in names}
    rows["mine"] = {"label": "mine", "classifier": "timm", "guidance": MINE}
    colour, grey = json.loads(json.dumps(trained)), by_timm | {"channels": 1}
    colour["unet"] |= {"in_channels": 3, "out_channels": 3}
    datasets = {
        "pets": {
            "ddpm": colour,
            "classifiers": {"timm": of_timm, "trained": by_torchvision, **names},
            "judge": "trained",
        },
        "digits": {"ddpm": trained, "classifiers": {"timm": grey}, "judge": "timm"},
        "faces": {"ddpm": pretrained, "classifiers": {"timm": by_timm}, "judge": "timm"},
    }
    for data, kind, target in zip(datasets.values(), kinds, ["red", "Bag", "male"], strict=True):
        data |= {**common, **kind, "target": target, "scales": {"ema": [2]}, "showcase": {"setup": "ema", "scale": 2}}
    datasets["pets"]["scales"] |= {name: [2] for name in [*names, "mine"]}
    (checkout / "setups.yaml").write_text(yaml.safe_dump(rows, sort_keys=False))
    roles = dict.fromkeys(yaml.safe_load((ROOT / "config/config.yaml").read_text())["roles"])
    config = {
        "run": "own",
        "run_datasets": list(datasets),
        "datasets": datasets,
        "setups": "setups.yaml",
        "roles": roles,
    }
    config |= {"extractors": found["feature extractor"][0], "modules": ["data/mine.py"], "device": "cpu", "threads": 1}
    return config


def test_the_table_has_every_noun():
    found = sections()
    assert {noun: len(rows) for noun, rows in found.items()} == {
        "data set": 3, "diffusion model": 2, "classifier": 7, "feature extractor": 1, "guidance": 1,
    }  # fmt: skip


def test_the_sections_run_from_the_config_to_scores_and_figures(checkout, monkeypatch):
    make_folder(checkout / "data/pets", n=30)
    make_mnist(checkout / "data", n=40)
    published(checkout / "data")
    monkeypatch.setenv("TORCH_HOME", str(checkout / "data/torch"))
    config, home = configured(checkout), checkout / "results/own"
    (checkout / "own.yaml").write_text(yaml.safe_dump(config))
    wanted = ["pets/scores.csv", "pets/figures/scales_cfd_mean_colour.png", "pets/figures/findings.html"]
    wanted += ["digits/scores.csv", "faces/data/card.json", "faces/imported/ddpm/card.json"]
    wanted += ["faces/classifiers/timm/card.json"]
    snakemake(checkout, "--cores", "2", "--configfile", "own.yaml", "--", *(f"results/own/{name}" for name in wanted))
    assert all((home / name).exists() for name in wanted)
    for name in ("pets", "digits"):
        scores, guides = pd.read_csv(home / name / "scores.csv"), set(config["datasets"][name]["scales"])
        assert set(scores["setup"]) == {"unconditional", "real", "rejection", *guides}
        scores = scores[~scores["setup"].isin(["real", "rejection"]) & (scores["seeds"] == "reported")]
        for metric in ("accuracy", "accuracy_judge", "fd_timm", "cfd_timm", "cfd_mean_colour"):
            rows = scores[scores["metric"] == metric]
            assert len(rows) == 1 + len(guides) and rows["value"].notna().all()
        assert set(scores[scores["metric"] == "fd_mean_colour"]["features"]) == {3}
    imported = {path.parent.name for path in home.glob("pets/imported/*/card.json")}
    assert imported == {"resnet", "timm", "vit", "file", "function"}
    card = load_classifier(home / "pets/imported/resnet")[1]
    assert card["outputs"] == [[281, 282], 207] and card["classes"] == ["blue", "red"]
    trained = json.loads((home / "pets/classifiers/trained/card.json").read_text())
    assert trained["architecture"] == {"torchvision": {"name": "mobilenet_v3_large"}}
    assert json.loads((home / "digits/ddpm/unet/config.json").read_text())["in_channels"] == 1
    assert json.loads((home / "pets/samples/mine/scale_2/shard_000.json").read_text())["guidance"] == MINE


@pytest.mark.parametrize("block", re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S))
def test_each_python_example(checkout, block):
    code = (
        block.replace("num_inference_steps=100", "num_inference_steps=3")
        + "\nassert 'out' not in vars() or len(out.images) == 4\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
