"""What a run costs: counts against the dry run's own table, hours against the README's arithmetic."""

import math
import re
import shutil

import pandas as pd
import pytest
import yaml
from environment_yml import ROOT
from published_layouts import make_celebahq, make_published_ddpm
from scratch import jobs as job_stats
from scratch import snakemake
from typer.testing import CliRunner

from nrcg.cli import app
from nrcg.errors import NrcgError
from nrcg.report.plan import RATE_COLUMNS, price, read_benchmarks, read_dry_run, read_rates, report, summary

GFLOP = {"celeba": 18.7, "sportballs": 18.7, "celebahq": 497}  # a forward pass of the U-Net
TFLOPS = 35
BENCHMARK = "s\th:m:s\tmax_rss\tcpu_time\n{}\t0:00:01\t140.95\t1.47\n"


def block(rule, command, *, jobid=1, indent="", resources="tmpdir=/tmp", threads=None, **wildcards):
    """A job as a dry run prints it, with the benchmark's name of our rules."""
    name = "_".join([rule, *(value for key, value in wildcards.items() if key != "dataset")])
    fields = {
        "input": "a.npy, b.npy",
        "output": f"out/{name}_{wildcards.get('dataset')}.npy, out/{name}.json",
        "jobid": jobid,
        "benchmark": f"results/r/benchmarks/{wildcards.get('dataset', '.')}/{name}.tsv",
        "reason": "Missing output files: out",
        "wildcards": ", ".join(f"{key}={value}" for key, value in wildcards.items()),
        "threads": threads,
        "resources": resources,
    }
    lines = [f"{indent}    {key}: {value}" for key, value in fields.items() if value]
    return "\n".join(
        [f"{indent}[Mon Nov 23 01:04:15 2026]", f"{indent}rule {rule}:", *lines, f"Shell command: {command}\n"]
    )


def shard(setup, scale, number, *, dataset="celeba", on="", stop=100, device="auto", **others):
    start = 100 * int(number)
    command = (
        f"nrcg sample --ddpm d {on} --start {start} --stop {start + stop} --num-inference-steps 400 --batch-size 9"
    )
    wildcards = {"dataset": dataset, "setup": setup, "scale": scale, "shard": number}
    gpu = "tmpdir=/tmp, runtime=120, gpu=1, mem_mb=12000"
    return block("sample", f"{command} --device {device} --out x.npy", resources=gpu, **others, **wildcards)


def dry_run(*blocks, counts=None, temporary=()):
    counts = counts or pd.Series([re.search(r"rule (\w+):", text)[1] for text in blocks]).value_counts().to_dict()
    table = "\n".join(f"{rule:<18} {count:>5}" for rule, count in {**counts, "total": sum(counts.values())}.items())
    stats = f"Job stats:\njob                count\n------------------  -----\n{table}\n"
    removals = "".join(f"Would remove temporary output {name}\n" for name in temporary)
    return f"Building DAG of jobs...\n{stats}\n\n" + "\n".join(blocks) + f"\n{removals}{stats}\nReasons:\n"


def rate_table(path, *rows):
    path.write_text("\n".join("\t".join(row) for row in [RATE_COLUMNS, *rows]) + "\n")
    return read_rates(path)


@pytest.fixture
def rates(tmp_path):
    """x̂₀ costs 20 minutes and 200 MB for 100 images, x_t half the minutes; training 3 hours."""
    return rate_table(
        tmp_path / "rates.tsv",
        ("sample", "celeba", "--num-inference-steps 400 --on x0", "100", "20", "200", "estimate: a"),
        ("sample", "celeba", "--num-inference-steps 400", "100", "10", "200", "estimate: b"),
        ("train", "", "", "", "180", "50", "measured: c"),
    )


TARGET = block("all", "None")
TRAINING = block("train", "nrcg train --device auto", dataset="celeba", resources="gpu=1", threads=8)


def test_hours_and_disk_are_those_of_the_rows_that_fit(rates):
    text = dry_run(
        shard("robust", "1", "000", on="--on xt"),
        shard("ours_x0", "0.5", "000", on="--on x0"),
        shard("ours_x0", "0.5", "001", on="--on x0", stop=50),  # half a shard
        TRAINING,
        TARGET,
        temporary=["out/sample_ours_x0_0.5_000_celeba.npy", "out/sample_ours_x0_0.5_001_celeba.npy"],
    )
    table = summary(price(read_dry_run(text, "text"), rates, {}), "rule").set_index("rule")
    assert table["jobs"].to_dict() == {"sample": 3, "train": 1, "all": 1}
    assert table.loc["sample", "gpu_hours"] == pytest.approx((10 + 20 + 10) / 60)
    assert table.loc["train", ["gpu_hours", "cpu_hours", "basis"]].tolist() == [3, 3 * 8, "measured"]
    assert table.loc["sample", ["stays_mb", "temporary_mb"]].tolist() == [200, 200 + 100]  # robust's is not deleted
    assert table.loc["all", ["gpu_hours", "cpu_hours", "stays_mb", "basis"]].tolist() == [0, 0, 0, "no command"]


