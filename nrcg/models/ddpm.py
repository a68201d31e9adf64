"""Noise predictors and schedulers, stored as diffusers folders for `DDPMPipeline.from_pretrained`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDPMPipeline, DDPMScheduler, SchedulerMixin, UNet2DModel
from diffusers.utils import logging
from safetensors.torch import save

from nrcg.checks import FLAG, NAME, Rule, check, listed, maybe, number, one_of, one_or_two, sides, spread, whole
from nrcg.diffusion.steps import LEARNED
from nrcg.errors import NrcgError, first_line
from nrcg.io.files import atomic, read_card, require_digest, sha256, write_json, write_text
from nrcg.registry import check_arguments
from nrcg.runtime.memory import is_out_of_memory

WEIGHTS = "diffusion_pytorch_model"  # .safetensors or .bin, as diffusers names them
COUNT, STEPS, POSITIVE = whole(1, 65_536), whole(1, 100_000), number(0, without=(0,))
CHANNELS = Rule("1 (grey), 3 (RGB) or 4 (RGBA)", lambda value: whole(1, 4).holds(value) and value != 2)
SCHEDULER_RULES = spread(
    {
        "num_train_timesteps": STEPS,
        "beta_start beta_end": number(0, 1, without=(0, 1)),
        "beta_schedule": one_of("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"),
        "trained_betas": maybe(listed(number(0, 1, without=(0,)))),
        "variance_type": one_of(
            "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"
        ),
        "prediction_type": one_of("epsilon", "sample", "v_prediction"),
        "timestep_spacing": one_of("linspace", "leading", "trailing"),
        "steps_offset": whole(0),
        "clip_sample thresholding rescale_betas_zero_snr": FLAG,
        "clip_sample_range sample_max_value": POSITIVE,
        "dynamic_thresholding_ratio": number(0, 1, without=(0,)),
    }
)
UNET_RULES = spread(  # `check_unet` finds further errors, such as an unknown kind of block, by a trial
    {
        "sample_size": one_or_two(COUNT),
        "in_channels out_channels": CHANNELS,
        "center_input_sample flip_sin_to_cos add_attention": FLAG,
        "time_embedding_type": one_of("positional", "fourier", "learned"),
        "time_embedding_dim attention_head_dim attn_norm_num_groups": maybe(COUNT),
        "freq_shift": number(),
        "down_block_types up_block_types": listed(NAME),
        "mid_block_type": one_of("UNetMidBlock2D", None),
        "block_out_channels": listed(COUNT),
        "norm_num_groups": COUNT,
        "layers_per_block": whole(1, 100),
        "downsample_padding": whole(0, 1),
        "downsample_type upsample_type": one_of("conv", "resnet"),
        "mid_block_scale_factor norm_eps": POSITIVE,
        "dropout": number(0, 1, without=(1,)),
        "act_fn": one_of("swish", "silu", "mish", "gelu", "relu"),
        "resnet_time_scale_shift": one_of("default", "scale_shift"),
        "class_embed_type num_class_embeds": one_of(None),
        "num_train_timesteps": maybe(STEPS),
    }
)


def build_unet(config: Mapping[str, Any]) -> UNet2DModel:
    """A randomly initialised `UNet2DModel` from its constructor's arguments."""
    check_unet(config)
    return UNet2DModel(**config)


def check_unet(config: Mapping[str, Any]) -> None:
    """Test arguments of UNet2DModel on torch's device "meta", which needs no memory for weights."""
    check("unet", config, UNET_RULES)
    if config.get("sample_size") is None:
        raise NrcgError("unet: no key sample_size; give the images' width and height in pixels")
    side, channels = config["sample_size"], config.get("in_channels", 3)
    if config.get("out_channels", 3) != channels:
        raise NrcgError(f"unet: out_channels {config.get('out_channels', 3)}, in_channels {channels}; make them equal")
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            UNet2DModel(**config)(torch.empty(1, channels, *sides(side)), torch.zeros(1, dtype=torch.long))
    except Exception as error:  # any error of diffusers or torch
        raise NrcgError(
            f"unet: no network has these arguments ({first_line(error)}); check that down_block_types, up_block_types "
            f"and block_out_channels are equally long and fit each other, that norm_num_groups and "
            f"attn_norm_num_groups divide them, and that every block but the last can halve sample_size ({side})"
        ) from None


