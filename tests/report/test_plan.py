"""What a run costs: counts against the dry run's own table, hours against the README's arithmetic."""

import json
import math
import re
import shlex

import pandas as pd
import pytest
import yaml
from environment_yml import ROOT
from scratch import jobs as job_stats
from scratch import snakemake
from typer.testing import CliRunner

from nrcg.cli import app
from nrcg.errors import NrcgError
from nrcg.report.plan import beside, price, read_dry_run, report, together

RATES = ROOT / "config/rates.tsv"
COLUMNS = ["rule", "dataset", "options", "images", "minutes", "disk_mb", "basis"]
GFLOP = {"celeba": 18.7, "sportballs": 18.7, "celebahq": 497}  # a forward pass of the U-Net
TFLOPS = 35


def block(rule, command, *, indent="", resources="tmpdir=/tmp", threads=None, **wildcards):
    """A job as a dry run prints it."""
    fields = {
        "input": "a.npy, b.npy",
        "output": f"out/{rule}.npy, out/{rule}.json",
        "jobid": 1,
        "reason": "Missing output files: out",
        "wildcards": ", ".join(f"{key}={value}" for key, value in wildcards.items()),
        "threads": threads,
        "resources": resources,
    }
    lines = [f"{indent}    {key}: {value}" for key, value in fields.items() if value]
    return "\n".join(
        [f"{indent}[Mon Nov 23 01:04:15 2026]", f"{indent}rule {rule}:", *lines, f"Shell command: {command}\n"]
    )


def sample(on="xt", start=0, stop=100, *, dataset="celeba", device="auto", steps=400, **others):
    guidance = shlex.quote(json.dumps({"objective": "logit", "on": on, "stabilizer": {"ema": {"beta": 0.99}}}))
    command = f"nrcg sample --ddpm d --start {start} --stop {stop} --num-inference-steps {steps} --guidance {guidance}"
    gpu = "tmpdir=/tmp, runtime=120, gpu=1, mem_mb=12000"
    wildcards = {"dataset": dataset, "setup": "s", "scale": "1", "shard": "000"}
    return block("sample", f"{command} --device {device} --out x.npy", resources=gpu, **others, **wildcards)


def dry_run(*blocks, counts=None):
    counts = counts or pd.Series([re.search(r"rule (\w+):", text)[1] for text in blocks]).value_counts().to_dict()
    table = "\n".join(f"{rule:<18} {count:>5}" for rule, count in {**counts, "total": sum(counts.values())}.items())
    stats = f"Job stats:\njob                count\n------------------  -----\n{table}\n"
    return f"Building DAG of jobs...\n{stats}\n\n" + "\n".join(blocks) + f"\n{stats}\nReasons:\n"


def rate_table(path, *rows):
    path.write_text("\n".join("\t".join(row) for row in [COLUMNS, *rows]) + "\n")
    return path


@pytest.fixture
def rates(tmp_path):
    """x̂₀ costs 20 minutes and 200 MB for 100 images, x_t half the minutes; training 3 hours."""
    return rate_table(
        tmp_path / "rates.tsv",
        ("sample", "celeba", "--num-inference-steps 400; on: x0", "100", "20", "200", "estimate: a"),
        ("sample", "celeba", "--num-inference-steps 400", "100", "10", "200", "estimate: b"),
        ("train", "", "epochs: 20", "", "180", "50", "measured: c"),
    )


TARGET = block("all", "None")
TRAINING = block(
    "train", "nrcg train --settings '{\"epochs\": 20}' --x", dataset="celeba", resources="gpu=1", threads=8
)


def costs(text, rates):
    return price(read_dry_run(text, "text"), rates).set_index("rule")


def test_hours_and_disk_are_those_of_the_rows_that_fit(rates):
    half = sample("x0", 100, 150)
    table = costs(dry_run(sample("xt"), sample("x0"), half, TRAINING, TARGET), rates)
    assert table["jobs"].to_dict() == {"sample": 3, "train": 1, "all": 1} and table["unknown"].sum() == 0
    assert table.loc["sample", "GPU hours"] == pytest.approx((10 + 20 + 10) / 60)
    assert table.loc["sample", "GB"] == pytest.approx(0.2 + 0.2 + 0.1)
    assert table.loc["train", ["GPU hours", "CPU hours"]].tolist() == [3, 3 * 8]
    assert table.loc["all", ["GPU hours", "CPU hours", "GB"]].tolist() == [0, 0, 0]