def test_jobs_of_a_group_and_gpus_by_gres_are_read(rates):
    text = dry_run(
        "[Mon Nov 23 01:07:15 2026] Group job celeba_robust_1 (jobs in lexicogr. order):\n\n"
        + shard("robust", "1", "000", indent="    "),
        shard("robust", "1", "001", indent="    "),
        TRAINING.replace("gpu=1", "gpu=0, gres=gpu:1"),
    )
    jobs = read_dry_run(text, "text")
    assert [(job.rule, job.dataset, job.gpu) for job in jobs] == [("sample", "celeba", True)] * 2 + [
        ("train", "celeba", True)
    ]


def test_a_job_on_the_cpu_takes_no_hours_of_a_gpu(tmp_path):
    rates = rate_table(tmp_path / "r.tsv", ("sample", "", "", "", "10", "", "estimate: GPU"))
    jobs = read_dry_run(dry_run(shard("robust", "1", "000", device="cpu")), "text")
    assert math.isnan(price(jobs, rates, {})["hours"].item())
    rates += rate_table(tmp_path / "r.tsv", ("sample", "", "--device cpu", "", "60", "", "measured: CPU"))
    assert price(jobs, rates, {})[["hours", "gpu_hours", "cpu_hours"]].iloc[0].tolist() == [1, 0, 1]


def test_measured_seconds_replace_the_tables(rates, tmp_path):
    """Of the setup itself; else of setups with the same row and data set; never of another row or data set."""
    measured = {
        "celeba/sample_ours_x0_2_000": 100,
        "celeba/sample_ours_x0_2_001": 300,
        "celeba/sample_ours_x0_ema0.9_2_000": 900,
        "sportballs/sample_robust_1_000": 5,
        "comparison": 7,
    }
    folder = tmp_path / "benchmarks"
    for name, seconds in measured.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.tsv").write_text(BENCHMARK.format(seconds))
    text = dry_run(
        shard("robust", "1", "000", on="--on xt"),
        shard("ours_x0", "0.5", "000", on="--on x0"),
        shard("ours_x0_ema0.9", "0.5", "000", on="--on x0"),
        shard("ours_x0_adam", "0.5", "000", on="--on x0"),
        TRAINING,
    )
    priced = price(read_dry_run(text, "text"), rates, read_benchmarks([folder]))
    assert (priced["hours"] * 3600).tolist() == pytest.approx([600, 200, 900, (100 + 300 + 900) / 3, 3 * 3600])
    assert priced["basis"].tolist() == ["estimate", "yours", "yours", "yours", "measured"]


def test_what_has_no_rate_is_named_and_not_added_up(rates):
    text = dry_run(
        shard("robust", "1", "000"), shard("robust", "1", "000", dataset="mine"), block("odd", "nrcg odd"), TARGET
    )
    priced = price(read_dry_run(text, "text"), rates, {})
    page = " ".join(report(priced, "rates.tsv").split())
    assert "UNKNOWN, not in the sums: hours of sample (1), odd (1)." in page and "all (" not in page
    assert re.search(r"total 4 0\.17 0\.17 .* without 2 jobs", page)
    table = summary(priced, "rule").set_index("rule")
    assert math.isnan(table.loc["odd", "cpu_hours"]) and table.loc["sample", "gpu_hours"] == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "hello\nmake: Nothing to be done for 'all'.\n",
            r"^text: not a dry run.*: snakemake -n .* \| nrcg plan --rates",
        ),
        ("", "^text: not a dry run, or one with --quiet"),
        (dry_run(counts={"sample": 2}), "without its jobs; leave out --quiet"),
        (dry_run(TRAINING, counts={"train": 2}), "1 jobs of rule train, but its table says 2"),
        (dry_run(TRAINING, TARGET, counts={"train": 1}), "1 jobs of rule all, but its table says 0"),
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
        (("sample", "", "", "", "soon", "", "estimate: a"), "line 2: not a number.*soon"),
        (("sample", "", "", "", "-1", "", "estimate: a"), "line 2: .*0 or more"),
        (("sample", "", "", "", "nan", "", "estimate: a"), "line 2: .*0 or more"),
        (("sample", "", "", "", "1", "", "hearsay"), "line 2: basis 'hearsay'.*estimate"),
        (("sample", "1", "estimate: a"), "line 2: not 7 columns"),
    ],
)
def test_a_wrong_row_of_rates_is_named(tmp_path, row, message):
    with pytest.raises(NrcgError, match=message):
        rate_table(tmp_path / "rates.tsv", row)


def test_other_files_are_refused_by_name(tmp_path):
    with pytest.raises(NrcgError, match=r"setups\.tsv: columns \['setup'"):
        read_rates(ROOT / "config/setups.tsv")
    with pytest.raises(NrcgError, match="no benchmarks"):
        read_benchmarks([tmp_path])
    (tmp_path / "log.tsv").write_text("time\n1\n")
    with pytest.raises(NrcgError, match=r"log\.tsv: not a benchmark"):
        read_benchmarks([tmp_path])


