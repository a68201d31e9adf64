"""`snakemake --profile slurm` on a real Slurm of one node: what each job is given, requeues, retries, accounting."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
import yte
from environment_yml import ROOT
from slurm_cluster import edit_profile, missing, slurm_cluster

PROFILE = ROOT / "workflow/profiles/slurm/config.yaml"
GPU_RULES = {"train_classifier", "train_ddpm", "forward", "reference", "sample", "trace", "find_scale"}
GPU_RULES |= {"features", "features_of_real"}
CPU_RULES = {"images", "score"}  # all others are local
SHARD = Path("results/test/sportballs/samples/unconditional/scale_none/shard_000.npy")
SNAKEMAKE = """
import asyncio, sys
from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.sleep = lambda self: asyncio.sleep(1)  # between looks at the jobs; the plugin's own pauses only grow
sys.exit(main())
"""
TARGETS = ["figure1", "table2"]
GUIDED = "nonrobust_x0"
TRAININGS = {  # rule: where its files are, and its log
    "train_ddpm": ("ddpm", "train_ddpm"),
    "train_classifier": ("classifiers/nonrobust", "train_nonrobust"),
}
OVERLAY = {
    "style": str(ROOT / "nrcg/plots/nrcg.mplstyle"),
    "run_datasets": ["sportballs"],
    "keep_samples": True,
    "datasets": {
        "sportballs": {
            "sampling": {"n_unconditional": 310, "shard_size": 300, "n_samples": 6, "batch_size": 3},
            "showcase": {"setup": GUIDED, "scale": 1},
            "ddpm": {"training": {"epochs": 20, "checkpoint_every": 1000}},  # 160 steps
            "classifiers": {"nonrobust": {"batch_size": 4}},  # 64 steps
        }
    },
}
TOY_SNAKEFILE = """
rule all:
    localrule: True
    input: "ds1a", "ds1b", "images"

rule sample:
    output: "{dataset,d}{setup,s}{scale,1}{shard,[ab]}"
    resources: gpu=1
    shell: "echo $SLURM_GPUS_ON_NODE > {output}"

rule images: # gives up at its first attempt
    output: "images"
    shell: "test {resources.mem_mb} -gt 4000; echo ${{SLURM_GPUS_ON_NODE:-none}} > {output}"
"""


def snakemake(folder, cluster, *arguments):
    """`snakemake` as a user types it in `folder`, but impatient; ends as `process.wait()` tells."""
    words = [sys.executable, "-c", SNAKEMAKE, *arguments]
    with (folder / "output").open("a") as out:
        return subprocess.Popen(words, cwd=folder, env=cluster.environment, stdout=out, stderr=out)


def toy_run(folder, cluster, *arguments):
    return snakemake(folder, cluster, *arguments, "--configfile", "config/test.yaml", "config/short.yaml")


def succeeds(process, folder):
    assert process.wait() == 0, (folder / "output").read_text()[-5000:]


def rule_of(job):
    """From what Snakemake writes into a job's comment: `rule_NAME_wildcards_…`."""
    return re.match(r"rule_(\w+)_wildcards_", job["Comment"])[1]


def requeue(cluster, rule):
    """Have Slurm stop the rule's last job and start it anew."""
    (*_, job) = (job for job in cluster.jobs() if rule_of(job) == rule)
    cluster.run("scontrol", "requeue", job["JobId"])
    return job["JobId"]


def restarts(cluster):
    return {job["JobId"]: job["Restarts"] for job in cluster.jobs()}


def contents(folder):
    """All files of a folder; of the card what is the same each time."""
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {**files, Path("card.json"): {**json.loads(files[Path("card.json")]), "seconds": 0}}


def has_gpu(job):
    return any("gpu" in job.get(key, "") for key in ("TresPerJob", "TresPerNode"))


