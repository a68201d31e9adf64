"""Networks to measure: the demo's and the paper's; random weights suffice if only the time matters."""

import copy
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

from nrcg.models.classifier import build_classifier
from nrcg.models.ddpm import build_scheduler, build_unet, load_ddpm

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Networks:
    """All in eval mode and frozen, as by a careful user: autograd then stores nothing for their weights."""

    unet: UNet2DModel
    scheduler: DDPMScheduler
    classifier: nn.Module  # three classes

    def in_default_layout(self) -> "Networks":
        """A copy with weights in torch's default layout; the library builds classifiers channels-last."""
        parts = copy.deepcopy(self)
        for tensor in chain(parts.unet.parameters(), parts.classifier.parameters()):
            tensor.data = tensor.data.clone(
                memory_format=torch.contiguous_format
            )  # `contiguous` would skip some tensors
        return parts


def section(size: str) -> dict[str, Any]:
    """SportBalls in the paper's config, with the demo's networks for the size "demo"."""
    files = [ROOT / f"config/{name}.yaml" for name in ("config", "demo")]
    paper, demo = (yaml.safe_load(file.read_text())["datasets"]["sportballs"] for file in files)
    if size == "demo":
        paper["ddpm"]["unet"] |= demo["ddpm"]["unet"]
        paper["scheduler"] |= demo["scheduler"]
    return paper


def networks(size: str, device: torch.device) -> Networks:
    """The demo's shipped weights, or reproducible random ones."""
    torch.manual_seed(0)
    classifier = build_classifier("mobilenet_v3_small", 3).to(device).eval().requires_grad_(False)
    if size == "demo":
        unet, scheduler = load_ddpm(ROOT / "resources/sportballs32", device)
    else:
        unet, scheduler = build_unet(section(size)["ddpm"]["unet"]), build_scheduler(section(size)["scheduler"])
    return Networks(unet.to(device).eval().requires_grad_(False), scheduler, classifier)
