"""The search for a scale: on curves of a known best, and by the verbs with tiny networks."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import TINY_UNET
from diffusers import DDPMScheduler, UNet2DModel
from typer.testing import CliRunner

from nrcg.cli import app
from nrcg.errors import NrcgError
from nrcg.evaluation.extractors import classifier as extractor_of
from nrcg.evaluation.features import reference
from nrcg.evaluation.frechet import FeatureStatistics, frechet_distance
from nrcg.evaluation.scale_search import TUNING, Trial, best, find_scale, grid, overlay, table
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import save_classifier
from nrcg.models.ddpm import save_ddpm


def curve(optimum, broken=math.inf):
    """Shares that rise and distances that fall up to `optimum` and rise beyond; infinite from `broken` on."""

    def measure(scale):
        if scale is None:
            return Trial(None, 0.35, 500.0, 48)
        share = 0.35 + 0.6 / (1 + (optimum / 4 / scale) ** 2)
        distance = 500 * (1 - share) + 40 * (scale / optimum) ** 2
        return Trial(scale, 0.33 if scale > 20 * optimum else share, math.inf if scale >= broken else distance, 48)

    return measure


@pytest.mark.parametrize("optimum", [0.02, 0.5, 3.0, 40.0])
@pytest.mark.parametrize("start", [0.1, 1.0, 10.0])
def test_a_search_ends_near_the_best_scale(optimum, start):
    trials = find_scale(curve(optimum), start)
    fine = min(
        (curve(optimum)(float(s)) for s in np.geomspace(optimum / 50, optimum * 50, 400)), key=lambda t: t.distance
    )
    assert best(trials).distance < 1.35 * fine.distance and len(trials) <= 14
    scales = [trial.scale for trial in trials[1:]]
    assert trials[0].scale is None and scales == sorted(scales)
    assert grid(trials)[2] == best(trials).scale and grid(trials)[-1] == pytest.approx(16 * grid(trials)[0], rel=0.1)


def test_scales_that_destroy_the_samples_lead_down():
    trials = find_scale(curve(0.02, broken=0.5), 1.0)
    assert best(trials).scale < 0.2


def test_trials_are_at_most_so_many():
    assert len(find_scale(curve(1e9), 1e-6, most=6)) <= 7


def test_an_overlay_has_a_grid_or_the_best_scale_alone(tmp_path):
    trials = find_scale(curve(3.0))
    table(trials).to_csv(tmp_path / "robust.csv", index=False)
    tables = {("balls", "robust"): tmp_path / "robust.csv"}
    for sweep, scales in {True: grid(trials), False: [best(trials).scale]}.items():
        found = yaml.safe_load(overlay(tables, sweep))["datasets"]["balls"]
        assert found["scales"] == {"robust": scales} and "samples 1000000 to 1000047" in found["scales_note"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory, blob_set):
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    save_ddpm(folder / "ddpm", UNet2DModel(**TINY_UNET), DDPMScheduler(num_train_timesteps=20, beta_end=0.2), {})
    card = {"architecture": "mobilenet_v3_small", "classes": ["a", "b", "c"], "n_logits": 3}
    for name in ("guide", "judge"):
        save_classifier(folder / name, build_classifier("mobilenet_v3_small", 3), card)
    reference(blob_set.folder, extractor_of(folder / "judge"), target=1).save(folder / "reference.npz")
    return folder


def options(folder, *more):
    given = ["--ddpm", folder / "ddpm", "--classifier", folder / "guide", "--target", "b", "--num-inference-steps", 2]
    return list(map(str, [*given, "--device", "cpu", "--threads", 1, *more]))


def test_sample_with_an_automatic_scale_is_sample_with_the_scale_found(networks, tmp_path):
    search = ["--judge", networks / "judge", "--reference", networks / "reference.npz"]
    shard = ["--start", 0, "--stop", 3]

    def run(*arguments):
        return CliRunner().invoke(app, list(map(str, arguments)))

    found = run("sample", *options(networks, "--scale", "auto", *search, *shard, "--out", tmp_path / "auto.npy"))
    assert found.exit_code == 0, found.exception
    trials = pd.read_csv(tmp_path / "auto.scales.csv")
    scale = trials[trials["best"]]["scale"].item()
    assert f"scale {scale:g}" in found.stdout and trials["first_sample"].unique() == [TUNING]
    assert json.loads((tmp_path / "auto.json").read_text())["scale"] == scale
    again = run("sample", *options(networks, "--scale", scale, *shard, "--out", tmp_path / "fixed.npy"))
    assert again.exit_code == 0
    assert (tmp_path / "auto.npy").read_bytes() == (tmp_path / "fixed.npy").read_bytes()


def test_a_search_that_starts_where_guidance_saturates_finds_the_best_scale():
    """As with DSG, whose samples above the scale 1 are all alike: not far enough to end the rise."""

    def measure(scale):
        return Trial(scale, 0.3, 1.3 * 500.0, 48) if scale and scale > 0.2 else curve(0.015)(scale)

    assert 0.007 <= best(find_scale(measure, 1.0)).scale <= 0.03


def test_the_distance_of_a_search_is_that_of_the_named_extractor(networks, blob_set, tmp_path):
    other = extractor_of(networks / "guide")
    known = reference(blob_set.folder, other, target=1)
    known.save(tmp_path / "reference.npz")
    search = ["--judge", networks / "judge", "--weights", networks / "guide", "--reference", tmp_path / "reference.npz"]
    common = options(networks)
    search += ["--samples", 6, "--out", tmp_path / "trials.csv"]
    result = CliRunner().invoke(app, ["measure", "scale", *common, *map(str, search)])
    assert result.exit_code == 0, result.exception
    shard = ["--start", TUNING, "--stop", TUNING + 6, "--out", tmp_path / "samples.npy"]
    unguided = [each for each in common if each not in ("--classifier", str(networks / "guide"))]
    assert CliRunner().invoke(app, ["sample", *unguided, *map(str, shard)]).exit_code == 0
    drawn = FeatureStatistics(other.dim)
    drawn.update(other(np.load(tmp_path / "samples.npy")))
    expected = frechet_distance(drawn, known.target.statistics)
    assert pd.read_csv(tmp_path / "trials.csv")["distance"][0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--scale", "auto"], "--judge and --reference"),
        (["--scale", "big"], "--scale big: must be a number of at least 0, or auto"),
        (["--scale", "-1"], "--scale -1"),
        (["--scale", "nan"], "--scale nan"),
    ],
)
def test_scales_that_cannot_be_are_one_line(networks, tmp_path, more, message):
    with pytest.raises(NrcgError, match=message):
        arguments = options(networks, *more, "--start", 0, "--stop", 1, "--out", tmp_path / "x.npy")
        result = CliRunner().invoke(app, ["sample", *arguments])
        raise result.exception