def test_options_are_whole_words(rates):
    other = TRAINING.replace('"epochs": 20', '"epochs": 200')
    assert costs(dry_run(other, sample(steps=4000)), rates)["unknown"].to_dict() == {"train": 1, "sample": 1}
    inside = TRAINING.replace('"epochs": 20', '"batch_size": 5, "epochs": 20, "seed": [1]')
    assert costs(dry_run(inside), rates)["GPU hours"].item() == 3


def test_jobs_of_a_group_and_gpus_by_gres_are_read():
    text = dry_run(
        "[Mon Nov 23 01:07:15 2026] Group job celeba_robust_1 (jobs in lexicogr. order):\n\n" + sample(indent="    "),
        sample(start=100, stop=150, indent="    "),
        TRAINING.replace("gpu=1", "gpu=0, gres=gpu:1"),
    )
    jobs = read_dry_run(text, "text")
    assert jobs[["rule", "dataset", "images", "gpu"]].to_numpy().tolist() == [
        ["sample", "celeba", 100, True], ["sample", "celeba", 50, True], ["train", "celeba", 0, True],
    ]  # fmt: skip


def test_a_job_on_the_cpu_takes_no_hours_of_a_gpu(tmp_path):
    gpu, cpu = (
        ("sample", "", "", "", "10", "", "estimate: GPU"),
        ("sample", "", "--device cpu", "", "60", "", "estimate: "),
    )
    text = dry_run(sample(device="cpu"))
    assert costs(text, rate_table(tmp_path / "r.tsv", gpu))["unknown"].item() == 1
    table = costs(text, rate_table(tmp_path / "r.tsv", gpu, cpu))
    assert table[["GPU hours", "CPU hours", "unknown"]].iloc[0].tolist() == [0, 1, 0]


def test_what_has_no_rate_is_named_and_not_added_up(rates):
    text = dry_run(sample(), sample(dataset="mine"), block("odd", "nrcg odd"), TARGET)
    page = " ".join(report(price(read_dry_run(text, "text"), rates), "rates.tsv").split())
    assert "UNKNOWN, not in the sums: sample (1), odd (1). Add matching rows to rates.tsv." in page
    assert re.search(r"sample celeba 1 0\.17 0\.17 0\.20 0 sample mine 1 0\.00 0\.00 0\.00 1", page)
    assert re.search(r"total 4 0\.17 0\.17 0\.20 2", page)
    whole = report(price(read_dry_run(dry_run(sample()), "text"), rates), "rates.tsv")
    assert "UNKNOWN" not in whole


def test_plans_side_by_side_count_a_job_once(rates):
    """And leave out rows of minutes; a plan may be of several dry runs, some with nothing to do."""
    nothing = "Nothing to be done (all requested files are present and up to date)\n"
    texts = {
        "all": [dry_run(sample("x0"), TRAINING, TARGET)],
        "steps": [dry_run(TRAINING), nothing, dry_run(TRAINING, sample("xt"), sample("xt", dataset="mine"))],
        "done": [nothing, nothing],
    }
    plans = {name: price(together([read_dry_run(text, name) for text in each]), rates) for name, each in texts.items()}
    table = beside(plans, "dataset").set_index("dataset")
    assert table.index.tolist() == ["celeba", "total"] and table.loc["celeba"].equals(table.loc["total"])
    assert table.loc["total"].to_dict() == pytest.approx({"all": 3 + 20 / 60, "steps": 3 + 10 / 60, "done": 0})
    rules = beside(plans, "rule").set_index("rule")
    assert rules.index.tolist() == ["train", "total"] and rules.loc["total"].equals(table.loc["total"])
    assert rules.loc["train"].to_dict() == {"all": 3, "steps": 3, "done": 0}
    assert plans["steps"]["unknown"].sum() == 1


