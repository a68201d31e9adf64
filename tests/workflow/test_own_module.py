"""A stabiliser, an objective and an extractor of a user's own: one registration each, and the config runs them."""

import json

import pandas as pd
import yaml
from environment_yml import ROOT
from scratch import overlay, snakemake

MODULE = '''
from dataclasses import dataclass

import torch

from nrcg.evaluation.extractors import Extractor, extractors
from nrcg.guidance import objectives, stabilizers


@stabilizers.register("half_sign")
@dataclass(frozen=True)
class HalfSign:
    """The sign of the gradient, `size` long."""

    size: float = 1.0

    def init(self, gradient_like):
        return None

    def update(self, gradient, state):
        return self.size * gradient.sign(), state


@objectives.register("margin")
def margin(logits, target):
    """How far the target's logit is above the mean of all."""
    return logits.gather(1, target[:, None])[:, 0] - logits.mean(1)


@extractors.register("mean_colour")
def mean_colour(weights, device):
    """Mean of red, green and blue."""
    return Extractor(3, lambda images: images.mean((2, 3)), device)
'''


def test_a_users_module_brings_a_stabiliser_an_objective_and_an_extractor(checkout, tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    row = {"on": "x0", "objective": "margin", "stabilizer": {"half_sign": {"size": 0.5}}}
    setups = (ROOT / "config/setups.yaml").read_text()
    (tmp_path / "setups.yaml").write_text(
        setups + yaml.safe_dump({"mine": {"label": "mine", "classifier": "nonrobust", "guidance": row}})
    )

    def change(config):
        config |= {"run": "mine", "run_datasets": ["sportballs"], "extractors": ["judge", "mean_colour"]}
        config |= {"modules": [str(tmp_path / "mine.py")], "setups": str(tmp_path / "setups.yaml")}
        data = config["datasets"]["sportballs"]
        data["scales"] = {**{name: [] for name in data["scales"]}, "mine": [1, 2]}
        data["showcase"] = {"setup": "mine", "scale": 2}

    path = overlay(checkout, tmp_path, change)
    snakemake(checkout, "--cores", "2", "--configfile", path, "--", "figure8", "findings")
    home = checkout / "results/mine/sportballs"
    scores = pd.read_csv(home / "scores.csv")
    for metric in ("fd_mean_colour", "cfd_mean_colour", "fd_judge"):
        rows = scores[scores["metric"] == metric]
        assert sorted(rows["scale"].dropna()) == [1, 2] and rows["value"].notna().all() and len(rows) == 3
    assert set(scores[scores["metric"] == "cfd_mean_colour"]["features"]) == {3}
    card = json.loads((home / "samples/mine/scale_2/shard_000.json").read_text())
    assert card["guidance"] == row
    assert (home / "figures/figure8b_fd_mean_colour.png").exists()
