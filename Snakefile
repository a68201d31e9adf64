# The front door: config, rules, targets. `snakemake --cores 2 figure8` builds that figure and what it needs.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")

PROJECT = Path(workflow.current_basedir.get_path_or_uri(secret_free=False))


configfile: PROJECT / "config/config.yaml"


if Path("config/config.yaml").is_file() and not Path("config").samefile(PROJECT / "config"):  # of a user's folder

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


# Slurm sends SIGTERM to each process of a job that it wants back, and kills what is left once Snakemake has ended. So the
# bash of a rule stays until its verb has kept what is done.
shell.prefix("set -euo pipefail; trap : TERM; ")


include: "workflow/rules/common.smk"
include: "workflow/rules/sources.smk"
include: "workflow/rules/jobs.smk"
include: "workflow/rules/pictures.smk"
include: "workflow/rules/checks.smk"
include: "workflow/rules/downloads.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/forward.smk"
include: "workflow/rules/sampling.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/figures.smk"


rule all:
    default_target: True
    input:
        [file for files in TARGETS.values() for file in files],