def test_the_profile_knows_every_rule_with_a_gpu():
    text = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    rules = dict(re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", text, flags=re.M | re.S))
    assert {name for name, body in rules.items() if "gpu=" in body} == GPU_RULES
    profile = yte.process_yaml(PROFILE.read_text(), require_use_yte=True)
    assert set(profile["set-resources"]) == GPU_RULES


def test_the_profile_is_found_by_its_name():
    assert (ROOT / "slurm/config.yaml").samefile(PROFILE)


@pytest.fixture(scope="module")
def cluster():
    if missing():
        pytest.skip(missing())
    with slurm_cluster(gpus=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cluster):
    """A checkout in which one guided point and the unguided one went through Slurm, from the data to figures."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Snakefile", "workflow", "profiles", "slurm"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "config", folder / "config")
    setups = yaml.safe_load((ROOT / "config/test.yaml").read_text())["datasets"]["sportballs"]["scales"]
    OVERLAY["datasets"]["sportballs"]["scales"] = {name: [1] if name == GUIDED else [] for name in setups}
    (folder / "config/short.yaml").write_text(yaml.safe_dump(OVERLAY))
    succeeds(toy_run(folder, cluster, *TARGETS, "--profile", "slurm"), folder)
    return folder


def test_the_report_is_made_from_what_ran_on_slurm(finished, cluster):
    succeeds(toy_run(finished, cluster, *TARGETS, "--report", "report.html"), finished)
    html = (finished / "report.html").read_text()
    for name in ("figure1.png", "table2.html"):
        assert name in html


def test_rules_with_networks_get_a_gpu_and_no_others(finished, cluster):
    given = {(rule_of(job), has_gpu(job)) for job in cluster.jobs()}
    asked = GPU_RULES - {"trace", "find_scale"}  # which no figure 8 needs
    assert given == {(rule, True) for rule in asked} | {(rule, False) for rule in CPU_RULES}


def test_jobs_get_the_time_and_memory_that_the_rules_declare(finished, cluster):
    given = {rule_of(job): job for job in cluster.jobs()}
    assert given["train_ddpm"]["TimeLimit"] == "6-00:00:00" and given["train_ddpm"]["MinMemoryNode"] == "24000M"
    sample = given["sample"]
    assert sample["TimeLimit"] == "12:00:00" and sample["MinMemoryNode"] == "12000M"
    assert sample["NumCPUs"] == "1" and sample["TresPerJob"] == "gres:gpu:1"


def test_a_requeued_job_goes_on_and_changes_no_sample(finished, cluster):
    """The shard was drawn undisturbed before; now it is requeued half-way."""
    path, card = finished / SHARD, finished / SHARD.with_suffix(".json")
    before, told = path.read_bytes(), json.loads(card.read_text())
    path.unlink()
    card.unlink()
    process = toy_run(finished, cluster, SHARD, "--profile", "slurm")
    while not list(path.with_suffix(".unfinished").rglob("*.batch")):
        assert process.poll() is None
        time.sleep(0.05)
    job = requeue(cluster, "sample")
    succeeds(process, finished)
    assert restarts(cluster)[job] == "1"
    log = (finished / "results/test/logs/sportballs/sample_unconditional_none_000.log").read_text()
    assert re.search(r": \d+ of 300 samples already drawn", log)
    again = json.loads(card.read_text())
    assert path.read_bytes() == before and {**again, "seconds": 0} == {**told, "seconds": 0}


def test_requeued_trainings_go_on_and_change_no_bit(finished, cluster):
    """Both ran undisturbed before; now both are requeued half-way, long before a checkpoint is due."""
    home = Path("results/test/sportballs")
    logs = {rule: finished / f"results/test/logs/sportballs/{log}.log" for rule, (_, log) in TRAININGS.items()}
    folders = [home / folder for folder, _ in TRAININGS.values()]
    before = [contents(finished / folder) for folder in folders]
    for folder, log in zip(folders, logs.values(), strict=True):
        shutil.rmtree(finished / folder)
        log.unlink()
    shutil.rmtree(finished / home / "checkpoints")  # of the finished trainings, which would be written again
    process = toy_run(finished, cluster, *(folder / "card.json" for folder in folders), "--profile", "slurm")
    requeued = {}
    while len(requeued) < len(TRAININGS):
        assert process.poll() is None
        time.sleep(0.05)
        for rule in logs.keys() - requeued.keys():
            if logs[rule].exists() and re.search(rb"\| [1-9]\d*/\d+ \[", logs[rule].read_bytes()):
                requeued[rule] = requeue(cluster, rule)
    succeeds(process, finished)
    assert [restarts(cluster)[job] for job in requeued.values()] == ["1", "1"]
    for log in logs.values():
        assert re.search(r"continuing from step [1-9]", log.read_text())
    assert [contents(finished / folder) for folder in folders] == before


@pytest.mark.parametrize("way", ["gpu", "gres"])
def test_a_cluster_with_accounting(tmp_path, accounted, way):
    """With both ways to ask for a GPU, by model; the second attempt of a failed job asks for more memory."""
    edit_profile(
        PROFILE, tmp_path, account="lab", partition="cpus", gpu_partition="gpus", ask_for_gpus_by=way, gpu_model="toy"
    )
    (tmp_path / "Snakefile").write_text(TOY_SNAKEFILE)
    seen = len(accounted.jobs())
    succeeds(snakemake(tmp_path, accounted, "--profile", "slurm"), tmp_path)
    _, sample, *attempts = sorted(accounted.jobs()[seen:], key=lambda job: (not has_gpu(job), int(job["JobId"])))
    assert sample["Partition"] == "gpus" and sample["Account"] == "lab"
    assert sample[{"gpu": "TresPerJob", "gres": "TresPerNode"}[way]] == "gres:gpu:toy:1"
    assert [job["MinMemoryNode"] for job in attempts] == ["4000M", "8000M"]
    assert {job["Partition"] for job in attempts} == {"cpus"} and not any(map(has_gpu, attempts))
    assert [(tmp_path / name).read_text() for name in ("ds1a", "ds1b", "images")] == ["1\n", "1\n", "none\n"]
    states = accounted.run("sacct", "--allocations", "--noheader", "--format=State").split()
    assert "FAILED" in states and "COMPLETED" in states


@pytest.fixture(scope="module")
def accounted():
    if missing(accounting=True):
        pytest.skip(missing(accounting=True))
    partitions = [f"PartitionName={name} Nodes=ALL MaxTime=1-0 State=UP" for name in ("cpus", "gpus")]
    with slurm_cluster(accounting=True, partitions="\n".join(partitions)) as cluster:
        yield cluster
