"""Noise predictors and schedulers, kept as a diffusers folder that `DDPMPipeline.from_pretrained` opens."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.utils import logging
from safetensors import SafetensorError
from safetensors.torch import save

from nrcg.checks import FLAG, Rule, check, listed, maybe, number, one_of, whole
from nrcg.errors import NrcgError
from nrcg.io.files import atomic, read_card, require_digest, sha256, write_json, write_text
from nrcg.runtime.memory import is_out_of_memory

WEIGHTS = "diffusion_pytorch_model"  # .safetensors or .bin, as diffusers names them
# What diffusers and torch raise for missing, damaged or foreign files, and for arguments that no network can have.
FAILURES = (
    ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, SafetensorError, TypeError,
    ValueError,
)  # fmt: skip

SPACINGS = ("linspace", "leading", "trailing")
VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range")
BETA = number(0, 1, without=(0, 1))
SCHEDULER_RULES = {
    "num_train_timesteps": whole(1, 100_000),
    "beta_start": BETA,
    "beta_end": BETA,
    "beta_schedule": one_of("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"),
    "trained_betas": maybe(listed(number(0, 1, without=(0,)))),
    "variance_type": one_of(*VARIANCES),
    "clip_sample": FLAG,
    "prediction_type": one_of("epsilon", "sample", "v_prediction"),
    "thresholding": FLAG,
    "dynamic_thresholding_ratio": number(0, 1, without=(0,)),
    "clip_sample_range": number(0, without=(0,)),
    "sample_max_value": number(0, without=(0,)),
    "timestep_spacing": one_of(*SPACINGS),
    "steps_offset": whole(0),
    "rescale_betas_zero_snr": FLAG,
}

SIDE = whole(1, 65_536)
CHANNELS = whole(1, 65_536)
DOWN = one_of(
    "DownBlock2D", "ResnetDownsampleBlock2D", "AttnDownBlock2D", "SkipDownBlock2D", "AttnSkipDownBlock2D",
    "DownEncoderBlock2D", "AttnDownEncoderBlock2D", "KDownBlock2D",
)  # fmt: skip
UP = one_of(
    "UpBlock2D", "ResnetUpsampleBlock2D", "AttnUpBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D", "UpDecoderBlock2D",
    "AttnUpDecoderBlock2D", "KUpBlock2D",
)  # fmt: skip
RESAMPLING = one_of("conv", "resnet")
UNET_RULES = {
    "sample_size": Rule(f"{SIDE.words}, or two", lambda v: SIDE.holds(v) or (listed(SIDE, 2).holds(v) and len(v) == 2)),
    "in_channels": whole(3, 3),
    "out_channels": whole(3, 3),
    "center_input_sample": FLAG,
    "time_embedding_type": one_of("positional", "fourier", "learned"),
    "time_embedding_dim": maybe(CHANNELS),
    "freq_shift": number(),
    "flip_sin_to_cos": FLAG,
    "down_block_types": listed(DOWN),
    "mid_block_type": one_of("UNetMidBlock2D", None),
    "up_block_types": listed(UP),
    "block_out_channels": listed(CHANNELS),
    "layers_per_block": whole(1, 100),
    "mid_block_scale_factor": number(0, without=(0,)),
    "downsample_padding": whole(0, 1),
    "downsample_type": RESAMPLING,
    "upsample_type": RESAMPLING,
    "dropout": number(0, 1, without=(1,)),
    "act_fn": one_of("swish", "silu", "mish", "gelu", "relu"),
    "attention_head_dim": maybe(CHANNELS),
    "norm_num_groups": CHANNELS,
    "attn_norm_num_groups": maybe(CHANNELS),
    "norm_eps": number(0, without=(0,)),
    "resnet_time_scale_shift": one_of("default", "scale_shift"),
    "add_attention": FLAG,
    "class_embed_type": one_of(None),
    "num_class_embeds": one_of(None),
    "num_train_timesteps": maybe(whole(1, 100_000)),
}


def build_unet(config: Mapping[str, Any]) -> UNet2DModel:
    """A randomly initialised `UNet2DModel`; `config` holds its constructor's arguments.

    Raises NrcgError, which names the key, for arguments that no network of RGB images can have; `check_unet` alone
    needs no memory for weights.
    """
    check_unet(config)
    return UNet2DModel(**config)


def check_unet(config: Mapping[str, Any]) -> None:
    """Raise NrcgError for arguments that `build_unet` refuses: tried on torch's device "meta", without any weights."""
    check("unet", config, UNET_RULES)
    if config.get("sample_size") is None:
        raise NrcgError("unet: no key sample_size; give the images' width and height in pixels")
    side = config["sample_size"]
    height, width = (side, side) if isinstance(side, int) else side
    channels = config.get("block_out_channels", (224, 448, 672, 896))
    for key, of in (("norm_num_groups", channels), ("attn_norm_num_groups", channels[-1:])):
        groups = config.get(key, 32 if key == "norm_num_groups" else None)
        if groups and (odd := [count for count in of if count % groups]):
            raise NrcgError(f"unet: {key} {groups}: must divide block_out_channels, but does not divide {odd[0]}")
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            unet = UNet2DModel(**config)
            unet(torch.empty(1, 3, height, width), torch.zeros(1, dtype=torch.long))
    except FAILURES as error:
        raise NrcgError(
            f"unet: no network has these arguments ({_first_line(error)}); check that down_block_types, up_block_types "
            f"and block_out_channels are equally long and fit each other, and that every block but the last can halve "
            f"sample_size ({side})"
        ) from None


