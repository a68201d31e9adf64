"""`config/methods.yaml` at toy size, from the config to the scores."""

import re

import pandas as pd
import pytest
import yaml
from environment_yml import ROOT
from scratch import snakemake

from nrcg.guidance import methods
from nrcg.io.files import read_json

TOY = {
    "run": "toy",
    "extractors": ["judge"],
    "metrics": ["fd"],
    "datasets": {
        "sportballs": {
            "images": {"n": 300},
            "sampling": {
                "num_inference_steps": 3,
                "scheduler": {"DDPMScheduler": {"timesteps": None}},
                **{"n_samples": 2, "n_unconditional": 3, "n_tuning": 0},
            },
        }
    },
}


@pytest.fixture
def toy(tmp_path):
    def write(**changes):
        settings = yaml.safe_load((ROOT / "config/methods.yaml").read_text())["datasets"]["sportballs"]
        scales = {setup: [1.0] if given == "auto" else given[:1] for setup, given in settings["scales"].items()}
        data = {**TOY["datasets"]["sportballs"], "scales": {**scales, **changes}}
        data["showcase"] = {"setup": "nrcg", "scale": scales["nrcg"][0]}
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump({**TOY, "datasets": {"sportballs": data}}))
        (tmp_path / "resources").symlink_to(ROOT / "resources")
        return ["--configfile", ROOT / "config/demo.yaml", ROOT / "config/methods.yaml", path]

    return write


def test_every_method_from_its_row_to_its_score(toy, tmp_path):
    snakemake(tmp_path, "--cores", "2", "results/toy/sportballs/scores.csv", *toy())
    home = tmp_path / "results/toy/sportballs"
    scores = pd.read_csv(home / "scores.csv")
    assert set(scores["setup"]) == {"unconditional", "real", "rejection", "robust", *methods}
    assert scores[scores["metric"] == "accuracy_judge"]["value"].between(0, 1).all()
    cards = [read_json(path) for path in home.glob("samples/*/*/shard_000.json")]
    of_method = {card["guidance"]["method"]: card["guidance"] for card in cards if "method" in card.get("guidance", {})}
    assert of_method["dps"]["objective"] == "logit" and "objective" not in of_method["elucd"]  # it has its own


def test_scales_that_are_searched_for_go_into_overlays(toy, tmp_path):
    files = toy(**{name: [] for name in methods if name not in ("nrcg", "mpgd")}, mpgd="auto")
    snakemake(tmp_path, "--cores", "2", "find_scales", *files)
    found = yaml.safe_load((tmp_path / "results/toy/scales.yaml").read_text())["datasets"]["sportballs"]
    trials = pd.read_csv(tmp_path / "results/toy/sportballs/scales/mpgd.csv")
    assert trials["scale"].isna().sum() == 1 and trials["best"].sum() == 1 and (trials["n"] == 48).all()
    assert len(found["scales"]["mpgd"]) == 5 and found["scales_note"].startswith("Scales were found on samples 1000000")
    alone = yaml.safe_load((tmp_path / "results/toy/best_scales.yaml").read_text())["datasets"]["sportballs"]
    assert alone["scales"]["mpgd"] == trials[trials["best"]]["scale"].tolist()
    shown = tmp_path / "shown.yaml"
    shown.write_text("datasets: {sportballs: {showcase: {setup: mpgd, scale: null}}}\n")
    snakemake(tmp_path, "-n", "find_scales", "--cores", "1", *files, shown)  # its scale is not known yet
    other = tmp_path / "other.yaml"
    other.write_text("extractors: [efficientnet_lite0, judge]\n")
    planned = snakemake(tmp_path, "-n", "-p", "find_scales", "--cores", "1", *files, shown, other)
    assert (
        "--extractor efficientnet_lite0 --reference results/toy/sportballs/references/efficientnet_lite0.npz" in planned
    )
    for name, scales in {"scales": found["scales"]["mpgd"], "best_scales": alone["scales"]["mpgd"]}.items():
        overlays = [*files, shown, f"results/toy/{name}.yaml"]
        planned = snakemake(tmp_path, "-n", "figure9", "--cores", "1", *overlays)
        points = {float(scale) for scale in re.findall(r"setup=mpgd, scale=([0-9.]+)", planned)}
        assert points == {scales[len(scales) // 2]}  # the middle one


def test_nothing_to_search_for_is_one_line(toy, tmp_path):
    output = snakemake(tmp_path, "-n", "--cores", "1", "find_scales", *toy(), check=False)
    assert "no setup has the scales `auto`" in output