def test_the_projects_rates_are_the_readmes_arithmetic():
    """FLOPs of the config's networks at 35 TFLOP/s, and the GPU hours that README.md gives for sampling."""
    datasets = yaml.safe_load((ROOT / "config/config.yaml").read_text())["datasets"]
    setups = pd.read_csv(ROOT / "config/setups.tsv", sep="\t").set_index("setup")
    rates = read_rates(ROOT / "config/rates.tsv")
    readme = {"celeba": (68, 238), "sportballs": (51, 232), "celebahq": (4, 8)}
    for name, data in datasets.items():
        size, steps = data["sampling"]["shard_size"], data["sampling"]["num_inference_steps"]
        text = {
            on: f"nrcg sample --on {on} --start 0 --stop {size} --num-inference-steps {steps} --x"
            for on in ("xt", "x0")
        }
        blocks = [block("sample", text[on], dataset=name, setup=on, scale="1", shard="000") for on in text]
        xt, x0 = price(read_dry_run(dry_run(*blocks), "text"), rates, {})["hours"]
        assert xt == pytest.approx(size * steps * GFLOP[name] / TFLOPS / 1000 / 3600, rel=1e-3) and x0 == pytest.approx(
            2 * xt, rel=1e-3
        )
        points = {"xt": 1, "x0": 0}  # the unguided one
        for setup, scales in data["scales"].items():
            points[setups.loc[setup, "on"]] += len(scales)
        shards = math.ceil(data["sampling"]["n_samples"] / size)
        assert (points["xt"] * shards * xt, points["x0"] * shards * x0) == pytest.approx(readme[name], abs=0.6)
    for name, images in {"celeba": 162770, "sportballs": 80000}.items():
        rate = next(rate for rate in rates if (rate.rule, rate.dataset) == ("train_ddpm", name))
        assert rate.minutes * 60 == pytest.approx(1000 * images * 3 * GFLOP[name] / TFLOPS / 1000, rel=1e-3)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with the project's config and a tiny CelebA-HQ."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "config", folder / "config")
    make_celebahq(folder / "data/celeba-hq-256x256")
    make_published_ddpm(folder / "data/ddpm-celebahq-256")
    return folder


def plan(folder, text, *options):
    command = ["plan", "--rates", str(folder / "config/rates.tsv"), *map(str, options)]
    return CliRunner().invoke(app, command, input=text, catch_exceptions=False)


def test_a_real_dry_run_is_counted_as_in_its_own_table(checkout, tmp_path):
    text = snakemake(
        checkout, "-n", "--configfile", checkout / "config/test.yaml", "--config", "run_datasets=[sportballs]"
    )
    result = plan(checkout, text, "--out", tmp_path / "plan.csv")
    assert result.exit_code == 0
    counts = dict(re.findall(r"^(\w+) +(\d+) ", result.stdout.split("\n\n")[0], re.M))
    assert int(counts.pop("total")) == sum(job_stats(text).values())
    assert {rule: int(count) for rule, count in counts.items()} == job_stats(text)
    table = pd.read_csv(tmp_path / "plan.csv").set_index("rule")
    assert table["jobs"].to_dict() == job_stats(text)
    assert table.loc["sample", "basis"] == "no rate"  # the toy is not what the table is for
    assert "sample (9)" in result.stdout


def test_a_real_dry_run_of_the_papers_config_costs_what_the_readme_says(checkout):
    text = snakemake(checkout, "-n", "--cores", "16", "--config", "run_datasets=[celebahq]")
    jobs = read_dry_run(text, "text")
    table = summary(price(jobs, read_rates(checkout / "config/rates.tsv"), {}), "rule").set_index("rule")
    assert table.loc["sample", "gpu_hours"] == pytest.approx(12, abs=0.2)
    assert table.loc["sample", "cpu_hours"] == pytest.approx(8 * table.loc["sample", "gpu_hours"])  # eight threads
    assert table.loc["sample", ["stays_mb", "temporary_mb"]].tolist() == pytest.approx(
        [0, 32 * 64 * 3 * 256**2 / 1e6], rel=1e-3
    )
    assert "no rate" not in set(table["basis"])


def test_a_finished_run_costs_nothing(checkout):
    text = "Building DAG of jobs...\nNothing to be done (all requested files are present and up to date).\n"
    assert plan(checkout, text).stdout == "Nothing is left to do: this dry run has no jobs.\n"


def test_every_rule_of_the_workflow_has_a_rate():
    """Or is a target, which runs nothing: a new rule needs a row."""
    rules = {}
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        rules |= dict(re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", path.read_text(), re.M))
    working = {name for name, body in rules.items() if "    shell:" in body}
    assert len(working) > 20 and working == {rate.rule for rate in read_rates(ROOT / "config/rates.tsv")}
