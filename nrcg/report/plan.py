"""What a run costs before anything runs: the text of a Snakemake dry run, and a table of rates. Needs no torch."""

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import pandas as pd
from tabulate import tabulate

from nrcg.errors import NrcgError

COMMAND = "snakemake -n --cores 16 | nrcg plan --rates config/rates.tsv"
RATE_COLUMNS = ["rule", "dataset", "options", "images", "minutes", "disk_mb", "basis"]
PRICE_COLUMNS = ["rule", "dataset", "hours", "gpu_hours", "cpu_hours", "disk_mb", "temporary", "basis"]
BASES = ("estimate", "measured")
YOURS, UNKNOWN, NONE = "yours", "no rate", "no command"  # other answers to where a job's hours are from

NOTHING = "Nothing to be done (all requested files are present and up to date)"
STATS = re.compile(r"^Job stats:\njob +count\n-+ +-+\n((?:\w+ +\d+\n)+)", re.M)
# A job of a group (on a cluster) is indented, its command is not.
BLOCK = re.compile(r"^ *(?:local)?(?:rule|checkpoint) (\w+):\n((?: +\w+: .*\n)*)(?:Shell command: (.*))?", re.M)
FIELD = re.compile(r"^ +(\w+): (.*)$", re.M)
TEMPORARY = re.compile(r"^Would remove temporary output (.+)$", re.M)
SHARD = re.compile(r" --start (\d+) --stop (\d+) ")
GPU = re.compile(r"\bgpu=[1-9]|\bgres=gpu\b")  # of our rules, and on a cluster that wants it otherwise
ON_CPU = "--device cpu"
POINT = re.compile(r"(_([0-9.]+|none))+$")  # scale and shard at the end of a benchmark's name

Kind = tuple[str, str]  # data set, and a benchmark's name without scale and shard


@dataclass(frozen=True)
class Job:
    """A job of a dry run."""

    rule: str
    dataset: str  # "" where it is of none
    command: str  # "" of a target rule
    images: int  # that it makes, where its command has --start and --stop; else 0
    threads: int
    gpu: bool  # whether it holds one
    temporary: bool  # whether what it makes is deleted after use
    kind: Kind  # what its benchmark shares with those of like jobs

    def has(self, words: str) -> bool:
        """Whether these words are in its command, as they are."""
        return f" {words} " in f" {self.command} "


@dataclass(frozen=True)
class Rate:
    """A row of the table of rates; a blank `dataset` and no `options` fit any job of the rule."""

    rule: str
    dataset: str
    options: tuple[str, ...]  # each is in the command of a job that it fits
    images: int  # what `minutes` and `disk_mb` are for; 0 is a job, whatever it makes
    minutes: float
    disk_mb: float  # 10^6 bytes that a job leaves
    basis: str  # one of BASES

    def fits(self, job: Job) -> bool:
        return (
            self.rule == job.rule
            and self.dataset in ("", job.dataset)
            and (job.images > 0 or not self.images)
            and all(map(job.has, self.options))
            and (ON_CPU in self.options or not job.has(ON_CPU))  # a row that says nothing of it is of a GPU
        )

    def share(self, job: Job) -> float:
        """How many times the row's cost a job is."""
        return job.images / self.images if self.images else 1.0


def read_dry_run(text: str, origin: str) -> list[Job]:
    """The jobs of `snakemake -n`, none where nothing is left to do. `origin` names the text in errors.

    Raises NrcgError for a text that is no dry run, has no jobs (--quiet) or no commands, and for one whose jobs are not
    those of its own table, "Job stats".
    """
    stats = STATS.search(text)
    if not stats:
        if NOTHING in text:
            return []
        raise NrcgError(f"{origin}: not a dry run, or one with --quiet (no table “Job stats”); pipe one in: {COMMAND}")
    counts = {name: int(count) for name, count in (line.split() for line in stats[1].splitlines())}
    counts.pop("total", None)
    blocks = BLOCK.findall(text)
    if not blocks:
        raise NrcgError(f"{origin}: a dry run without its jobs; leave out --quiet: {COMMAND}")
    found = Counter(rule for rule, _, _ in blocks)
    for rule in {**counts, **found}:
        if found[rule] != counts.get(rule, 0):
            raise NrcgError(
                f"{origin}: {found[rule]} jobs of rule {rule}, but its table says {counts.get(rule, 0)}; "
                f"the text is not whole, make it again: {COMMAND}"
            )
    if not all(command for _, _, command in blocks):
        raise NrcgError(f"{origin}: a dry run without commands; add --printshellcmds to snakemake -n")
    temporary = set(TEMPORARY.findall(text))
    jobs = [_job(rule, dict(FIELD.findall(fields)), command, temporary) for rule, fields, command in blocks]
    return sorted(jobs, key=lambda job: list(counts).index(job.rule))


