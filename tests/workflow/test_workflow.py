"""The real DAG at toy size, dry runs of the paper's, and what a user gets for a mistake in the config."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from environment_yml import ROOT
from scratch import at_work, command, jobs, overlay, snakemake

from nrcg.io.yaml_files import read_yaml

RUN = Path("results/test")
LOOKS = {"metadata": "landing.yaml", "stylesheet": "report.css"}
FORWARD = ["figure1", "figure2", "figure3", "figure4"]
EVERYWHERE = ["figure9_unconditional", "figure9_conditional", "before_after", "side_by_side", "classifiers"]
EVERYWHERE += ["trajectory", "trajectory_curves", "front", "fooled"]
FIGURES = {
    "celeba": [*FORWARD, "figure5_accuracy", "figure5_accuracy_judge", "figure6_fd_judge", "figure7_cfd_judge"],
    "sportballs": [*FORWARD, "figure8a_accuracy", "figure8a_accuracy_judge", "figure8b_fd_judge", "figure8c_cfd_judge"],
    "celebahq": [],
}
FIGURES["celeba"] += ["ddpm_loss", "scales_off_manifold_judge"]
FIGURES["sportballs"] += ["ddpm_loss", "contrast", "scales_off_manifold_judge"]
SLOW_VERB = """
import pathlib, signal, sys, time

def keep(*_):
    time.sleep(2)
    (here / "kept").touch()
    sys.exit(75)

