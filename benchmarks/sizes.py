"""Networks to measure: the demo's, the paper's, CelebA-HQ's; random weights do where only their time matters."""

import copy
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

from benchmarks.measure import flops
from nrcg.models.classifier import build_classifier
from nrcg.models.ddpm import build_scheduler, build_unet, load_ddpm

ROOT = Path(__file__).parents[1]
SIZES = {"demo": 32, "paper": 64, "hq": 256}  # pixels
# google/ddpm-celebahq-256, as its configuration has it
HQ_UNET = {
    "sample_size": 256,
    "layers_per_block": 2,
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
HQ_SCHEDULER = {"num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02}


@dataclass(frozen=True)
class Networks:
    """All in eval mode, and frozen, as a careful user has them: autograd then keeps nothing for their weights."""

    unet: UNet2DModel
    scheduler: DDPMScheduler
    classifier: nn.Module  # three classes

    def copy(self) -> "Networks":
        return copy.deepcopy(self)

    def in_default_layout(self) -> "Networks":
        """A copy with the weights as torch lays them out by itself; the library builds classifiers channels-last."""
        parts = self.copy()
        for tensor in chain(parts.unet.parameters(), parts.classifier.parameters()):
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)  # not only where strides demand it
        return parts


def configs(size: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the U-Net and of the scheduler, by the project's own configs."""
    if size == "hq":
        return HQ_UNET, HQ_SCHEDULER
    dataset = yaml.safe_load((ROOT / "config/config.yaml").read_text())["datasets"]["sportballs"]
    unet, scheduler = dataset["ddpm"]["unet"], dataset["scheduler"]
    if size == "demo":
        overlay = yaml.safe_load((ROOT / "config/demo.yaml").read_text())["datasets"]["sportballs"]
        unet, scheduler = {**unet, **overlay["ddpm"]["unet"]}, {**scheduler, **overlay["scheduler"]}
    return unet, scheduler


def networks(size: str, device: torch.device) -> Networks:
    """The demo's shipped weights, or random ones, which are the same each time."""
    torch.manual_seed(0)
    classifier = build_classifier("mobilenet_v3_small", 3).to(device).eval().requires_grad_(False)
    if size == "demo":
        unet, scheduler = load_ddpm(ROOT / "resources/sportballs32", device)
    else:
        unet_config, scheduler_config = configs(size)
        unet, scheduler = build_unet(unet_config).to(device), build_scheduler(scheduler_config)
    return Networks(unet.eval().requires_grad_(False), scheduler, classifier)


def pass_flops(unet: UNet2DModel) -> int:
    """FLOPs of one image's forward pass; counted by shapes alone, nothing is computed."""
    unet, x = _shapes(unet)
    with torch.no_grad():
        return flops(lambda: unet(x, 0))


def gradient_flops(unet: UNet2DModel) -> int:
    """FLOPs of one image's forward pass and of the gradient by the image."""
    unet, x = _shapes(unet)
    x.requires_grad_()

    def gradient() -> None:
        output = unet(x + 0, 0).sample  # not x itself: the counter's hooks refuse a leaf as a module's input
        torch.autograd.grad(output.sum(), x)

    return flops(gradient)


def _shapes(unet: UNet2DModel) -> tuple[UNet2DModel, torch.Tensor]:
    """The U-Net and one image without numbers, on torch's meta device."""
    size, channels = unet.config.sample_size, unet.config.in_channels
    meta = copy.deepcopy(unet).requires_grad_(False).to("meta")
    return meta, torch.empty(1, channels, size, size, device="meta")