def _job(rule: str, fields: Mapping[str, str], command: str, temporary: set[str]) -> Job:
    wildcards = dict(pair.partition("=")[::2] for pair in fields.get("wildcards", "").split(", "))
    dataset = wildcards.get("dataset", "")
    shard = SHARD.search(command)
    return Job(
        rule=rule,
        dataset=dataset,
        command="" if command == "None" else command,
        images=int(shard[2]) - int(shard[1]) if shard else 0,
        threads=int(fields.get("threads", 1)),
        gpu=bool(GPU.search(fields.get("resources", ""))) and f" {ON_CPU} " not in command,
        temporary=not temporary.isdisjoint(fields.get("output", "").split(", ")),
        kind=(dataset, _kind_name(fields.get("benchmark", ""))),
    )


def _kind_name(benchmark: str | Path) -> str:
    return POINT.sub("", Path(benchmark).name.removesuffix(".tsv"))


def read_rates(path: str | Path) -> list[Rate]:
    """The table of rates (TSV, columns RATE_COLUMNS). Raises NrcgError naming the line that is wrong."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            columns = reader.fieldnames
            rows = [(row, reader.line_num) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise NrcgError(f"{path}: cannot be read ({error}); name the table of rates") from None
    if columns != RATE_COLUMNS:
        raise NrcgError(f"{path}: columns {columns}, expected {RATE_COLUMNS}")
    return [_rate(row, f"{path}, line {line}") for row, line in rows]


def _rate(row: Mapping[str, str], where: str) -> Rate:
    if None in row or None in row.values():
        raise NrcgError(f"{where}: not {len(RATE_COLUMNS)} columns; separate them by tabs")
    basis = row["basis"].partition(":")[0]
    if basis not in BASES:
        raise NrcgError(f"{where}: basis {row['basis']!r}; begin it with “estimate:” or “measured:”")
    options = tuple(filter(None, re.split(r"\s+(?=--)", row["options"].strip())))
    try:
        images, minutes, disk_mb = int(row["images"] or 0), float(row["minutes"]), float(row["disk_mb"] or 0)
    except ValueError as error:
        raise NrcgError(f"{where}: not a number ({error}); images, minutes and disk_mb are numbers") from None
    if not (images >= 0 and 0 <= minutes < float("inf") and 0 <= disk_mb < float("inf")):
        raise NrcgError(f"{where}: images, minutes and disk_mb must be 0 or more")
    return Rate(row["rule"], row["dataset"], options, images, minutes, disk_mb, basis)


def read_benchmarks(folders: Sequence[str | Path]) -> dict[Kind, list[float]]:
    """Seconds by kind from Snakemake's benchmark files: NAME.tsv and DATASET/NAME.tsv below each folder.

    Raises NrcgError for a folder without any, and for a file that is not one.
    """
    seconds: dict[Kind, list[float]] = {}
    for folder in map(Path, folders):
        files = sorted([*folder.glob("*.tsv"), *folder.glob("*/*.tsv")])
        if not files:
            raise NrcgError(f"{folder}: no benchmarks (TSV) in it; name the folder benchmarks of a run")
        for path in files:
            dataset = "" if path.parent == folder else path.parent.name
            try:
                with open(path, encoding="utf-8-sig") as file:
                    found = [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
                if not all(0 <= second < math.inf for second in found):
                    raise ValueError("seconds that are no number")
            except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
                raise NrcgError(f"{path}: not a benchmark of Snakemake ({error!r}); delete it") from None
            seconds.setdefault((dataset, _kind_name(path)), []).extend(found)
    return seconds


def price(jobs: Sequence[Job], rates: Sequence[Rate], measured: Mapping[Kind, Sequence[float]]) -> pd.DataFrame:
    """What each job costs, a row a job in their order.

    A job takes the mean of the seconds in `measured` of its own kind (rule, data set and setup, or classifier, …); else
    that of the kinds among `jobs` that have the same row of `rates` and data set, so that one guided point stands for
    all that see the same input; else the first row that fits it. Columns:

    rule, dataset
    hours                   NaN where nothing says them; 0 for a target rule, which runs nothing
    gpu_hours, cpu_hours    hours with a GPU held; hours times the threads held
    disk_mb                 10^6 bytes that it leaves; NaN where no row fits, 0 for a target rule
    temporary               whether they are deleted after use
    basis                   where the hours are from: BASES, YOURS, UNKNOWN or NONE
    """
    fitting = {job: next((rate for rate in rates if rate.fits(job)), None) for job in jobs}
    kinds = {(fitting[job], job.dataset): set() for job in jobs}
    for job in jobs:
        kinds[fitting[job], job.dataset].add(job.kind)
    rows = []
    for job in jobs:
        rate = fitting[job]
        like = sorted(kinds[rate, job.dataset]) if rate else []
        seconds = measured.get(job.kind) or [second for kind in like for second in measured.get(kind, [])]
        if not job.command:
            hours, disk, basis = 0.0, 0.0, NONE
        else:
            hours, disk, basis = math.nan, math.nan, UNKNOWN
            if rate:
                hours, disk, basis = rate.minutes * rate.share(job) / 60, rate.disk_mb * rate.share(job), rate.basis
            if seconds:
                hours, basis = sum(seconds) / len(seconds) / 3600, YOURS
        held = hours if job.gpu else 0.0, hours * job.threads
        rows.append((job.rule, job.dataset, hours, *held, disk, job.temporary, basis))
    return pd.DataFrame(rows, columns=PRICE_COLUMNS)


def summary(priced: pd.DataFrame, by: str | list[str]) -> pd.DataFrame:
    """The rows of `price` added up by columns, in order of appearance; NaN where nothing of a sum is known."""
    deleted = priced["temporary"].astype(bool)
    split = priced.assign(stays_mb=priced["disk_mb"].mask(deleted, 0), temporary_mb=priced["disk_mb"].where(deleted, 0))
    groups = split.groupby(by, sort=False)
    sums = groups[["gpu_hours", "cpu_hours", "stays_mb", "temporary_mb"]].sum(min_count=1)
    bases = groups["basis"].agg(lambda of: ", ".join(of.unique()))
    return pd.concat([groups.size().rename("jobs"), sums, bases], axis=1).reset_index()


def report(priced: pd.DataFrame, rates: str | Path) -> str:
    """The page that `nrcg plan` prints: costs by rule and by data set, disk, the largest items, what is unknown.

    priced  the table of `price`
    rates   where the table of rates is, for the reader
    """
    if priced.empty:
        return "Nothing is left to do: this dry run has no jobs.\n"
    by_rule = summary(priced, "rule")
    by_dataset = summary(priced.replace({"dataset": {"": "(none)"}}), "dataset").drop(columns="basis")
    total = by_rule.sum(numeric_only=True)
    without = priced["hours"].isna().sum()
    last = {"rule": "total", **total, "basis": f"without {without} jobs" if without else ""}
    tables = [_layout(pd.concat([by_rule, pd.DataFrame([last])])), _layout(by_dataset)]
    gpu = f"{_number(total.gpu_hours)} GPU hours are {_number(total.gpu_hours / 24)} days of one GPU. "
    paragraphs = [
        f"{gpu if total.gpu_hours else ''}CPU hours count the threads that each job holds, which depend on the"
        " dry run's --cores.",
        f"Disk: {_size(total.stays_mb)} stay, at most {_size(total.stays_mb + total.temporary_mb)} are there at a time,"
        " should nothing be deleted before all is made. What running jobs keep for themselves (checkpoints, unfinished"
        " shards) comes on top.",
        f"Longest jobs: {_largest(priced, 'hours', _time)}.",
        f"Largest on disk: {_largest(priced, 'disk_mb', _size)}.",
        f"Basis: “{YOURS}” are the benchmarks of --measured; the others are rows of {rates}, which says how each was"
        " found. Estimates were not measured and can be wrong by a factor.",
    ]
    for column, way_out in (("hours", " or give --measured"), ("disk_mb", "")):
        unknown = priced["rule"][priced[column].isna()].value_counts(sort=False)
        if len(unknown):
            named = ", ".join(f"{rule} ({count})" for rule, count in unknown.items())
            what = column.removesuffix("_mb")
            paragraphs.append(f"UNKNOWN, not in the sums: {what} of {named}. Add rows that fit to {rates}{way_out}.")
    wrapped = [fill(text, 100, break_on_hyphens=False, break_long_words=False) for text in paragraphs]
    return "\n\n".join([*tables, *wrapped]) + "\n"


def _largest(priced: pd.DataFrame, column: str, words: Callable[[float], str]) -> str:
    """The five largest values in words, one of each rule and data set."""
    rows = priced[priced[column] > 0].sort_values(column, ascending=False, kind="stable")
    rows = rows.drop_duplicates(["rule", "dataset"]).head(5)
    named = zip(rows["rule"], rows["dataset"], rows[column].map(words), strict=True)
    return ", ".join(f"{rule}{dataset and f' of {dataset}'} {text}" for rule, dataset, text in named) or "unknown"


def _time(hours: float) -> str:
    return f"{_number(hours)} h" if hours >= 1 else f"{_number(60 * hours)} min"


def _size(megabytes: float) -> str:
    return f"{_number(megabytes / 1000)} GB" if megabytes >= 1000 else f"{_number(megabytes)} MB"


def _layout(table: pd.DataFrame) -> str:
    """A plain table with the numbers to the right; disk in GB."""
    table = table.assign(stays_mb=table["stays_mb"] / 1000, temporary_mb=table["temporary_mb"] / 1000)
    table["jobs"] = table["jobs"].map("{:.0f}".format)
    for column in ("gpu_hours", "cpu_hours", "stays_mb", "temporary_mb"):
        table[column] = table[column].map(_number)
    names = {"gpu_hours": "GPU hours", "cpu_hours": "CPU hours", "stays_mb": "GB stay", "temporary_mb": "GB deleted"}
    table = table.rename(columns=names)
    alignment = ["left" if name in ("rule", "dataset", "basis") else "right" for name in table.columns]
    return tabulate(table, headers="keys", showindex=False, disable_numparse=True, colalign=alignment)


def _number(value: float) -> str:
    """Two or three digits; a dash for nothing, a question mark for what is unknown."""
    if math.isnan(value):
        return "?"
    if value < 0.005:
        return "<0.01" if value else "–"
    return f"{value:.{2 if value < 1 else 1 if value < 100 else 0}f}"
