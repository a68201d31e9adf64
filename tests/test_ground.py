"""The project's own files: pins, entry points, what a fresh clone needs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
import yaml
from environment_yml import ROOT, environment, locked
from packaging.requirements import Requirement
from typer.testing import CliRunner

from nrcg.cli import app


def test_environment_yml_has_the_pins_of_the_lock():
    assert (ROOT / "environment.yml").read_text() == environment(), "run `make lock`"


def test_lock_holds_every_dependency_with_hashes_and_no_index_address():
    text = (ROOT / "requirements.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["dev"]]
    pins = {}
    for pin in locked():
        pins.setdefault(pin.name, []).append(pin)
    for requirement in wanted:
        versions = [next(iter(pin.specifier)).version for pin in pins[requirement.name]]
        assert all(version in requirement.specifier for version in versions), requirement
    assert not re.search(r"https?:|--index|--find-links|file:", text)
    assert text.count("--hash=sha256:") > len(pins)


@pytest.mark.parametrize(
    "verb", [[], *([command.callback.__name__.replace("_", "-")] for command in app.registered_commands)]
)
def test_help_answers_for_every_verb(verb):
    result = CliRunner().invoke(app, [*verb, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output


def test_help_does_not_wait_for_torch():
    code = "import sys, nrcg.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_bad_input_is_one_line_and_exit_status_2(tmp_path):
    command = [sys.executable, "-m", "nrcg.cli", "train-ddpm", "--data", tmp_path / "none", "--out", tmp_path / "out"]
    command += [
        "--unet",
        '{"sample_size": 8}',
        "--scheduler",
        "{}",
        "--checkpoint",
        tmp_path / "c.pt",
        "--device",
        "cpu",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error:") and "none" in result.stderr


def test_continuous_integration_runs_the_makefile():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    steps = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert any("make test" in step for step in steps) and any("snakemake -n" in step for step in steps)


def test_every_config_key_is_documented():
    def paths(value, prefix=""):
        for key, inner in value.items():
            path = f"{prefix}{'<name>' if prefix == 'datasets.' else key}"
            yield path
            opaque = re.search(r"\.(unet|scheduler|scales|classifiers)$", path)
            if isinstance(inner, dict) and not opaque:
                yield from paths(inner, path + ".")

    documented = (ROOT / "config" / "README.md").read_text()
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    assert not [path for path in paths(config) if f"`{path}`" not in documented]


def test_no_file_of_the_project_is_long():
    files = [*ROOT.glob("nrcg/**/*.py"), *ROOT.glob("workflow/**/*.smk"), ROOT / "Snakefile"]
    assert not {str(path): n for path in files if (n := len(Path(path).read_text().splitlines())) > 320}
