"""The setups as figures and tables show them, the best of them, and the names of classifiers and metrics."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import pandas as pd

from nrcg.checks import NAME, Rule, check
from nrcg.errors import NrcgError
from nrcg.io.yaml_files import read_yaml
from nrcg.plots.style import MARKERS, File, cycle_colors

ROW = {"label": NAME, "classifier": NAME, "guidance": Rule("an object", lambda value: isinstance(value, dict))}
CHEAPER = {"jacobian": False, "every": None, "interval": None}  # what makes guidance cheaper; None: any value


def extractor_of(metric: str) -> str:
    """Whose features a distance is of: `Inception`, or NAME of fd_NAME and cfd_NAME; empty for another metric."""
    name = re.fullmatch(r"c?fd_(.+)", metric)
    return name[1] if name else "Inception" if metric in ("fid", "cfid") else ""


def metric_label(metric: str) -> str:
    """A metric's name for readers; "FID" and "cFID" are the Inception ones alone."""
    kind, _, name = metric.partition("/")
    if kind == "judge_share":
        return f"share of {name} (judge)"
    if kind == "accuracy":
        return f"accuracy ({classifier_label(name) if name else 'guiding'} classifier)"
    if metric.startswith(("fd_", "cfd_")):
        return f"{'FD to target class' if metric.startswith('c') else 'FD'} ({extractor_of(metric)})"
    return {"accuracy_judge": "accuracy (judge)", "fid": "FID", "cfid": "cFID"}.get(metric, metric)


def classifier_label(name: str) -> str:
    return {"nonrobust": "non-robust"}.get(name, name)


def is_share(metric: str) -> bool:
    """Whether the metric is a share of samples, 0…1, rather than a distance."""
    return metric.startswith(("accuracy", "judge_share/"))


@dataclass(frozen=True)
class Setup:
    """One row of the setups as it is drawn."""

    name: str
    label: str  # plain Unicode; `mathtext` makes it drawable
    classifier: str  # that guides; of an unguided row the one that scores it
    guided: bool
    stabilizer: Any  # the section of `guidance`, None without one
    color: str
    marker: str
    linestyle: str


def read_setups(path: File) -> dict[str, Setup]:
    """Setups by name in the order of their rows, which fixes colour and marker; inside `styled` with its colours."""
    rows = read_yaml(path)
    if not isinstance(rows, dict) or not all(isinstance(name, str) for name in rows):
        raise NrcgError(f"{path}: write a row for each setup, as name: {{label: TEXT, classifier: NAME}}")
    setups, looks = {}, zip(cycle(cycle_colors()), cycle(MARKERS))
    for name, row in rows.items():
        check(f"{path}: {name}", row, ROW)
        if lacking := [key for key in ("label", "classifier") if key not in row]:
            raise NrcgError(f"{path}: {name}: no key {lacking[0]}; give one")
        guidance, look = row.get("guidance"), ("black", "", "--")
        if guidance is not None:
            cheaper = any(key in guidance and value in (None, guidance[key]) for key, value in CHEAPER.items())
            line = ":" if cheaper else "-." if "objective" in guidance else "-"
            look = (*next(looks), line)
        stabilizer = (guidance or {}).get("stabilizer")
        setups[name] = Setup(name, row["label"], row["classifier"], guidance is not None, stabilizer, *look)
    return setups


def known_setups(setups: dict[str, Setup], present: Iterable[str], csv: File, path: File) -> list[Setup]:
    """Those of `present` in the order of the setups (read from `path`), which must list them."""
    present = set(present)
    if unknown := sorted(present - set(setups)):
        raise NrcgError(f"{csv}: column 'setup' holds {unknown[0]!r}, which {path} does not list")
    return [setup for name, setup in setups.items() if name in present]


def criterion(points: pd.DataFrame) -> str | None:
    """The distance to the target class that decides: cfid where a guided point has it, else the first cfd_NAME."""
    measured = points[points["scale"].notna() & points["value"].notna()]["metric"].unique()
    return next((name for name in ("cfid", *measured) if name in measured and name.startswith(("cfid", "cfd_"))), None)


def best_setup(points: pd.DataFrame, where: str) -> tuple[str, float]:
    """The guided (setup, scale) of the least distance to the target class; the earlier row wins a tie."""
    metric = criterion(points)
    if metric is None:
        raise NrcgError(
            f"{where}: no guided point has a value for cfid or cfd_NAME in column 'metric'; score one first"
        )
    rows = points[(points["metric"] == metric) & points["scale"].notna() & points["value"].notna()]
    row = rows.iloc[rows["value"].argmin()]
    return str(row["setup"]), float(row["scale"])
