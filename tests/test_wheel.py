"""The wheel, beside nothing but what the library asks for: it guides, and its data files are there."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from environment_yml import ROOT, needed, wanted
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

GUIDE = """
import importlib.util, sys
from importlib.resources import files
from pathlib import Path

import torch
import nrcg

assert Path(nrcg.__file__).is_relative_to(sys.prefix), nrcg.__file__
assert not [name for name in ("pandas", "matplotlib", "typer", "snakemake", "scipy") if importlib.util.find_spec(name)]
assert (files("nrcg") / "plots/nrcg.mplstyle").is_file() and (files("nrcg") / "py.typed").is_file()

pipe = nrcg.GuidedDDPMPipeline.from_pretrained("networks")
nrcg.speed.prepare(pipe.unet)
guidance = nrcg.ClassifierGuidance(
    nrcg.load_classifier("networks/nonrobust"), target=0, scale=15.0, on="x0", stabilizer=nrcg.EMA(0.9)
)
draw = lambda **given: pipe(1, torch.Generator().manual_seed(0), 10, output_type="pt", **given).images
guided, free = draw(guidance=guidance), draw()
traced = nrcg.trace(pipe, guidance, batch_size=1, generator=torch.Generator().manual_seed(0), num_inference_steps=10)
assert abs(traced.frames[-1, 0] / 255 - guided[0].permute(1, 2, 0).numpy()).max() < 0.01
assert guided.shape == (1, 3, 32, 32) and guided.isfinite().all() and not torch.equal(guided, free)
"""


def installed(names: list[str]) -> dict[str, Distribution]:
    """The distributions of these requirements and of all that they ask for, as their own metadata say."""
    found: dict[str, Distribution] = {}
    todo = [Requirement(name) for name in names]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        found.setdefault(name, distribution(name))
        more = [Requirement(line) for line in found[name].requires or ()]
        extras = requirement.extras or {""}
        todo += [r for r in more if not r.marker or any(r.marker.evaluate({"extra": extra}) for extra in extras)]
    return found


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """A virtual environment with the wheel, and links to the packages that the library asks for: nothing else."""
    place = tmp_path_factory.mktemp("light")
    source, venv = place / "source", place / "venv"
    shutil.copytree(ROOT / "nrcg", source / "nrcg", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    build = [*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", place, source]
    subprocess.run(build, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(venv)}))
    for package in installed([str(requirement) for requirement in wanted()]).values():
        for name in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (packages / name).exists():
                (packages / name).symlink_to(package.locate_file(name))
    (wheel,) = place.glob("*.whl")
    subprocess.run([*pip, "--python", venv / "bin/python", "install", "--no-index", wheel], check=True)  # asks for all
    return venv


def run(folder, *words):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_guides_with_the_librarys_own_packages(light, tmp_path):
    shutil.copytree(ROOT / "resources/sportballs32", tmp_path / "networks")
    result = run(tmp_path, light / "bin/python", "-I", "-c", GUIDE)
    assert result.returncode == 0, result.stderr


def test_the_command_names_the_extra_that_its_verbs_need(light, tmp_path):
    result = run(tmp_path, light / "bin/nrcg", "--help")
    assert result.returncode == 2
    assert result.stderr.startswith("error: no package ") and result.stderr.count("\n") == 1
    assert "nrcg[workflow]" in result.stderr


def test_the_locks_remarks_name_what_the_packages_ask_for():
    roots = [str(requirement) for requirement in wanted("workflow") if not requirement.name.startswith("snakemake")]
    names = {canonicalize_name(Requirement(root).name) for root in roots}
    assert installed(roots).keys() <= needed(names) and not needed(names) & {"snakemake", "pytest", "nrcg"}