def takes_images(sample_size: Any, size: int) -> bool:
    """Whether a U-Net whose configuration says `sample_size`, one number or two, is for square images of `size`."""
    return sample_size == size or (isinstance(sample_size, list | tuple) and list(sample_size) == [size, size])


def build_scheduler(config: Mapping[str, Any]) -> DDPMScheduler:
    """A `DDPMScheduler`; `config` holds its constructor's arguments.

    Raises NrcgError, which names the key, for arguments that it does not have or that make no schedule.
    """
    check("scheduler", config, SCHEDULER_RULES)
    steps, betas = config.get("num_train_timesteps", 1000), config.get("trained_betas")
    if betas is not None and len(betas) != steps:
        raise NrcgError(f"scheduler: trained_betas are {len(betas)}; it must be one for each of {steps} timesteps")
    if config.get("beta_start", 1e-4) > config.get("beta_end", 0.02):
        raise NrcgError("scheduler: beta_start is above beta_end; exchange them")
    return DDPMScheduler(**config)


def check_sampling(scheduler: DDPMScheduler, num_inference_steps: int) -> None:
    """Raise NrcgError unless this project can sample with this scheduler in so many steps."""
    config = scheduler.config
    if not whole(1).holds(num_inference_steps) or num_inference_steps > config.num_train_timesteps:
        raise NrcgError(
            f"num_inference_steps {num_inference_steps}: must be a whole number from 1 to the scheduler's "
            f"num_train_timesteps, {config.num_train_timesteps}"
        )
    if config.variance_type in ("learned", "learned_range"):
        raise NrcgError(
            f"scheduler: variance_type {config.variance_type}: needs a network that predicts variances, which this "
            "project cannot sample; use fixed_small or fixed_large"
        )
    for key in ("variance_type", "timestep_spacing", "prediction_type"):
        if not SCHEDULER_RULES[key].holds(config[key]):
            raise NrcgError(f"scheduler: {key} {config[key]!r}: must be {SCHEDULER_RULES[key].words}")
    tried = DDPMScheduler.from_config(config)
    tried.set_timesteps(num_inference_steps)
    first, last = int(max(tried.timesteps)), int(min(tried.timesteps))
    if last < 0 or first >= config.num_train_timesteps:
        raise NrcgError(
            f"num_inference_steps {num_inference_steps}: with timestep_spacing {config.timestep_spacing} and "
            f"steps_offset {config.steps_offset} the timesteps run from {first} to {last}, but must lie in 0 to "
            f"{config.num_train_timesteps - 1}; take another number of steps or a smaller offset"
        )