here = pathlib.Path(__file__).parent
signal.signal(signal.SIGTERM, keep)
(here / "started").touch()
time.sleep(60)
"""
TABULAR = ("csv", "md", "tex", "html")
TABLES = {"celeba": "table1", "sportballs": "table2", "celebahq": "table3"}


@pytest.fixture(scope="module")
def finished(checkout):
    """`checkout` after one figure of config/test.yaml, and then all of it."""
    whole = ["--configfile", checkout / "config/test.yaml"]
    snakemake(checkout, "figure8", "--cores", "2", *whole)
    snakemake(checkout, "figure8", "--report", checkout / "figure8.html", *whole)
    planned = jobs(snakemake(checkout, "-n", "--quiet", "rules", *whole, "--config", "run_datasets=[sportballs]"))
    assert "sample" not in planned and "draw" in planned  # one figure drew all that any other shows
    snakemake(checkout, "--cores", "2", *whole)
    return checkout


@pytest.mark.parametrize("dataset", FIGURES)
def test_whole_dag_makes_every_figure_and_table(finished, dataset):
    names = {path.name for path in (finished / RUN / dataset / "figures").iterdir()}
    assert {f"{name}.{suffix}" for name in FIGURES[dataset] + EVERYWHERE for suffix in ("png", "pdf")} <= names
    assert {f"{name}.{suffix}" for name in (TABLES[dataset], "all_points") for suffix in TABULAR} <= names
    assert {"findings.md", "findings.html", "browse.html", "trajectory.webp"} <= names
    others = set(TABLES.values()) - {TABLES[dataset]}
    assert not {f"{table}.md" for table in others} & names


def test_scored_samples_are_deleted_but_for_the_first(finished):
    names = {path.name for path in (finished / RUN / "sportballs/samples").glob("*/*/*")}
    assert names == {"first.npy", "first.json", "shard_000.json", "shard_001.json"}  # how they were made stays


def test_every_setup_is_traced_by_its_own_guidance(finished):
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text())["datasets"]["sportballs"]
    setups = read_yaml(ROOT / "config/setups.yaml")
    cards = {path.stem: json.loads(path.read_text()) for path in (finished / RUN / "sportballs/traces").glob("*.json")}
    guided = {f"{setup}_scale_{scales[0]}": setup for setup, scales in config["scales"].items()}
    assert cards.keys() == {"unconditional_scale_none", *guided}
    for name, setup in guided.items():
        classifier = f"{RUN}/sportballs/classifiers/{setups[setup]['classifier']}"
        assert (cards[name]["classifier"], cards[name]["scale"]) == (classifier, config["scales"][setup][0])
        assert cards[name]["guidance"].items() >= setups[setup]["guidance"].items()
    assert all(card["seeds"] == [4, 10] for card in cards.values())


def test_comparison_has_every_number_of_the_paper(finished):
    page = (finished / RUN / "comparison.md").read_text()
    table = pd.read_csv(finished / RUN / "comparison.csv")
    assert len(table) == len(pd.read_csv(ROOT / "config/paper_results.tsv", sep="\t"))
    assert "DDPM data/ddpm-celebahq-256" in page and "trained here" in page


def test_a_finished_run_has_nothing_left_to_do(finished):
    output = snakemake(finished, "-n", "--configfile", finished / "config/test.yaml")
    assert "Nothing to be done" in output


def test_keys_that_change_no_result_make_nothing_run_again(finished, tmp_path):
    def change(config):
        config |= {"device": "auto", "threads": 2, "compile": False}
        for data in config["datasets"].values():
            data["sampling"] |= {"batch_size": 5}
            data["forward"] = {**data.get("forward", {}), "batch_size": 3} if "forward" in data else {}
            if not data["forward"]:
                del data["forward"]
            if "training" in data["ddpm"]:
                data["ddpm"]["training"] |= {"checkpoint_every": 7, "preview_every": 9}

    output = snakemake(finished, "-n", "--configfile", overlay(finished, tmp_path, change))
    assert "Nothing to be done" in output, output[-3000:]


def test_no_name_or_path_of_the_config_reaches_the_shell(checkout, tmp_path):
    """Two classes, a style and a folder whose names a shell would split or run; every job gets them whole."""
    nasty = tmp_path / "My Drive's $(touch PWNED) & `touch PWNED`"
    shutil.copytree(checkout / "data/celeba", nasty / "celeba")
    for name in ("setups.yaml", "paper_results.tsv"):
        shutil.copy(checkout / "config" / name, nasty)
    shutil.copy(ROOT / "nrcg/plots/nrcg.mplstyle", nasty)
    classes = ["no beard's; touch PWNED", '"$HOME" & (male)']

    def change(config):
        config |= {"run": "nasty", "run_datasets": ["celeba"], "style": str(nasty / "nrcg.mplstyle")}
        config |= {"setups": str(nasty / "setups.yaml"), "paper_results": str(nasty / "paper_results.tsv")}
        data = config["datasets"]["celeba"]
        data["target"], data["images"] = classes[0], {"source": str(nasty / "celeba"), "size": 16, "classes": classes}
        data["scales"] |= {"nonrobust": [], "nonrobust_x0": []}  # one setup, with a stabiliser, must do

    snakemake(checkout, "--cores", "2", "--configfile", overlay(checkout, tmp_path, change))
    figures = checkout / "results/nasty/celeba/figures"
    assert not (figures / "figure1.png").exists() and (figures / "figure4.png").exists()
    assert classes[0] in (figures / "findings.md").read_text() and (figures / "before_after.png").exists()
    assert not [*checkout.glob("PWNED*"), *tmp_path.rglob("PWNED*"), *ROOT.glob("PWNED*")]


def test_another_workflow_uses_this_one_as_a_module(finished, tmp_path):
    """A figure is drawn through the module, in the same folder; nothing else needs to run again."""
    (tmp_path / "Snakefile").write_text(
        f'module nrcg:\n    snakefile: "{ROOT}/workflow/Snakefile"\n    config: config\n\n'
        "use rule * from nrcg as nrcg_*\n\nrule mine:\n    default_target: True\n    input: rules.nrcg_all.input\n"
    )
    configs = ["--configfile", ROOT / "config/config.yaml", finished / "config/test.yaml"]
    words = ["snakemake", "--snakefile", tmp_path / "Snakefile", "--directory", finished, *configs]
    figure = finished / RUN / "sportballs/figures/contrast.png"
    before = figure.read_bytes()
    figure.unlink()
    run = subprocess.run([*words, "--cores", "2"], cwd=finished, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert set(jobs(run.stdout + run.stderr)) == {"nrcg_draw", "mine"} and figure.read_bytes() == before


def test_it_runs_in_an_empty_folder(tmp_path):
    planned = jobs(snakemake(tmp_path, "-n", "--quiet", "rules", "--configfile", ROOT / "config/demo.yaml"))
    assert planned["features"] == 22


def test_report_carries_the_figures(finished, tmp_path):
    report = tmp_path / "report.html"
    looks = [word for name, file in LOOKS.items() for word in (f"--report-{name}", ROOT / "workflow/report" / file)]
    snakemake(finished, "--configfile", finished / "config/test.yaml", "--report", report, *looks)
    html = report.read_text()
    results, categories = (json.JSONDecoder().raw_decode(html, html.rindex(start) + len(start))[0]
                           for start in ("var results = ", "var categories = "))  # fmt: skip
    assert min(categories) == "1 Findings"  # Snakemake shows them in this order
    assert all(set(entry["labels"]) == {"name", "data set", "shows"} for entry in results.values())
    shown = {(entry["labels"]["data set"], entry["labels"]["name"]): entry for entry in results.values()}
    assert len(shown) == len(results) and ("SportBalls", "Figure 8a") in shown
    assert ("SportBalls", "Variant of figure 8a") in shown  # the judge's, which the paper has not
    for page in (
        ("SportBalls", "Findings"),
        ("CelebA", "Table 1"),
        ("SportBalls", "All points"),
        ("SportBalls", "By setup and scale"),
        ("all", "Comparison"),
    ):
        assert shown[page]["mime_type"] == "text/html"  # opens in the browser
    described = json.JSONDecoder().raw_decode(html, html.rindex(start := "var workflow_desc = ") + len(start))[0]
    assert described.count("<table") == 3 and "falls to chance level" in described  # findings, first
    assert described.index("falls to chance level") < described.index("How to read")
    assert "var metadata = {}" not in html  # else the report opens on the graph of rules
    assert "max-width: 700px" in html  # the style sheet is in it
    sources = re.findall(r"(?:src|href)=[\"'](https?:[^\"']+)", html)
    assert not sources  # nothing is fetched


def test_unguided_samples_are_scored_by_every_classifier_that_guides(finished):
    for dataset, expected in (("sportballs", {"accuracy/robust"}), ("celebahq", set())):
        scores = pd.read_csv(finished / RUN / dataset / "scores.csv")
        named = scores[scores["metric"].str.startswith("accuracy/")]
        assert set(named["metric"]) == expected and set(named["setup"]) <= {"unconditional"}


def test_a_changed_scale_reruns_only_what_depends_on_it(finished, tmp_path):
    path = overlay(finished, tmp_path, lambda c: c["datasets"]["sportballs"]["scales"].update(robust=[1, 2]))
    output = snakemake(finished, "-n", "--configfile", path)
    planned = jobs(output)
    assert planned["sample"] == planned["features"] == planned["score"] == 1 and "robust/scale_2/shard_000" in output
    assert set(planned) == {
        "sample",
        "features",
        "score",
        "collect_scores",
        "draw",
        "write",
        "compare",
        "browse_samples",
        "all",
    }
    assert (
        planned["write"] == 3 and planned["draw"] == 9
    )  # five against the scale, front, contrast, side by side, fooled
    assert not re.search(r"^    output: .*(celeba|celebahq)/", output, re.M)


@pytest.mark.parametrize("key", ["scales", "objective"])
def test_what_guides_a_trace_traces_the_data_set_again(finished, tmp_path, key):
    changed = {"scales": {"robust": [2]}, "objective": "log_prob"}[key]
    path = overlay(finished, tmp_path, lambda c: c["datasets"]["sportballs"].update({key: changed}))
    assert jobs(snakemake(finished, "-n", "trajectory", "--configfile", path))["trace"] == 1


def test_a_changed_style_reruns_only_plots(finished, tmp_path):
    style = tmp_path / "my.mplstyle"
    style.write_text("font.size: 11\n")
    path = overlay(finished, tmp_path, lambda c: c.update(style=str(style)))
    planned = set(jobs(snakemake(finished, "-n", "--configfile", path)))
    assert set(planned) == {"draw", "animate", "all"}


def test_one_figure_builds_what_it_needs_and_no_more(checkout):
    planned = jobs(snakemake(checkout, "-n", "figure1"))
    assert planned["forward"] == 6 and "sample" not in planned and planned["train_classifier"] == 4  # two data sets


def test_a_figure_of_one_data_set_needs_nothing_of_another(checkout):
    output = snakemake(checkout, "-n", "figure7")
    assert jobs(output)["draw"] == 2
    assert "sportballs" not in output and "celebahq" not in output


def test_dry_run_of_the_papers_config_lists_four_shards_per_point(checkout):
    planned = jobs(snakemake(checkout, "-n", "--quiet", "rules", "--", "all"))
    datasets = yaml.safe_load((ROOT / "config/config.yaml").read_text())["datasets"]
    points = {name: 1 + sum(map(len, data["scales"].values())) for name, data in datasets.items()}
    assert points == {"celeba": 63, "sportballs": 56, "celebahq": 2}
    assert planned["sample"] == 4 * (63 + 56 + 2) and planned["features"] == sum(points.values())
    assert planned["train_ddpm"] == 2 and planned["train_classifier"] == 8
    assert planned["features_of_real"] == 3 and planned["reference"] == 6  # two extractors, for three data sets
    assert "gpu" not in " ".join(re.findall(r"rule score:(?:.|\n)*?resources: (.*)", snakemake(checkout, "-n")))
    assert planned["trace"] == 3  # all setups of a data set in one


def test_an_overlay_of_one_data_set_leaves_the_others_alone(checkout, tmp_path):
    """The data sets share YAML anchors in config.yaml."""
    path = tmp_path / "overlay.yaml"
    path.write_text(
        "datasets: {sportballs: {scheduler: {num_train_timesteps: 7}, sampling: {num_inference_steps: 7}}}\n"
    )
    files = [f"results/paper/{name}/ddpm/card.json" for name in ("celeba", "sportballs")]
    output = snakemake(checkout, "-n", "-p", "--configfile", path, "--", *files)
    trainings = [line for line in output.splitlines() if "nrcg train ddpm" in line]
    steps = {re.search(r"paper/(\w+)/data", line)[1]: re.search(r"timesteps\": (\d+)", line)[1] for line in trainings}
    assert steps == {"celeba": "400", "sportballs": "7"}


def test_figures_are_redrawn_from_given_scores_without_sampling(finished, tmp_path):
    scores = finished / RUN / "sportballs/scores.csv"
    path = tmp_path / "given.yaml"
    path.write_text(yaml.safe_dump({"run": "redrawn", "datasets": {"sportballs": {"scores_from": str(scores)}}}))
    config = ["--configfile", "config/test.yaml", path, "--config", "run_datasets=[sportballs]"]
    planned = jobs(snakemake(finished, "-n", *config, "--", "figure8"))
    assert set(planned) == {"collect_scores", "draw", "figure8"}
    snakemake(finished, "--cores", "1", *config, "--", "results/redrawn/sportballs/scores.csv")
    assert (finished / "results/redrawn/sportballs/scores.csv").read_bytes() == scores.read_bytes()


@pytest.mark.parametrize(
    ("overlays", "points", "shipped"),
    [
        (["demo"], 22, "sportballs32"),
        (["demo", "large_balls"], 25, "sportballs32_large"),
        (["fashion"], 21, "fashion32"),
    ],
)
def test_the_demos_take_shipped_networks_that_their_configs_would_train(checkout, overlays, points, shipped):
    files = [checkout / f"config/{name}.yaml" for name in overlays]
    planned = jobs(
        snakemake(checkout, "-n", "--quiet", "rules", "--configfile", *files, "--", "findings", "side_by_side")
    )
    assert planned["features"] == points and "train_ddpm" not in planned
    training, name = {}, "fashion" if shipped == "fashion32" else "sportballs"
    for file in files:
        training |= yaml.safe_load(file.read_text())["datasets"][name]["ddpm"].get("training", {})
    trained = yaml.safe_load(files[-1].read_text())["datasets"][name]["classifiers"]
    for name, section in trained.items():
        if folder := section.pop("pretrained"):
            settings = json.loads((ROOT / folder / "card.json").read_text())["training"]
            assert settings.items() >= section.items(), name
    card = json.loads((ROOT / "resources" / shipped / "card.json").read_text())
    assert training.items() >= {key: card["training"][key] for key in training.keys() & card["training"].keys()}.items()
    images = 60000 if shipped == "fashion32" else 32000
    assert card["steps"] == training["epochs"] * (images // training["batch_size"])


def test_an_imagenet_classifier_guides_and_judges(checkout):
    planned = jobs(
        snakemake(checkout, "-n", "--quiet", "rules", "--configfile", checkout / "config/imagenet_guides.yaml")
    )
    assert planned["import_classifier"] == 2 and planned["train_classifier"] == 3 and planned["features"] == 29


def test_a_target_without_a_data_set_says_so(checkout):
    output = snakemake(checkout, "-n", "figure5", "--config", "run_datasets=[sportballs]", check=False)
    assert "figure5: not available for the data sets of this run (sportballs)" in output


def test_mistakes_in_the_config_are_refused_before_anything_runs(checkout, tmp_path):
    """All at once; more are in test_config_checks.py."""

    def change(config):
        balls = config["datasets"]["sportballs"]
        balls.update(tarket="soccer", showcase={"scale": 3})
        balls["sampling"].update(n_sample=3)
        balls["scales"].update(robust=[-1])

    output = snakemake(checkout, "-n", "--configfile", overlay(checkout, tmp_path, change), check=False)
    for message in ("sportballs.*tarket", "sportballs.sampling.*n_sample", "sportballs.scales.robust.0.*-1"):
        assert re.search(f"datasets.{message}", output), output

    def change(config):
        data = config["datasets"]
        data["celeba"].update(target="cat")
        data["celebahq"].update(scales={"robust": [1]})
        data["celebahq"]["ddpm"].update(pretrained=None)
        data["sportballs"].update(weights="authors")

    output = snakemake(checkout, "-n", "--configfile", overlay(checkout, tmp_path, change), check=False)
    messages = ["celeba.target.*cat.*female, male", "celebahq.scales.robust.*classifiers", "celebahq.ddpm.*pretrained"]
    for message in [*messages, "sportballs.images.size: the authors' weights need 64"]:
        assert re.search(f"datasets.{message}", output), output
    output = snakemake(checkout, "-n", "--config", "run_datasets=[imagenet]", check=False)
    assert "run_datasets: no 'imagenet'" in output


def test_mistakes_in_the_setups_are_refused(checkout, tmp_path):
    table = tmp_path / "setups.yaml"
    table.write_text((ROOT / "config/setups.yaml").read_text().replace("{ema: {beta: 0.99,", "{emma: {beta: 0.99,", 1))
    output = snakemake(checkout, "-n", "--config", f"setups={table}", check=False)
    assert re.search(r"nonrobust_x0_ema0.99: stabilizer 'emma': unknown; use one of ema, adam", output), output


def image_set_of(run, checkout):
    """Arguments that make the toy SportBalls and no more."""
    words = ["--cores", "1", "--configfile", checkout / "config/test.yaml", "--config", f"run={run}"]
    return [*words, "run_datasets=[sportballs]", "--", f"results/{run}/sportballs/data/card.json"]


def test_a_second_snakemake_is_refused_and_the_first_one_finishes(checkout):
    """The first one is frozen at work while the second one looks."""
    same = image_set_of("shared", checkout)
    with at_work(checkout, *same, until=checkout / "results/shared/logs/sportballs/data.log") as first:
        os.killpg(first.pid, signal.SIGSTOP)
        second = subprocess.run(command(checkout, *same), cwd=checkout, capture_output=True, text=True)
        os.killpg(first.pid, signal.SIGCONT)
    assert second.returncode == 1 and second.stderr.count("Error") == 1 and "Traceback" not in second.stderr
    assert "Directory cannot be locked. Please make sure that no other Snakemake process is trying" in second.stderr
    assert first.returncode == 0 and (checkout / "results/shared/sportballs/data/card.json").exists()


def test_snakemake_does_not_end_before_a_stopped_verb(checkout, tmp_path):
    """Slurm sends SIGTERM to each process of a job, and kills what is left once Snakemake has ended."""
    verb = tmp_path / "nrcg"
    verb.write_text(f"#!{sys.executable}\n{SLOW_VERB}")
    verb.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    with at_work(checkout, *image_set_of("stopped", checkout), until=tmp_path / "started", PATH=path) as process:
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=60) == 1 and (tmp_path / "kept").exists()
