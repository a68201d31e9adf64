"""Every block of the README and of docs/reproduce.md, as a reader would paste it: long commands as dry runs."""

import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from environment_yml import PROJECT, ROOT
from scratch import command

PAGES = [ROOT / "README.md", ROOT / "docs/reproduce.md"]
BLOCKS = [block for page in PAGES for block in re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.M | re.S)]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def lines(kind):
    return [line for language, block in BLOCKS if language == kind for line in block.splitlines() if line.strip()]


def test_the_readme_has_blocks_of_each_kind():
    assert {language for language, _ in BLOCKS} == {"bash", "python", "yaml", "bibtex"}
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pytest.mark.parametrize("line", dict.fromkeys(lines("bash")))
def test_each_command(checkout, tmp_path, line):
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        assert words[1] in TARGETS
    elif words[0] == "snakemake" and "--report" in words:
        targets = words[1 : words.index("--report")]
        run = subprocess.run(command(checkout, *targets, "-n", "--quiet", "rules"), cwd=checkout, capture_output=True)
        assert run.returncode == 0  # the report itself needs results: tests/workflow/test_workflow.py
    elif words[0] == "snakemake":
        dry = line.replace("snakemake", f"snakemake -n -s {ROOT / 'Snakefile'}", 1).partition(" # ")[0]
        (checkout / "my.mplstyle").write_text("font.size: 9\n")
        (checkout / "results/fast").mkdir(parents=True, exist_ok=True)
        (checkout / "results/fast/best_scales.yaml").write_text("run: fast\n")
        run = subprocess.run(["bash", "-c", f"set -o pipefail; {dry}"], cwd=checkout, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
        assert "Job stats" in run.stdout or "GPU" in run.stdout
    elif words[0] == "pip":
        extras = re.findall(r"\[(.*?)\]", line)
        assert {extra for names in extras for extra in names.split(",")} <= set(PROJECT["optional-dependencies"])
    else:
        assert words[0] in ("git", "cp")


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "python"])
def test_each_example(checkout, block):
    code = block.replace("num_inference_steps=100", "num_inference_steps=3")
    run = subprocess.run([sys.executable, "-c", code], cwd=checkout, env=os.environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (checkout / "guided.png").read_bytes().startswith(b"\x89PNG")


METHODS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/methods.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("block", METHODS)
def test_each_example_of_the_methods(checkout, block):
    run = subprocess.run([sys.executable, "-c", block], cwd=checkout, env=os.environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "yaml"])
def test_each_overlay(checkout, tmp_path, block):
    mine = block.replace("/data/celeba-hq", str(checkout / "data/celeba-hq")).replace(
        "/data/ddpm-", str(checkout / "data/ddpm-")
    )
    mine = mine.replace("/data/celeba}", f"{checkout / 'data/celeba'}}}")
    (tmp_path / "mine.yaml").write_text(mine)
    assert yaml.safe_load(mine)["datasets"]
    words = ["-n", "--quiet", "rules", "--configfile", checkout / "config/test.yaml", tmp_path / "mine.yaml"]
    run = subprocess.run(command(checkout, *words), cwd=checkout, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
