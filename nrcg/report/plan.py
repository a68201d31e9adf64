"""Estimated cost of a run: the jobs of a Snakemake dry run times a table of rates. Does not need torch."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from nrcg.errors import NrcgError
from nrcg.io.tables import read_table
from nrcg.report import WORDS

COMMAND = "snakemake -n --cores 16 | nrcg plan --rates config/rates.tsv"
STATS = re.compile(r"^Job stats:\njob +count\n-+ +-+\n((?:\w+ +\d+\n)+)", re.M)
# A job in a group (on a cluster) is indented, its command is not.
BLOCK = re.compile(r"^ *(?:local)?(?:rule|checkpoint) (\w+):\n((?: +\w+: .*\n)*)(?:Shell command: (.*))?", re.M)
GPU = re.compile(r"\bgpu=[1-9]|\bgres=gpu\b")  # of our rules, or of a cluster profile
ON_CPU = " --device cpu "
MARKS = str.maketrans({**dict.fromkeys("\"'"), **dict.fromkeys("{}[],", " ")})  # JSON {"on": "x0", …} → on: x0 …


def read_dry_run(text: str, origin: str) -> pd.DataFrame:
    """The jobs of `snakemake -n`, one per row, empty if nothing is to be done. `origin` names the text in errors.

    Columns: rule; dataset or ""; command without MARKS, "" for a target rule; images made; threads; gpu, whether used.
    """
    stats, blocks, jobs = STATS.search(text), BLOCK.findall(text), []
    if not stats and "Nothing to be done (all requested files are present and up to date)" in text:
        return pd.DataFrame()
    if not (stats and blocks):
        raise NrcgError(f"{origin}: not a dry run, or one with --quiet (no jobs); pipe one in: {COMMAND}")
    told = {name: int(count) for name, count in (line.split() for line in stats[1].splitlines()) if name != "total"}
    if wrong := Counter(rule for rule, _, _ in blocks).items() ^ told.items():
        raise NrcgError(f"{origin}: jobs of {min(wrong)[0]} do not match the job stats; make it again: {COMMAND}")
    if not all(command for _, _, command in blocks):
        raise NrcgError(f"{origin}: a dry run without commands; add --printshellcmds to snakemake -n")
    for rule, lines, command in blocks:
        fields = dict(re.findall(r"^ +(\w+): (.*)$", lines, re.M))
        wildcards = dict(pair.partition("=")[::2] for pair in fields.get("wildcards", "").split(", "))
        command = "" if command == "None" else f" {' '.join(command.translate(MARKS).split())} "
        images = sum(int(stop) - int(start) for start, stop in re.findall(r" --start (\d+) --stop (\d+) ", command))
        gpu = bool(GPU.search(fields.get("resources", ""))) and ON_CPU not in command
        jobs.append((rule, wildcards.get("dataset", ""), command, images, int(fields.get("threads", 1)), gpu))
    jobs.sort(key=lambda job: list(told).index(job[0]))
    return pd.DataFrame(jobs, columns=["rule", "dataset", "command", "images", "threads", "gpu"])


def together(dry_runs: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The jobs of dry runs of one plan, such as two steps of one run; what both list is made once."""
    return pd.concat(dry_runs).drop_duplicates() if len(dry_runs) > 1 else dry_runs[0]


def price(jobs: pd.DataFrame, rates: str | Path) -> pd.DataFrame:
    """Jobs, hours and disk by rule and data set, from the first matching row of the rates (config/README.md)."""
    table = read_table(rates, text=("rule", "dataset", "options", "basis"), numbers=("images", "minutes", "disk_mb"))
    table = table.fillna({"images": 0, "disk_mb": 0})
    if not table[["images", "minutes", "disk_mb"]].apply(lambda column: column.between(0, 1e9)).all(axis=None):
        raise NrcgError(f"{rates}: images, minutes and disk_mb must be at least 0, and minutes must not be blank")
    costs = []
    for job in jobs.itertuples():
        hours, gb, unknown = 0.0, 0.0, int(job.command != "")  # a target rule runs nothing
        for rate in table[(table["rule"] == job.rule) & table["dataset"].isin(["", job.dataset])].itertuples():
            options = [f" {words.strip()} " for words in rate.options.split(";") if words.strip()]
            on_device = ON_CPU in options or ON_CPU not in job.command
            if on_device and (job.images or not rate.images) and all(words in job.command for words in options):
                share = job.images / rate.images if rate.images else 1
                hours, gb, unknown = rate.minutes * share / 60, rate.disk_mb * share / 1000, 0
                break
        costs.append((job.rule, job.dataset, 1, hours * job.gpu, hours * job.threads, gb, unknown))
    columns = ["rule", "dataset", "jobs", "GPU hours", "CPU hours", "GB", "unknown"]
    return pd.DataFrame(costs, columns=columns).groupby(columns[:2], sort=False).sum().reset_index()


def report(costs: pd.DataFrame, rates: str | Path) -> str:
    """The output of `nrcg plan`: the table of `price`, its sums, and jobs of unknown cost."""
    if costs.empty:
        return "Nothing to be done: this dry run has no jobs.\n"
    total = pd.DataFrame([{"rule": "total", "dataset": "", **costs.sum(numeric_only=True)}])
    table = pd.concat([costs, total]).astype({"jobs": int, "unknown": int})
    grid = tabulate(table, headers="keys", showindex=False, floatfmt=".2f")
    return WORDS["plan"].format(table=grid, rates=rates) + _unknown(costs, rates)


def beside(plans: Mapping[str, pd.DataFrame], by: str) -> pd.DataFrame:
    """GPU hours of plans, from their tables of `price`: a column per plan, a row per dataset or rule, and the total.

    Rows of less than half an hour in all plans are left out; the total includes them.
    """
    hours = {name: costs.groupby(by)["GPU hours"].sum() for name, costs in plans.items()}
    table = pd.DataFrame(hours).fillna(0.0)
    total = table.sum()
    table = table[(table >= 0.5).any(axis=1)]
    table.loc["total"] = total
    return table.rename_axis(by).reset_index()


def report_beside(plans: Mapping[str, pd.DataFrame], rates: str | Path) -> str:
    """The output of `nrcg plan` for several plans: the tables of `beside`, and jobs of unknown cost."""
    grids = [
        tabulate(beside(plans, by), headers="keys", showindex=False, floatfmt=".0f", tablefmt="pipe")
        for by in ("dataset", "rule")
    ]
    page = WORDS["plan_beside"].format(datasets=grids[0], rules=grids[1], rates=rates)
    return page + _unknown(pd.concat(plans.values()), rates)


def _unknown(costs: pd.DataFrame, rates: str | Path) -> str:
    """A line with the jobs of unknown cost, if any."""
    unknown = costs[costs["unknown"] > 0].groupby("rule", sort=False)["unknown"].sum()
    named = ", ".join(f"{rule} ({count})" for rule, count in unknown.items())
    return WORDS["plan_unknown"].format(named=named, rates=rates) if named else ""
