"""A setup with a sampling of its own, and the scale 0, in the study of steps."""

import pytest
import yaml
from environment_yml import ROOT
from scratch import snakemake

STUDY = ["--configfile", ROOT / "config/demo.yaml", ROOT / "config/study/steps.yaml"]


def test_a_setup_samples_by_its_own_scheduler_and_steps(checkout):
    point = "results/study-steps/sportballs/scores/x0_ddim25_scale_0.csv"
    planned = snakemake(checkout, "-n", "-p", "--cores", "1", point, *STUDY)
    (command,) = [line for line in planned.splitlines() if "nrcg sample " in line]
    assert "--num-inference-steps 25" in command and "DDIMScheduler" in command and "--scale 0 " in command


@pytest.mark.parametrize(
    ("setup", "scale", "message"),
    [
        ({"num_inference_steps": 101}, 1, r"x0_ddim25.sampling.num_inference_steps"),
        ({"scheduler": "DIMScheduler"}, 1, r"x0_ddim25.sampling.scheduler"),
        ({}, 0.00001, r"scales.x0_ddim25: 1e-05 is below 0.0001"),
    ],
)
def test_mistakes_in_it_are_named(checkout, tmp_path, setup, scale, message):
    rows = yaml.safe_load((ROOT / "config/study/steps_setups.yaml").read_text())
    rows["x0_ddim25"]["sampling"] |= setup
    (tmp_path / "setups.yaml").write_text(yaml.safe_dump(rows))
    own = {"setups": str(tmp_path / "setups.yaml"), "datasets": {"sportballs": {"scales": {"x0_ddim25": [scale]}}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    output = snakemake(checkout, "-n", "--cores", "1", "front", *STUDY, tmp_path / "own.yaml", check=False)
    assert message in output