def test_plans_side_by_side_have_names(tmp_path):
    text = dry_run(sample(), sample(dataset="mine"))
    (tmp_path / "dry.txt").write_text(text)
    pair = f"a={tmp_path / 'dry.txt'}"
    result = plan("", pair, pair.replace("a=", "b="), "--out", str(tmp_path / "out.csv"))
    assert re.search(r"^\| dataset +\| +a \| +b \|$", result.stdout, re.M) and "sample (2)" in result.stdout
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["plan"].tolist() == ["a", "a", "b", "b"] and table["unknown"].sum() == 2
    with pytest.raises(NrcgError, match=r"dry run 'dry\.txt': write NAME=VALUE"):
        plan("", pair, "dry.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "hello\nmake: Nothing to be done for 'all'.\n",
            r"^text: not a dry run.*: snakemake -n .* \| nrcg plan --rates",
        ),
        ("", "^text: not a dry run, or one with --quiet"),
        (dry_run(counts={"sample": 2}), "^text: not a dry run, or one with --quiet"),
        (dry_run(TRAINING, counts={"train": 2}), "jobs of train do not match the job stats"),
        (dry_run(TRAINING, TARGET, counts={"train": 1}), "jobs of all do not match the job stats"),
        (dry_run(TRAINING).replace("Shell command", "Note"), "--printshellcmds"),
    ],
)
def test_a_text_that_is_no_whole_dry_run_is_refused_in_one_line(text, message):
    with pytest.raises(NrcgError, match=message) as error:
        read_dry_run(text, "text")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("sample", "", "", "", "soon", "", "a"), "column 'minutes' holds 'soon' where a number belongs"),
        (("sample", "", "", "", "-1", "", "a"), r"rates\.tsv: .*at least 0"),
        (("sample", "", "", "", "", "", "a"), r"rates\.tsv: .*minutes must not be blank"),
        (("sample", "", "", "", "inf", "", "a"), r"rates\.tsv: .*at least 0"),
        (("sample", "1", "a"), "column 'minutes'|at least 0"),
    ],
)
def test_a_wrong_row_of_rates_is_named(tmp_path, row, message):
    with pytest.raises(NrcgError, match=message):
        price(read_dry_run(dry_run(TARGET), "text"), rate_table(tmp_path / "rates.tsv", row))


def test_other_files_are_refused_by_name(tmp_path):
    jobs = read_dry_run(dry_run(TARGET), "text")
    with pytest.raises(NrcgError, match=r"paper_results\.tsv: no column 'rule'"):
        price(jobs, ROOT / "config/paper_results.tsv")
    with pytest.raises(NrcgError, match=r"none\.tsv: no such file"):
        price(jobs, tmp_path / "none.tsv")


def test_the_projects_rates_are_the_readmes_arithmetic():
    """FLOPs of the config's networks at 35 TFLOP/s, and the GPU hours that README.md gives for sampling."""
    datasets = yaml.safe_load((ROOT / "config/config.yaml").read_text())["datasets"]
    readme = {"celeba": (71, 248), "sportballs": (53, 242), "celebahq": (4, 8)}
    for name, data in datasets.items():
        size, steps = data["sampling"]["shard_size"], data["sampling"]["num_inference_steps"]
        xt, x0 = (
            costs(dry_run(sample(on, 0, size, dataset=name, steps=steps)), RATES)["GPU hours"].item()
            for on in ("xt", "x0")
        )
        assert xt == pytest.approx(size * steps * GFLOP[name] / TFLOPS / 1000 / 3600, rel=1e-3)
        assert x0 == pytest.approx(2 * xt, rel=1e-3)
        points = {"xt": 1, "x0": 0}  # the unguided one
        for setup, scales in data["scales"].items():
            points["x0" if "_x0" in setup else "xt"] += len(scales)
        shards = math.ceil(data["sampling"]["n_samples"] / size)
        assert (points["xt"] * shards * xt, points["x0"] * shards * x0) == pytest.approx(readme[name], abs=0.6)
    for name, data in yaml.safe_load((ROOT / "config/fast.yaml").read_text())["datasets"].items():
        steps = data["sampling"]["num_inference_steps"]
        assert steps == datasets[name]["sampling"]["num_inference_steps"] / 2
        for on, passes in {"xt": 1, "x0": 2}.items():
            pass_hours = steps * GFLOP[name] / TFLOPS / 1000 / 3600
            half = costs(dry_run(sample(on, dataset=name, steps=steps)), RATES)["GPU hours"].item()
            assert half == pytest.approx(100 * passes * pass_hours, rel=1e-3)
            search = sample(on, dataset=name, steps=steps).replace("sample", "find_scale")
            search = search.replace("--start 0 --stop 100", "--samples 512")
            if name != "celebahq":  # it has one scale
                hours = costs(dry_run(search), RATES)["GPU hours"].item()
                assert hours == pytest.approx(512 * (12 * passes + 1) * pass_hours, rel=1e-3)
    for name, images in {"celeba": 162770, "sportballs": 80000}.items():
        training = block("train_ddpm", "nrcg train ddpm --settings '{\"epochs\": 1000}' --x", dataset=name, threads=1)
        hours = costs(dry_run(training), RATES)["CPU hours"].item()
        assert hours == pytest.approx(1000 * images * 3 * GFLOP[name] / TFLOPS / 1000 / 3600, rel=1e-3)