def load_ddpm(folder: str | Path, device: torch.device | str = "cpu") -> tuple[UNet2DModel, DDPMScheduler]:
    """U-Net (eval mode) and scheduler from a folder that `save_ddpm` wrote; safetensors only, never a pickle.

    Raises NrcgError when a file is missing or damaged, when its weights are not those of `card.json` (where there is
    one with their SHA-256), when weights and configuration are not of one network, and for a network of other than RGB
    images.
    """
    folder = Path(folder)
    if not (folder / "unet").is_dir():
        raise NrcgError(f"{folder}: no folder of a DDPM; train one, or bring one with `nrcg get ddpm`")
    card, weights = folder / "card.json", folder / "unet" / f"{WEIGHTS}.safetensors"
    if card.is_file() and weights.is_file() and (expected := read_card(card).get("sha256")):
        require_digest(weights, expected, card)
    unet = load_unet(folder / "unet")
    channels = unet.config.in_channels, unet.config.out_channels
    if channels != (3, 3):
        raise NrcgError(f"{folder}: a U-Net from {channels[0]} to {channels[1]} channels; RGB images need 3 to 3")
    if unet.class_embedding is not None:
        raise NrcgError(f"{folder}: a U-Net that is told the class; this project guides one that is not")
    return unet.to(device), load_scheduler(folder / "scheduler")


def load_unet(folder: Path, *, use_safetensors: bool = True, name: str | Path | None = None) -> UNet2DModel:
    """The U-Net (eval mode) of a local folder with `config.json` and `diffusion_pytorch_model.safetensors`.

    With `use_safetensors=False` the weights are `diffusion_pytorch_model.bin`, a pickle that diffusers opens with
    torch's weights_only=True: one that holds more than tensors is refused. Weights from before diffusers renamed its
    attention layers are converted. Raises NrcgError, which calls the weights `name`, when anything cannot be read and
    when a single weight is missing, left over, or of another shape: diffusers would leave it random and only warn.
    """
    name = name or folder
    if use_safetensors and not (folder / f"{WEIGHTS}.safetensors").exists() and (folder / f"{WEIGHTS}.bin").exists():
        raise NrcgError(
            f"{folder}: holds its weights as {WEIGHTS}.bin alone, a pickle; bring the DDPM with `nrcg get ddpm`"
        )
    try:
        read_card(folder / "config.json")
        with _without_warnings():
            unet, info = UNet2DModel.from_pretrained(
                str(folder),
                use_safetensors=use_safetensors,
                local_files_only=True,
                low_cpu_mem_usage=False,
                ignore_mismatched_sizes=True,  # to hear of them in `info`
                output_loading_info=True,
            )
    except (NrcgError, *FAILURES) as error:
        if is_out_of_memory(error):
            raise
        pickle = "" if use_safetensors else "; a .bin that holds more than tensors is refused"
        raise NrcgError(f"{name}: cannot be read as a U-Net ({_first_line(error)}){pickle}") from None
    mismatched = [key for key, *_ in info["mismatched_keys"]]
    if difference := describe_difference(info["missing_keys"], info["unexpected_keys"], mismatched):
        raise NrcgError(f"{name}: not weights of the U-Net that its configuration describes ({difference})")
    return unet


def load_scheduler(folder: Path) -> DDPMScheduler:
    """The scheduler of a local folder with `scheduler_config.json`; raises NrcgError when it cannot be read."""
    try:
        config = read_card(folder / "scheduler_config.json")
        known = {key: value for key, value in config.items() if key in SCHEDULER_RULES}  # others are of later versions
        build_scheduler(known)
        return DDPMScheduler.from_pretrained(str(folder), local_files_only=True)
    except (NrcgError, *FAILURES) as error:
        raise NrcgError(f"{folder}: cannot be read as a DDPM's scheduler ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0].strip()


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
    with atomic(folder / "unet" / f"{WEIGHTS}.safetensors") as file:
        file.write(save(weights, metadata={"format": "pt"}))
    write_text(folder / "unet" / "config.json", unet.to_json_string())
    write_text(folder / "scheduler" / "scheduler_config.json", scheduler.to_json_string())
    write_text(folder / "model_index.json", DDPMPipeline(unet=unet, scheduler=scheduler).to_json_string())


def write_card(folder: str | Path, card: dict[str, Any]) -> None:
    """Write `card.json` of a DDPM that `save_ddpm` wrote, with the SHA-256 of its weights."""
    weights = Path(folder) / "unet" / f"{WEIGHTS}.safetensors"
    write_json(Path(folder) / "card.json", {**card, "sha256": sha256(weights)})
