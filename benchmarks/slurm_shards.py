"""What does it cost to run many short samplings on Slurm, one a job and several a job?

The shards are stand-ins that take no time; profile, grouping and plugin are the real ones, on a Slurm cluster of one
node that is started here, with a GPU (an empty file) for each core. So this is the cost around a sampling. It leaves
out what a shared cluster adds, the wait of each job in the queue.

Seen on two cores: 200 shards take 727 s as 200 jobs, 408 s as 34 jobs of six.

Floor: each shard starts Snakemake once more inside its job, some two seconds of one core.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from tests.slurm_cluster import Cluster, edit_profile, missing, slurm_cluster

PROFILE = Path(__file__).parents[1] / "workflow/profiles/slurm/config.yaml"
SNAKEFILE = """
rule all:
    localrule: True
    input: expand("shards/toy_none_0_{{shard}}", shard=range({shards}))

rule sample:
    output: "shards/{{dataset}}_{{setup}}_{{scale}}_{{shard}}"
    resources: gpu=1
    shell: "echo {{wildcards.shard}} > {{output}}"
"""


def measure(cluster: Cluster, shards: int, per_job: int) -> dict[str, float]:
    """Run all shards through `snakemake --profile slurm`; seconds, and how many jobs Slurm got."""
    before, started = len(cluster.jobs()), time.monotonic()
    with tempfile.TemporaryDirectory() as name, tqdm(total=shards, desc=f"{per_job} a job", unit="shard") as progress:
        folder = Path(name)
        (folder / "Snakefile").write_text(SNAKEFILE.format(shards=shards))
        edit_profile(PROFILE, folder, shards_per_job=per_job)
        words = ["snakemake", "--profile", "slurm", "--quiet", "all"]
        with subprocess.Popen(words, cwd=folder, env=cluster.environment) as process:
            while process.poll() is None:
                time.sleep(1)
                progress.update(len(list(folder.glob("shards/*"))) - progress.n)
        if process.returncode:
            raise SystemExit(f"snakemake ended with status {process.returncode}")
    seconds = round(time.monotonic() - started)
    return {"shards": shards, "shards_per_job": per_job, "jobs": len(cluster.jobs()) - before, "seconds": seconds}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks slurm-shards", description=__doc__)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--per-job", type=int, nargs="+", default=(1, 6))
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    if missing():
        raise SystemExit(missing())
    rows = []
    cores = os.cpu_count() or 1
    for per_job in options.per_job:
        with slurm_cluster(cpus=cores, gpus=cores) as cluster:
            rows.append(measure(cluster, options.shards, per_job))
        print("{shards} shards, {shards_per_job} a job: {jobs} jobs, {seconds} s".format(**rows[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")
