"""Noise predictors and schedulers, kept as a diffusers folder that `DDPMPipeline.from_pretrained` opens."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.utils import logging
from safetensors.torch import save_file

from nrcg.errors import NrcgError
from nrcg.files import save_with, write_text

UNREADABLE = (OSError, ValueError, TypeError)  # what diffusers raises for a missing, damaged or foreign file


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


def load_ddpm(folder: str | Path, device: torch.device | str = "cpu") -> tuple[UNet2DModel, DDPMScheduler]:
    """U-Net (eval mode) and scheduler from a folder that `save_ddpm` wrote; safetensors only, never a pickle.

    Raises NrcgError when a file is missing, damaged, or when weights and configuration are not of one network.
    """
    folder = Path(folder)
    if not (folder / "unet").is_dir():
        raise NrcgError(f"{folder}: no folder of a DDPM; train one, or bring one with `nrcg import-ddpm`")
    return load_unet(folder / "unet").to(device), load_scheduler(folder / "scheduler")


def load_unet(folder: Path, *, use_safetensors: bool = True, name: str | Path | None = None) -> UNet2DModel:
    """The U-Net (eval mode) of a local folder with `config.json` and `diffusion_pytorch_model.safetensors`.

    With `use_safetensors=False` the weights are `diffusion_pytorch_model.bin`, a pickle that diffusers opens with
    torch's weights_only=True: one that holds more than tensors is refused. Weights from before diffusers renamed its
    attention layers are converted. Raises NrcgError, which calls the weights `name`, when anything cannot be read and
    when a single weight is missing, left over, or of another shape: diffusers would leave it random and only warn.
    """
    name = name or folder
    try:
        with _without_warnings():
            unet, info = UNet2DModel.from_pretrained(
                str(folder),
                use_safetensors=use_safetensors,
                local_files_only=True,
                low_cpu_mem_usage=False,
                ignore_mismatched_sizes=True,  # to hear of them in `info`
                output_loading_info=True,
            )
    except UNREADABLE as error:
        pickle = "" if use_safetensors else "; a .bin that holds more than tensors is refused"
        raise NrcgError(f"{name}: cannot be read as a U-Net ({str(error).splitlines()[0].strip()}){pickle}") from None
    mismatched = [key for key, *_ in info["mismatched_keys"]]
    if difference := describe_difference(info["missing_keys"], info["unexpected_keys"], mismatched):
        raise NrcgError(f"{name}: not weights of the U-Net that its configuration describes ({difference})")
    return unet


def load_scheduler(folder: Path) -> DDPMScheduler:
    """The scheduler of a local folder with `scheduler_config.json`; raises NrcgError when it cannot be read."""
    try:
        return DDPMScheduler.from_pretrained(str(folder), local_files_only=True)
    except UNREADABLE as error:
        raise NrcgError(f"{folder}: cannot be read as a DDPM's scheduler ({str(error).splitlines()[0]})") from None


def describe_difference(missing: list[str], unexpected: list[str], mismatched: list[str]) -> str:
    """What is wrong with the keys of a file of weights, in a few words with an example each; "" if nothing is."""
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": mismatched}
    return ", ".join(f"{len(keys)} {kind}: {min(keys)}" for kind, keys in kinds.items() if keys)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence diffusers, which warns of differences that are errors here."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def save_ddpm(folder: str | Path, unet: UNet2DModel, scheduler: DDPMScheduler) -> None:
    """Write the files of `DDPMPipeline.save_pretrained`, byte for byte, but each whole or not at all; its index last.

    Raises NrcgError when a file cannot be written.
    """
    folder = Path(folder)
    weights = {name: tensor.contiguous() for name, tensor in unet.state_dict().items()}
    place = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_with(place, lambda path: save_file(weights, path, metadata={"format": "pt"}))
    write_text(folder / "unet" / "config.json", unet.to_json_string())
    write_text(folder / "scheduler" / "scheduler_config.json", scheduler.to_json_string())
    index = DDPMPipeline(unet=unet, scheduler=scheduler).to_json_string()
    write_text(folder / "model_index.json", index)
