"""Setups, classifiers and metrics in figures and tables: labels and styles."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from nrcg.checks import NAME, Rule, check
from nrcg.errors import NrcgError
from nrcg.evaluation.metrics import SHARES, metrics
from nrcg.io.yaml_files import read_yaml
from nrcg.plots.style import MARKERS, File, cycle_colors

OBJECT = Rule("an object", lambda value: isinstance(value, dict))
ROW = {"label": NAME, "classifier": NAME, "guidance": OBJECT, "sampling": OBJECT}
CHEAPER = {"jacobian": False, "every": None, "interval": None}  # keys of cheaper guidance; None: any value


KINDS = {  # usual names of metrics of features; others keep theirs
    "fd": "FD",
    "fd_infinity": "FD∞",
    "kid": "KID",
    "off_manifold": "off-manifold",
}


def parsed(metric: str) -> tuple[str, bool, str] | None:
    """A metric of features as (name, whether to the target class, extractor); None for other metrics."""
    if found := re.fullmatch("(c?)fid(_infinity)?", metric):
        return f"fd{found[2] or ''}", bool(found[1]), "Inception"
    known = "|".join(map(re.escape, sorted([*metrics, *KINDS], key=len, reverse=True)))
    found = re.fullmatch(f"(c?)({known})_(.+)", metric)
    return found and (found[2], bool(found[1]), {"inception": "Inception"}.get(found[3], found[3]))


def extractor_of(metric: str) -> str:
    """The extractor of a metric's features; empty for other metrics."""
    found = parsed(metric)
    return found[2] if found else ""


def metric_label(metric: str) -> str:
    """A metric's name for readers; only Inception's Fréchet distances are named FID and cFID."""
    kind, _, name = metric.partition("/")
    if kind == "judge_share":
        return f"share of {name} (judge)"
    if kind == "accuracy":
        return f"accuracy ({classifier_label(name) if name else 'guiding'} classifier)"
    if metric.endswith(("fid", "fid_infinity")):
        return metric.replace("fid", "FID").replace("_infinity", "∞")
    if found := parsed(metric):
        return f"{KINDS.get(found[0], found[0])}{' to target class' if found[1] else ''} ({found[2]})"
    return {"accuracy_judge": "accuracy (judge)", "unet_evaluations": "U-Net evaluations"}.get(metric, metric)


def classifier_label(name: str) -> str:
    return {"nonrobust": "non-robust"}.get(name, name)


def is_share(metric: str) -> bool:
    """Whether the metric is a share (0…1) of samples or images, not a distance."""
    found = parsed(metric)
    return metric.startswith(("accuracy", "judge_share/")) or bool(found and found[0] in SHARES)


@dataclass(frozen=True)
class Setup:
    """One setup with its style."""

    name: str
    label: str  # plain Unicode; `mathtext` makes it drawable
    classifier: str  # the guiding classifier; for unguided samples, the one that scores them
    guided: bool
    stabilizer: Any  # section of `guidance`, or None
    color: str
    marker: str
    linestyle: str


def read_setups(path: File) -> dict[str, Setup]:
    """Setups by name in row order, which determines colour and marker; call inside `styled` for its colours."""
    rows = read_yaml(path)
    if not isinstance(rows, dict) or not all(isinstance(name, str) for name in rows):
        raise NrcgError(f"{path}: write one row per setup: name: {{label: TEXT, classifier: NAME}}")
    setups, looks = {}, zip(cycle(cycle_colors()), cycle(MARKERS))
    for name, row in rows.items():
        check(f"{path}: {name}", row, ROW)
        if lacking := [key for key in ("label", "classifier") if key not in row]:
            raise NrcgError(f"{path}: {name}: no key {lacking[0]}; add it")
        guidance, look = row.get("guidance"), ("black", "", "--")
        if guidance is not None:
            cheaper = any(key in guidance and value in (None, guidance[key]) for key, value in CHEAPER.items())
            line = ":" if cheaper else "-." if "objective" in guidance else "-"
            look = (*next(looks), line)
        stabilizer = (guidance or {}).get("stabilizer")
        setups[name] = Setup(name, row["label"], row["classifier"], guidance is not None, stabilizer, *look)
    return setups


def known_setups(setups: dict[str, Setup], present: Iterable[str], csv: File, path: File) -> list[Setup]:
    """The setups in `present`, in the order of `setups` (read from `path`), which must contain them."""
    present = set(present)
    if unknown := sorted(present - set(setups)):
        raise NrcgError(f"{csv}: column 'setup' holds {unknown[0]!r}, which is not in {path}")
    return [setup for name, setup in setups.items() if name in present]
