"""The real DAG at toy size, dry runs of the paper's, and what a user gets for a mistake in the config."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from environment_yml import ROOT

FIGURES = Path("results/test/sportballs/figures")


def snakemake(folder, *arguments, check=True):
    command = ["snakemake", "--directory", folder, "--snakefile", ROOT / "Snakefile", *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    output = result.stdout + result.stderr
    if check:
        assert result.returncode == 0, output[-5000:]
    return output


def jobs(output):
    """Job counts by rule from a dry run's first table."""
    table = output.split("Job stats:")[1].split("total")[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with the project's config, so that no test writes into the project's own results."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "config", folder / "config")
    (folder / "nrcg" / "plots").mkdir(parents=True)
    shutil.copy(ROOT / "nrcg" / "plots" / "nrcg.mplstyle", folder / "nrcg" / "plots")
    return folder


@pytest.fixture(scope="module")
def finished(checkout):
    """`checkout` after one whole run of config/test.yaml."""
    snakemake(checkout, "--cores", "2", "--configfile", checkout / "config/test.yaml")
    return checkout


def test_whole_dag_makes_every_figure_and_table(finished):
    names = {path.name for path in (finished / FIGURES).iterdir()}
    figures = ["figure1", "figure2", "figure3", "figure4", "figure8a_accuracy", "figure8a_accuracy_judge"]
    figures += ["figure8b_fd_judge", "figure8c_cfd_judge", "contrast", "side_by_side", "classifiers", "ddpm_loss"]
    figures += ["figure9_unconditional", "figure9_conditional"]
    assert {f"{figure}.{suffix}" for figure in figures for suffix in ("png", "pdf")} <= names
    assert {f"{table}.{suffix}" for table in ("table2", "all_points") for suffix in ("csv", "md", "tex")} <= names
    assert "findings.md" in names


def test_a_finished_run_has_nothing_left_to_do(finished):
    output = snakemake(finished, "-n", "--configfile", finished / "config/test.yaml")
    assert "Nothing to be done" in output


def test_report_carries_the_figures(finished, tmp_path):
    report = tmp_path / "report.html"
    snakemake(finished, "--configfile", finished / "config/test.yaml", "--report", report)
    html = report.read_text()
    for name in ("figure1.png", "contrast.png", "findings.md"):
        assert name in html


def overlay(checkout, tmp_path, change):
    config = yaml.safe_load((checkout / "config/test.yaml").read_text())
    change(config)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_changed_scale_reruns_only_what_depends_on_it(finished, tmp_path):
    path = overlay(finished, tmp_path, lambda c: c["datasets"]["sportballs"]["scales"].update(robust=[1, 2]))
    planned = jobs(snakemake(finished, "-n", "--configfile", path))
    assert planned["sample"] == 2 and planned["score"] == 1  # six samples in shards of four, one point
    assert not {"train_ddpm", "train_classifier", "sportballs", "forward", "plot_forward", "reference"} & set(planned)


def test_a_changed_style_reruns_only_plots(finished, tmp_path):
    style = tmp_path / "my.mplstyle"
    style.write_text("font.size: 11\n")
    path = overlay(finished, tmp_path, lambda c: c.update(style=str(style)))
    planned = set(jobs(snakemake(finished, "-n", "--configfile", path)))
    assert planned and all(rule.startswith("plot_") or rule == "all" for rule in planned)


def test_one_figure_builds_what_it_needs_and_no_more(checkout):
    planned = jobs(snakemake(checkout, "-n", "figure1"))
    assert planned["forward"] == 3 and "sample" not in planned and planned["train_classifier"] == 2


def test_dry_run_of_the_papers_config_lists_49_shards_a_point(checkout):
    planned = jobs(snakemake(checkout, "-n", "--quiet", "rules", "all"))
    scales = yaml.safe_load((ROOT / "config/config.yaml").read_text())["datasets"]["sportballs"]["scales"]
    n_points = 1 + sum(map(len, scales.values()))
    assert planned["sample"] == 49 * n_points and planned["score"] == n_points
    assert planned["train_ddpm"] == 1 and planned["train_classifier"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(tarket="soccer"), "datasets.sportballs.*tarket"),
        (lambda d: d["sampling"].update(n_sample=3), "datasets.sportballs.sampling.*n_sample"),
        (lambda d: d["scales"].update(robust=[-1]), "datasets.sportballs.scales.robust.0.*-1"),
        (lambda d: d["scales"].update(robots=[1]), "datasets.sportballs.scales.*robots.*has"),
        (lambda d: d.update(target="tennis"), "datasets.sportballs.target.*tennis"),
        (lambda d: d.update(showcase={"scale": 3}), "datasets.sportballs.showcase.*3"),
        (lambda d: d["classifiers"]["judge"].update(architecture="vgg"), "classifiers.*architecture.*vgg"),
    ],
)
def test_mistakes_in_the_config_are_refused_before_anything_runs(checkout, tmp_path, change, message):
    path = overlay(checkout, tmp_path, lambda c: change(c["datasets"]["sportballs"]))
    output = snakemake(checkout, "-n", "--configfile", path, check=False)
    assert re.search(message, output), output


def test_mistakes_in_the_setups_table_are_refused(checkout, tmp_path):
    table = tmp_path / "setups.tsv"
    table.write_text((ROOT / "config/setups.tsv").read_text().replace("ema:0.99", "emma:0.99", 1))
    output = snakemake(checkout, "-n", "--config", f"setups={table}", check=False)
    assert re.search("setup nonrobust_x0_ema0.99: stabilizer.*emma", output)