def check_channels(where: str, config: Mapping[str, Any], variance_type: str) -> None:
    """Refuse an imported U-Net with unsupported numbers of input and output channels."""
    n, out = config.get("in_channels", 3), config.get("out_channels", 3)
    check(where, {"in_channels": n}, {"in_channels": CHANNELS})
    if out not in (n, 2 * n) or (variance_type in LEARNED and out == n):
        wanted = f"{2 * n} (the second half is the variance)" if variance_type in LEARNED else f"{n}"
        raise NrcgError(f"{where}: out_channels is {out}, but variance_type {variance_type} needs {wanted}")


def takes_images(sample_size: Any, size: int | Sequence[int]) -> bool:
    """Whether a U-Net with this `sample_size` fits images of `size`; each is one number or two."""
    return UNET_RULES["sample_size"].holds(sample_size) and sides(sample_size) == sides(size)


def build_scheduler(config: Mapping[str, Any]) -> DDPMScheduler:
    """A `DDPMScheduler` from its constructor's arguments; NrcgError if they are no valid schedule."""
    check("scheduler", config, SCHEDULER_RULES)
    steps, betas = config.get("num_train_timesteps", 1000), config.get("trained_betas")
    if betas is not None and len(betas) != steps:
        raise NrcgError(f"scheduler: trained_betas has {len(betas)} values, not one for each of {steps} timesteps")
    if config.get("beta_start", 1e-4) > config.get("beta_end", 0.02):
        raise NrcgError("scheduler: beta_start is above beta_end; swap them")
    return DDPMScheduler(**config)


def sampling_scheduler(trained: DDPMScheduler, section: Any) -> tuple[Any, dict[str, Any]]:
    """The scheduler for sampling, with the noise schedule of the trained one, and arguments of the pipeline.

    Args:
        trained: the DDPM's own scheduler.
        section: None for the trained scheduler, or the name of a diffusers class, or {name: {argument: value}}, such as
            {"DDIMScheduler": {"eta": 1.0, "timestep_spacing": "trailing"}}. `eta`, `signal_leak` and `timesteps` are
            arguments of the pipeline.

    Raises:
        NrcgError: for an unknown name or unknown arguments, or if the scheduler cannot be built.
    """
    if section is None:
        return trained, {}
    name, arguments = (section, {}) if isinstance(section, str) else (None, None)
    if isinstance(section, Mapping) and len(section) == 1:
        ((name, arguments),) = section.items()
    kind: Any = getattr(diffusers, str(name), None)
    known = isinstance(kind, type) and issubclass(kind, SchedulerMixin)
    if not known or not isinstance(arguments, Mapping):
        raise NrcgError(f"scheduler {section!r}: name one of diffusers, such as DDIMScheduler, or {{name: {{…}}}}")
    arguments = dict(arguments)
    options = {key: arguments.pop(key) for key in ("eta", "signal_leak", "timesteps") if key in arguments}
    check(
        f"scheduler {name}",
        options,
        {"eta": number(0, 1), "signal_leak": maybe(number(-1, 1)), "timesteps": maybe(listed(whole(0)))},
    )
    check_arguments(kind, f"scheduler {name}", arguments)
    try:
        made: Any = kind.from_config(trained.config, **arguments)
    except Exception as error:  # any error of diffusers
        raise NrcgError(f"scheduler {name}: {first_line(error)}") from None
    return made, options


