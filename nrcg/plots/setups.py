"""The setups as figures and tables show them, and the names of classifiers and metrics."""

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
CHEAPER = {"jacobian": False, "every": None, "interval": None}  # what makes guidance cheaper; None: any value


KINDS = {  # metrics of features, as readers know them; others by their own names
    "fd": "FD",
    "fd_infinity": "FD∞",
    "kid": "KID",
    "off_manifold": "off-manifold",
}


def parsed(metric: str) -> tuple[str, bool, str] | None:
    """A metric of features as (its name, whether to the target class, extractor); None for any other metric."""
    if found := re.fullmatch("(c?)fid(_infinity)?", metric):
        return f"fd{found[2] or ''}", bool(found[1]), "Inception"
    known = "|".join(map(re.escape, sorted([*metrics, *KINDS], key=len, reverse=True)))
    found = re.fullmatch(f"(c?)({known})_(.+)", metric)
    return found and (found[2], bool(found[1]), {"inception": "Inception"}.get(found[3], found[3]))


def extractor_of(metric: str) -> str:
    """Whose features a metric is of; empty for a metric of none."""
    found = parsed(metric)
    return found[2] if found else ""


def metric_label(metric: str) -> str:
    """A metric's name for readers; "FID" and "cFID" are the Fréchet distances of Inception alone."""
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
    """Whether the metric is a share of samples or of images, 0…1, rather than a distance."""
    found = parsed(metric)
    return metric.startswith(("accuracy", "judge_share/")) or bool(found and found[0] in SHARES)


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
