"""Images that are not square and a diffusion model of four channels, from training to scores."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY_UNET
from typer.testing import CliRunner

from nrcg.cli import app
from nrcg.datasets.imageset import write_image_set
from nrcg.models.ddpm import load_ddpm
from nrcg.training.classifier import train_classifier
from nrcg.training.ddpm import train_ddpm
from nrcg.training.settings import ClassifierTraining, DDPMTraining

UNET = {**TINY_UNET, "sample_size": [8, 16], "in_channels": 4, "out_channels": 4}
SCHEDULER = {"num_train_timesteps": 8}


def verb(*words):
    device = [] if words[:2] == ("measure", "score") else ["--device", "cpu"]  # which runs no network
    done = CliRunner().invoke(app, [*map(str, words), *device], catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image set of 8×16 pixels, a DDPM of RGBA images and a robust classifier."""
    folder, n = tmp_path_factory.mktemp("shape"), 48
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 16, 3), dtype=np.uint8)
    split = np.repeat([0, 1], [32, 16])
    about = {"name": "strips", "classes": ["a", "b", "c"], "seed": 0, "parameters": {}}
    write_image_set(folder / "data", images, np.arange(n) % 3, split, **about)
    common = {"scheduler": SCHEDULER, "device": torch.device("cpu")}
    settings = DDPMTraining(epochs=1, batch_size=8, precision="fp32")
    checkpoint = {"checkpoint": folder / "ddpm.pt", "preview_every": 4}
    train_ddpm(folder / "data", folder / "ddpm", unet=UNET, settings=settings, **checkpoint, **common)
    settings = ClassifierTraining(robust=True, channels=4, max_epochs=1, batch_size=8)
    train_classifier(folder / "data", folder / "classifier", settings=settings, checkpoint=folder / "c.pt", **common)
    return folder


def test_training(folder):
    unet, _ = load_ddpm(folder / "ddpm")
    assert unet.config.in_channels == 4 and list(unet.config.sample_size) == [8, 16]
    assert (folder / "ddpm/previews/step_0000004.png").exists()
    assert json.loads((folder / "classifier/card.json").read_text())["size"] == [8, 16]


def test_samples_are_written_as_rgb_and_scored(folder):
    shard = folder / "samples.npy"
    words = ["sample", "--ddpm", folder / "ddpm", "--classifier", folder / "classifier", "--scale", 2, "--target", "b"]
    verb(*words, "--start", 0, "--stop", 6, "--num-inference-steps", 4, "--out", shard)
    assert np.load(shard).shape == (6, 8, 16, 3)
    own, weights = folder / "own.npz", str(folder / "classifier")
    data = ["--data", folder / "data", "--extractor", "classifier", "--weights", weights, "--target", "b"]
    verb("measure", "reference", *data, "--out", own)
    judges = ["--guiding", weights, "--judge", weights]
    extractors = json.dumps({"own": {"extractor": "classifier", "weights": weights}})
    seen = ["--extractors", extractors, "--verdicts", folder / "v.csv", "--out", folder / "features"]
    verb("measure", "features", shard, *judges, *seen)
    found = ["--verdicts", folder / "v.csv", "--features", f"own={folder}/features/own.npy"]
    found += ["--reference", f"own={own}", "--scale", 2, "--judge", weights]
    verb("measure", "score", *found, "--metric", "fd", "--target", "b", "--out", folder / "scores.csv")
    scores = pd.read_csv(folder / "scores.csv").set_index("metric")["value"]
    assert {"accuracy", "accuracy_judge", "fd_own", "cfd_own"} <= set(scores.index) and scores.notna().all()


@pytest.mark.parametrize("on", ["xt", "x0"])
def test_the_forward_analysis(folder, on):
    words = ["--data", folder / "data", "--ddpm", folder / "ddpm", "--classifier", folder / "classifier", "--on", on]
    out = folder / f"{on}.csv"
    verb("measure", "forward", *words, "--setups", '{"raw": null}', "--images", 4, "--out", out)
    assert set(pd.read_csv(out)["t"]) == set(range(1, 9))
