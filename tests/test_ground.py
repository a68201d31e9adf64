"""The project's own files: pins, entry points, what a fresh clone needs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import SLOW_FILES, pytest_collection_modifyitems
from environment_yml import LOCK, PROJECT, ROOT, environments, locked, wanted
from typer.main import get_command
from typer.testing import CliRunner

from nrcg.cli import app


def test_conda_environments_have_the_pins_of_the_lock():
    for path, text in environments().items():
        assert path.read_text() == text, f"{path}: run `make lock`"


def test_lock_holds_every_dependency_with_hashes_and_no_index_address():
    pins = {}
    for pin in locked():
        pins.setdefault(pin.name, []).append(pin)
    for requirement in wanted(*PROJECT["optional-dependencies"]):
        versions = [next(iter(pin.specifier)).version for pin in pins[requirement.name]]
        assert all(version in requirement.specifier for version in versions), requirement
    assert not re.search(r"https?:|--index|--find-links|file:", LOCK)
    assert LOCK.count("--hash=sha256:") > len(pins)


def test_requirements_have_bounds_from_below_alone():
    for requirement in wanted(*PROJECT["optional-dependencies"]):
        assert [bound.operator for bound in requirement.specifier] == [">="], requirement
    assert PROJECT["requires-python"].startswith(">=") and "," not in PROJECT["requires-python"]


def test_citation_and_changelog_have_the_projects_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (str(citation["version"]), citation["license"]) == (PROJECT["version"], PROJECT["license"])
    newest = re.search(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    assert newest in ("Unreleased", PROJECT["version"])


def test_pythons_are_the_same_everywhere():
    """The Makefile's, those of continuous integration and those that the package names."""
    named = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]["python"]
    makefile = (ROOT / "Makefile").read_text()
    first, last = (f"({version.replace('.', ', ')})" for version in (named[0], named[-1]))
    assert ci == named and PROJECT["requires-python"] == f">={named[0]}"
    assert f"{first} <= sys.version_info[:2] <= {last}" in makefile
    assert set(re.findall(r"python(3\.\d+)", makefile)) == set(named)


def test_env_is_set_up_again_for_other_pins_alone(tmp_path):
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)

    def env():
        """What `make env` would do now: the pins' environment, nrcg in it, or nothing."""
        make = ["make", "--no-print-directory", "--dry-run", "env", f"PYTHON={sys.executable}"]
        said = subprocess.run(make, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        return "--require-hashes" in said, "--editable" in said, re.findall(r"touch (\S+)", said)

    def change(name, before, after):
        text = (tmp_path / name).read_text()
        assert before in text
        (tmp_path / name).write_text(text.replace(before, after, 1))

    *done, stamps = env()
    assert done == [True, True]
    (tmp_path / ".venv").mkdir()
    for stamp in stamps:
        (tmp_path / stamp).touch()
    change("pyproject.toml", "line-length = 120", "line-length = 100")
    os.utime(tmp_path / "requirements.lock")
    assert env() == (False, False, [])
    change("pyproject.toml", f'version = "{PROJECT["version"]}"', 'version = "9.9"')
    assert env()[:2] == (False, True)
    change("requirements.lock", "torch==", "torch==9.")
    assert env()[:2] == (True, True)


def test_fast_tests_start_neither_snakemake_nor_slurm():
    def marks(path, *fixtures, given=()):
        item = SimpleNamespace(path=ROOT / "tests" / path, fixturenames=fixtures, marks={*given})
        item.add_marker = item.marks.add
        item.get_closest_marker = lambda name: name in item.marks
        pytest_collection_modifyitems([item])
        return item.marks

    assert marks("test_rng.py") == marks("guidance/test_pipeline.py", "tmp_path") == {"fast"}
    assert marks("workflow/test_workflow.py") == marks("test_readme.py", "checkout") == {"workflow"}
    assert marks("workflow/test_slurm.py") == {"workflow", "slurm"}
    assert marks("evaluation/test_scores.py", "inception_weights") == set()
    assert marks("test_speed.py", given=["gpu"]) == {"gpu"}
    assert not [path for path in SLOW_FILES if not (ROOT / "tests" / path).is_file()]


def verbs(group=None, words=()):
    """Every group and verb of the command, as the words that call it."""
    yield list(words)
    for name, command in getattr(group or get_command(app), "commands", {}).items():
        yield from verbs(command, (*words, name))


@pytest.mark.parametrize("words", list(verbs()), ids=" ".join)
def test_help_answers_for_every_verb(words):
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output


def test_help_does_not_wait_for_torch():
    code = "import sys, nrcg.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_bad_input_is_one_line_and_exit_status_2(tmp_path):
    words = f"sample --ddpm {tmp_path}/none --out {tmp_path}/out.npy --start 0 --stop 1 --num-inference-steps 2"
    words += " --precision fp32 --seed 0 --device cpu"
    result = subprocess.run([sys.executable, "-m", "nrcg", *words.split()], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error:") and "none" in result.stderr


def test_continuous_integration_runs_the_makefile():
    assert {"make lint", "make test"} <= set((ROOT / ".ci" / "run").read_text().splitlines())
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    steps = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert any("make test" in step for step in steps) and any("snakemake -n" in step for step in steps)


def test_no_file_of_the_project_is_long():
    files = [*ROOT.glob("nrcg/**/*.py"), *ROOT.glob("workflow/**/*.smk"), ROOT / "Snakefile"]
    assert not {str(path): n for path in files if (n := len(Path(path).read_text().splitlines())) > 320}
