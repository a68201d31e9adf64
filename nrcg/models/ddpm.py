"""Noise predictors and schedulers, kept as a diffusers folder that `DDPMPipeline.from_pretrained` opens."""

import inspect
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from nrcg.errors import NrcgError


def _refuse_unknown_keys(kind: type, config: dict[str, Any], key: str) -> None:
    unknown = set(config) - set(inspect.signature(kind.__init__).parameters)
    if unknown:
        raise NrcgError(f"{key}: unknown key {', '.join(sorted(unknown))} for diffusers' {kind.__name__}")


def build_unet(config: dict[str, Any]) -> UNet2DModel:
    """A randomly initialised `UNet2DModel`; `config` holds its constructor's arguments."""
    _refuse_unknown_keys(UNet2DModel, config, "unet")
    return UNet2DModel(**config)


def build_scheduler(config: dict[str, Any]) -> DDPMScheduler:
    """A `DDPMScheduler`; `config` holds its constructor's arguments."""
    _refuse_unknown_keys(DDPMScheduler, config, "scheduler")
    return DDPMScheduler(**config)


def load_ddpm(source: str | Path, device: torch.device | str = "cpu") -> tuple[UNet2DModel, DDPMScheduler]:
    """U-Net (eval mode) and scheduler from a diffusers folder or a hub id; safetensors only, never a pickle."""
    try:
        pipeline = DDPMPipeline.from_pretrained(str(source), use_safetensors=True)
    except (OSError, ValueError) as error:
        raise NrcgError(f"{source}: not a diffusers DDPM folder or hub id ({str(error).splitlines()[0]})") from None
    return pipeline.unet.to(device).eval(), pipeline.scheduler


def save_ddpm(folder: str | Path, unet: UNet2DModel, scheduler: DDPMScheduler) -> None:
    """Write a diffusers folder with safetensors weights."""
    DDPMPipeline(unet=unet, scheduler=scheduler).save_pretrained(str(folder), safe_serialization=True)
