"""Each section of a config has a function that refuses what it cannot mean, names the key, and needs no data for it."""

import math

import pytest
import torch
from conftest import TINY_UNET

from nrcg.datasets import check_images, make_images
from nrcg.diffusion.steps import set_timesteps
from nrcg.errors import NrcgError
from nrcg.models.ddpm import build_scheduler, build_unet, check_unet
from nrcg.training.settings import ClassifierTraining, DDPMTraining

NAN = math.nan


def sportballs(**settings):
    return check_images("sportballs", settings)


WRONG = {
    build_scheduler: [
        ("num_train_timesteps", [0, -1, 10.0, "10", True, None, 10**9]),
        ("beta_start", [0, NAN, "1e-4", -0.1, 0.5]),
        ("beta_end", [1, 2.0, math.inf, None]),
        ("beta_schedule", ["foo", None, 1, ["linear"]]),
        ("trained_betas", [[0.1], "x", [NAN] * 1000]),
        ("variance_type", ["fixed", 3]),
        ("prediction_type", ["eps", {}]),
        ("timestep_spacing", ["even"]),
        ("clip_sample", [1, "yes"]),
        ("steps_offset", [-1, 0.5]),
        ("num_steps", [3]),
    ],
    check_unet: [
        ("sample_size", [None, 0, 8.0, "8", [8], 9]),
        ("norm_num_groups", [7, 0, NAN]),
        ("block_out_channels", [[8], 8, [8, 16.0], [], [8, 0]]),
        ("down_block_types", [["DownBlock2D", "Foo"], "DownBlock2D", ["DownBlock2D"]]),
        ("up_block_types", [["UpBlock2D", "CrossAttnUpBlock2D"], ["UpBlock2D"] * 3]),
        ("layers_per_block", [10**9, 0, 1.0]),
        ("in_channels", [1, 4]),
        ("out_channels", [6]),
        ("act_fn", ["foo"]),
        ("dropout", [NAN, 1, -0.1]),
        ("class_embed_type", ["timestep"]),
        ("attn_norm_num_groups", [5]),
        ("foo", [1]),
    ],
    ClassifierTraining: [
        ("architecture", ["resnet99", None, 1]),
        ("robust", [1, "no"]),
        ("max_epochs", [0, 2.0, NAN]),
        ("batch_size", [0, 1, "16"]),
        ("learning_rate", [NAN, -1, math.inf, "1"]),
        ("min_gain", [NAN, None]),
        ("seed", [-1, 2**64, 0.0]),
    ],
    DDPMTraining: [
        ("epochs", [0, 1.5]),
        ("precision", ["fp16", None]),
        ("ema_decay", [1, -0.1, NAN]),
        ("gradient_clip", [0, NAN]),
        ("learning_rate", [-1e-4]),
        ("warmup_steps", [-1]),
    ],
    sportballs: [
        ("n", [0, 320.0, "3", NAN]),
        ("size", [0, 64.0, True]),
        ("seed", [-1, 2**64]),
        ("ball", [["baseball", "tennis"], [], "baseball", ["soccer", "soccer"], [1]]),
        ("scale", [[], [NAN], [0], [-1], "x", 0.5, [0.01]]),
        ("positions", [0, 64, 1.0]),
        ("ball_pixels", [0, 12.5]),
        ("valid_fraction", [1, NAN, -0.1, "0.2", 0.999]),
    ],
}
RIGHT = {
    build_scheduler: {},
    check_unet: TINY_UNET,
    ClassifierTraining: {},
    DDPMTraining: {},
    sportballs: {"n": 100},
}
CASES = [(kind, key, value) for kind, keys in WRONG.items() for key, values in keys for value in values]


def call(kind, arguments):
    return kind(arguments) if kind in (build_scheduler, check_unet, build_unet) else kind(**arguments)


@pytest.mark.parametrize(("kind", "key", "value"), CASES)
def test_wrong_values_are_refused_and_their_key_is_named(kind, key, value):
    call(kind, RIGHT[kind])
    with pytest.raises((NrcgError, TypeError) if key == "foo" else NrcgError, match=rf"(?s)^(?!.*\n).*{key}"):
        call(kind, {**RIGHT[kind], key: value})


@pytest.mark.parametrize("config", [[1], None, "x", 3])
def test_sections_that_are_no_objects_are_refused(config):
    for kind in (build_scheduler, build_unet):
        with pytest.raises(NrcgError, match="give an object"):
            kind(config)


def test_a_unet_is_checked_without_its_memory_and_draws_nothing():
    huge = {**TINY_UNET, "block_out_channels": [32768, 32768], "norm_num_groups": 32}
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_unet(huge)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("config", "steps", "message"),
    [
        ({}, 1001, "num_inference_steps is 1001; .* from 1 to 1000"),
        ({}, 0, "num_inference_steps is 0"),
        ({}, 5.0, "num_inference_steps is 5.0"),
        ({"steps_offset": 1}, 1000, "steps_offset=1"),
    ],
)
def test_what_cannot_be_sampled_is_refused(config, steps, message):
    with pytest.raises(NrcgError, match=message):
        set_timesteps(build_scheduler(config), steps)
    for spacing in ("linspace", "leading", "trailing"):
        set_timesteps(build_scheduler({"timestep_spacing": spacing}), 50)
    broken = build_scheduler({})
    broken.register_to_config(timestep_spacing="even")
    with pytest.raises(NrcgError, match="scheduler: even"):
        set_timesteps(broken, 50)


def test_icons_are_named_by_their_files_and_a_full_disk_is_told_before_drawing(tmp_path):
    (tmp_path / "tennis.png").write_text("no picture, and not opened")
    assert sportballs(n=3, ball=["tennis"], icons=tmp_path) == ["tennis"]
    with pytest.raises(NrcgError, match="'golf' is not among tennis"):
        sportballs(n=3, ball=["golf"], icons=tmp_path)
    with pytest.raises(NrcgError, match="GB, but its disk has"):
        make_images("sportballs", tmp_path / "set", {"n": 10**15})
    assert not (tmp_path / "set").exists()