def load_ddpm(folder: str | Path, device: torch.device | str = "cpu") -> tuple[UNet2DModel, DDPMScheduler]:
    """U-Net (eval mode) and scheduler from a folder of `save_ddpm`: grey, RGB or RGBA; refuses pickles."""
    folder = Path(folder)
    if not (folder / "unet").is_dir():
        raise NrcgError(f"{folder}: not the folder of a DDPM; train one, or import one with `nrcg get ddpm`")
    card, weights = folder / "card.json", folder / "unet" / f"{WEIGHTS}.safetensors"
    if not weights.exists() and weights.with_suffix(".bin").exists():
        raise NrcgError(f"{weights.parent}: holds only a pickle of the weights; import the DDPM with `nrcg get ddpm`")
    if card.is_file() and weights.is_file() and (expected := read_card(card).get("sha256")):
        require_digest(weights, expected, card)
    unet, scheduler = load_unet(weights), load_scheduler(folder / "scheduler")
    check_channels(f"{folder}: unet", unet.config, scheduler.config["variance_type"])
    return unet.to(device), scheduler


def load_unet(weights: Path, name: Path | None = None) -> UNet2DModel:
    """The U-Net (eval mode) from a local weights file with diffusers' file name and `config.json` beside it."""
    logging.set_verbosity_error()  # diffusers only warns of missing weights, which are refused below
    pickled = weights.suffix == ".bin"  # diffusers opens it with torch's weights_only=True
    try:
        read_card(weights.with_name("config.json"))
        unet, info = UNet2DModel.from_pretrained(
            str(weights.parent),
            use_safetensors=not pickled,
            local_files_only=True,
            low_cpu_mem_usage=False,  # True needs another package
            ignore_mismatched_sizes=True,  # lists them in `info`
            output_loading_info=True,
        )
    except Exception as error:  # any error of diffusers or torch for foreign files
        if is_out_of_memory(error):
            raise
        pickle = "; a .bin with more than tensors is refused" if pickled else ""
        raise NrcgError(f"{name or weights}: cannot be read as a U-Net ({first_line(error)}){pickle}") from None
    wrong = info["missing_keys"], info["unexpected_keys"], [key for key, *_ in info["mismatched_keys"]]
    refuse_others(name or weights, "the U-Net that its configuration describes", *wrong)
    unet.register_to_config(_name_or_path=None)  # a path of this machine
    return unet


def load_scheduler(folder: Path) -> DDPMScheduler:
    """The scheduler from a local folder with `scheduler_config.json`."""
    try:
        config = read_card(folder / "scheduler_config.json")
        build_scheduler({key: config[key] for key in SCHEDULER_RULES if key in config})  # others: of later versions
        return DDPMScheduler.from_config(config)
    except Exception as error:
        raise NrcgError(f"{folder}: cannot be read as a DDPM's scheduler ({first_line(error)})") from None


def refuse_others(
    weights: Path, network: str, missing: Iterable[str], unexpected: Iterable[str], mismatched: Iterable[str]
) -> None:
    """Refuse weights whose keys differ from those of `network`; the message has one example of each kind."""
    kinds = {"missing": sorted(missing), "unexpected": sorted(unexpected), "of another shape": sorted(mismatched)}
    if difference := ", ".join(f"{len(keys)} {kind}: {keys[0]}" for kind, keys in kinds.items() if keys):
        raise NrcgError(f"{weights}: not weights of {network} ({difference})")


def save_ddpm(folder: str | Path, unet: UNet2DModel, scheduler: DDPMScheduler, card: dict[str, Any]) -> None:
    """Write the same files as `DDPMPipeline.save_pretrained`, atomically, and a card with the SHA-256."""
    folder, place = Path(folder), Path(folder, "unet", f"{WEIGHTS}.safetensors")
    weights = {name: tensor.contiguous() for name, tensor in unet.state_dict().items()}
    with atomic(place) as file:
        file.write(save(weights, metadata={"format": "pt"}))
    write_text(folder / "unet" / "config.json", unet.to_json_string())
    write_text(folder / "scheduler" / "scheduler_config.json", scheduler.to_json_string())
    write_text(folder / "model_index.json", DDPMPipeline(unet=unet, scheduler=scheduler).to_json_string())
    write_json(folder / "card.json", {**card, "sha256": sha256(place)})
