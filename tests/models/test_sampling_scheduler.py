"""The scheduler that samples: of diffusers, by name, on the schedule that the network was trained with."""

import json

import numpy as np
import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
from typer.testing import CliRunner

from nrcg.cli import app
from nrcg.errors import NrcgError
from nrcg.models.ddpm import sampling_scheduler, save_ddpm
from nrcg.pipeline import GuidedPipeline
from nrcg.rng import keyed_generator

TRAINED = DDPMScheduler(num_train_timesteps=20, beta_end=0.2, prediction_type="v_prediction")


def test_none_is_the_one_trained_with():
    assert sampling_scheduler(TRAINED, None) == (TRAINED, {})


def test_another_keeps_the_schedule_and_takes_arguments():
    made, options = sampling_scheduler(TRAINED, {"DDIMScheduler": {"eta": 0.5, "timestep_spacing": "trailing"}})
    assert type(made) is DDIMScheduler and options == {"eta": 0.5}
    assert torch.equal(made.alphas_cumprod, TRAINED.alphas_cumprod)
    assert (made.config.prediction_type, made.config.timestep_spacing) == ("v_prediction", "trailing")
    for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler"):
        assert type(sampling_scheduler(TRAINED, name)[0]).__name__ == name


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("DDIM", "scheduler 'DDIM': name one of diffusers"),
        ("UNet2DModel", "name one of diffusers"),
        (3, "name one of diffusers"),
        ({}, "name one of diffusers"),
        ({"DDIMScheduler": 1}, "name one of diffusers"),
        ({"DDIMScheduler": {"etta": 1}}, "scheduler DDIMScheduler: unknown key etta"),
        ({"DDIMScheduler": {"eta": 2}}, "scheduler DDIMScheduler: eta 2: must be"),
        ({"DDPMScheduler": {"timesteps": 5}}, "scheduler DDPMScheduler: timesteps 5: must be"),
    ],
)
def test_what_is_none_is_one_line(section, message):
    with pytest.raises(NrcgError, match=message) as raised:
        sampling_scheduler(TRAINED, section)
    assert "\n" not in str(raised.value)


def test_the_verb_samples_with_it_as_diffusers_does(tmp_path):
    torch.manual_seed(0)
    unet = UNet2DModel(**TINY_UNET)
    save_ddpm(tmp_path / "ddpm", unet, TRAINED, {})
    scheduler = json.dumps({"DDIMScheduler": {"eta": 0.5}})
    options = ["--start", "0", "--stop", "2", "--num-inference-steps", "5", "--device", "cpu", "--scheduler", scheduler]
    result = CliRunner().invoke(
        app, ["sample", "--ddpm", str(tmp_path / "ddpm"), "--out", str(tmp_path / "s.npy"), *options]
    )
    assert result.exit_code == 0, result.exception
    pipe = DDIMPipeline(unet=unet, scheduler=TRAINED)  # turns it into a DDIMScheduler
    pipe.set_progress_bar_config(disable=True)
    generators = [keyed_generator("sampling", 0, i) for i in range(2)]
    theirs = pipe(2, generators, eta=0.5, num_inference_steps=5, output_type="np").images
    assert np.abs(np.load(tmp_path / "s.npy").astype(int) - (theirs * 255).round()).max() <= 1
    assert json.loads((tmp_path / "s.json").read_text())["scheduler"] == json.loads(scheduler)


def test_the_verb_samples_at_chosen_timesteps(tmp_path):
    torch.manual_seed(0)
    unet = UNet2DModel(**TINY_UNET)
    save_ddpm(tmp_path / "ddpm", unet, TRAINED, {})
    common = ["--ddpm", str(tmp_path / "ddpm"), "--start", "0", "--stop", "2", "--device", "cpu"]

    def sample(steps, timesteps):
        scheduler = json.dumps({"DDPMScheduler": {"timesteps": timesteps}})
        more = ["--num-inference-steps", str(steps), "--scheduler", scheduler, "--out", str(tmp_path / "s.npy")]
        return CliRunner().invoke(app, ["sample", *common, *more])

    assert sample(3, [18, 7, 0]).exit_code == 0
    pipe = GuidedPipeline(unet, TRAINED)
    generators = [keyed_generator("sampling", 0, i) for i in range(2)]
    expected = pipe(2, generators, timesteps=[18, 7, 0], output_type="np").images
    assert np.abs(np.load(tmp_path / "s.npy").astype(int) - (expected * 255).round()).max() <= 1
    assert "num_inference_steps is 4, but there are 3 timesteps" in str(sample(4, [18, 7, 0]).exception)
    assert sample(4, None).exit_code == 0, "null: equally spaced"
