"""`config/methods.yaml` at toy size: every command that Snakemake would run, from the config to the scores.

They run in this process: some fifty jobs would import torch some fifty times.
"""

import os
import re
import shlex

import pandas as pd
import pytest
import yaml
from environment_yml import ROOT
from scratch import snakemake
from typer.testing import CliRunner

from nrcg.cli import app
from nrcg.cli.options import parse_json
from nrcg.guidance import methods

TOY = {
    "run": "toy",
    "datasets": {
        "sportballs": {
            "images": {"n": 300},
            "sampling": {"num_inference_steps": 3, "n_samples": 2, "n_unconditional": 3, "shard_size": 3},
        }
    },
}
ORDER = (
    "data make",
    "measure reference",
    "measure scale",
    "measure grids",
    "sample",
    "measure features",
    "measure score",
    "measure collect",
)


def run_all(folder, monkeypatch, *targets):
    """Run the commands of a dry run for these targets, in order, in `folder`."""
    planned = snakemake(folder, "-n", "-p", "--cores", "1", *targets)
    commands = re.findall(r"Shell command: nrcg (.*)", planned)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    for verb in ORDER:
        for line in [line for line in commands if line.startswith(f"{verb} ")]:
            words = shlex.split(line)
            at = words.index("--log")
            result = CliRunner().invoke(app, [*words[:at], *words[at + 2 :]])
            assert result.exit_code == 0, (line, result.output, result.exception)
    return commands


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


def test_every_method_from_its_row_to_its_score(toy, tmp_path, monkeypatch):
    commands = run_all(tmp_path, monkeypatch, "results/toy/sportballs/scores.csv", *toy())
    scores = pd.read_csv(tmp_path / "results/toy/sportballs/scores.csv")
    assert set(scores["setup"]) == {"unconditional", "real", "robust", *methods}
    assert scores[scores["metric"] == "accuracy_judge"]["value"].between(0, 1).all()
    stated = [parse_json(shlex.split(line)[shlex.split(line).index("--guidance") + 1], "") for line in commands
              if line.startswith("sample") and "--guidance" in line]  # fmt: skip
    of_method = {section["method"]: section for section in stated if "method" in section}
    assert of_method["dps"]["objective"] == "logit" and "objective" not in of_method["elucd"]  # it has its own


def test_scales_that_are_searched_for_go_into_an_overlay(toy, tmp_path, monkeypatch):
    files = toy(**{name: [] for name in methods if name not in ("nrcg", "mpgd")}, mpgd="auto")
    run_all(tmp_path, monkeypatch, "find_scales", *files)
    found = yaml.safe_load((tmp_path / "results/toy/scales.yaml").read_text())["datasets"]["sportballs"]
    trials = pd.read_csv(tmp_path / "results/toy/sportballs/scales/mpgd.csv")
    assert trials["scale"].isna().sum() == 1 and trials["best"].sum() == 1 and (trials["n"] == 48).all()
    assert len(found["scales"]["mpgd"]) == 5 and found["scales_note"].startswith(
        "Scales were searched for on samples 1000000"
    )
    planned = snakemake(tmp_path, "-n", "--cores", "1", *files, "results/toy/scales.yaml")
    assert "mpgd" in planned and "MissingInput" not in planned


def test_nothing_to_search_for_is_one_line(toy, tmp_path):
    output = snakemake(tmp_path, "-n", "--cores", "1", "find_scales", *toy(), check=False)
    assert "no setup has `scales: auto`" in output
