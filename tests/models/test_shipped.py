"""The shipped networks: they load from the checkout alone, and guide as their configs say."""

import pytest
import torch
import yaml
from environment_yml import ROOT
from safetensors.torch import load_file

import nrcg
from nrcg.models.classifier import predictions, seeing
from nrcg.models.ddpm import load_ddpm

EMA = nrcg.EMA(0.9, steps=100)
CASES = {  # config, its data set, the classifier that guides, and how
    "sportballs32": ("demo", "sportballs", "nonrobust", {"scale": 4.0, "objective": "logit", "stabilizer": EMA}),
    "fashion32": ("fashion", "fashion", "robust", {"scale": 20.0, "on": "xt"}),
}


@pytest.mark.parametrize("name", CASES)
def test_shipped_networks_guide(name):
    config, dataset, guide, how = CASES[name]
    data = yaml.safe_load((ROOT / f"config/{config}.yaml").read_text())["datasets"][dataset]
    unet, scheduler = load_ddpm(ROOT / data["ddpm"]["pretrained"])
    folders = {key: ROOT / section["pretrained"] for key, section in data["classifiers"].items()}
    networks = {key: seeing(nrcg.load_classifier(folder), unet.config.in_channels) for key, folder in folders.items()}
    classes = nrcg.load_classifier(folders["judge"]).card["classes"]
    target = classes.index(data.get("target", "baseball"))
    pipe = nrcg.GuidedDDPMPipeline(unet=unet, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    guidance = nrcg.ClassifierGuidance(networks[guide], target, **how)
    drawn = pipe(8, torch.manual_seed(0), 25, "pt", guidance=guidance).images * 2 - 1
    with torch.no_grad():
        judged = predictions(networks["judge"](drawn))
    assert (judged == target).sum() >= 6  # unguided: one in three, one in ten
    for folder in folders.values():
        kinds = {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()}
        assert torch.float16 in kinds and torch.float32 not in kinds