def plan(text, *options):
    return CliRunner().invoke(app, ["plan", "--rates", str(RATES), *options], input=text, catch_exceptions=False)


def test_a_real_dry_run_is_counted_as_in_its_own_table(checkout, tmp_path):
    text = snakemake(
        checkout, "-n", "--configfile", checkout / "config/test.yaml", "--config", "run_datasets=[sportballs]"
    )
    result = plan(text, "--out", str(tmp_path / "plan.csv"))
    assert result.exit_code == 0
    table = pd.read_csv(tmp_path / "plan.csv").groupby("rule").sum(numeric_only=True)
    assert table["jobs"].to_dict() == job_stats(text)
    assert int(re.search(r"^total +(\d+) ", result.stdout, re.M)[1]) == sum(job_stats(text).values())
    assert table.loc["sample", "unknown"] == 9  # the toy is not what the table is for
    assert "sample (9)" in result.stdout


def test_a_real_dry_run_of_the_papers_config_costs_what_the_readme_says(checkout):
    text = snakemake(checkout, "-n", "--cores", "16", "--config", "run_datasets=[celebahq]")
    table = costs(text, RATES)
    assert table.loc["sample", "GPU hours"] == pytest.approx(12, abs=0.2)
    assert table.loc["sample", "CPU hours"] == pytest.approx(8 * table.loc["sample", "GPU hours"])  # eight threads
    assert table.loc["sample", "GB"] == pytest.approx(32 * 64 * 3 * 256**2 / 1e9, rel=1e-3)
    assert table["unknown"].sum() == 0


def test_both_plans_of_the_paper_are_priced_and_cost_what_the_documentation_says(checkout, tmp_path):
    """`make plan`: its dry runs of the paper's config and of config/fast.yaml."""
    recipe = re.search(r"^plan:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    files = [word.replace("build/plan", str(tmp_path)) for word in re.findall(r"\w+=build/plan/\w+", recipe)]
    for words, name in re.findall(r"\$\(DRY\)(.*) >build/plan/(\w+)", recipe):
        text = snakemake(checkout, "-n", "--forceall", "--cores", "16", *words.split())
        (tmp_path / name).write_text(text)
        assert costs(text, RATES)["unknown"].sum() == 0
    result = plan("", *files)
    tables = re.findall(r"(?:^\|.*\n)+", result.stdout, re.M)
    assert len(tables) == 2 and "UNKNOWN" not in result.stdout
    for table in tables:
        assert table in (ROOT / "docs/reproduce.md").read_text()


def test_a_finished_run_costs_nothing():
    text = "Building DAG of jobs...\nNothing to be done (all requested files are present and up to date).\n"
    assert plan(text).stdout == "Nothing to be done: this dry run has no jobs.\n"


def test_every_rule_of_the_workflow_has_a_rate():
    """Or is a target, which runs nothing: a new rule needs a row."""
    text = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    bodies = dict(re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", text, re.M))
    working = {name for name, body in bodies.items() if "    shell:" in body}
    working |= set(re.findall(r"^use rule \w+ as (\w+) ", text, re.M))
    assert len(working) > 10 and working == {line.split("\t")[0] for line in RATES.read_text().splitlines()[1:]}
