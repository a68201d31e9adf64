"""The curves, points and samples against which the claims of `findings` are checked, and how a claim is made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from nrcg.checks import number
from nrcg.errors import NrcgError
from nrcg.io.files import read_json
from nrcg.io.shards import Shard
from nrcg.io.tables import read_points
from nrcg.plots.best import criterion
from nrcg.plots.forward_table import RELATIVE, curve, left_out, read_forward
from nrcg.plots.style import File, Setup, classifier_label, known_setups, metric_label, read_setups

FIGURES = {1: "accuracy", 2: "logit_sensitivity", 3: "gradient_sensitivity", 4: "gradient_sensitivity"}
ROLES = {  # what a claim needs a setup for: its name where a run has none
    "robust": "robust",
    "nonrobust": "non-robust",
    "x0": "non-robust + x̂₀",
    "adam": "non-robust + x̂₀ + ADAM",
    "ema_low": "non-robust + x̂₀ + EMA of a smaller β",
    "ema": "non-robust + x̂₀ + EMA",
    "log_prob": "non-robust + x̂₀ + EMA (log p)",
}
AWAY = 0.4  # image widths from the ball's centre at which the background begins
CHUNK = 256  # samples in memory at a time


class Absent(Exception):
    """What a claim needs and the files do not hold, in words."""


class Claim(NamedTuple):
    """A sentence of the paper, when it counts as seen, and the check: measured numbers in words, and whether."""

    text: str  # {ROLE} stands for the label of the setup in that role
    threshold: str
    check: Callable[["Evidence"], tuple[str, bool]]


CLAIMS: list[Claim] = []  # in the order of the page


def claim(text: str, threshold: str) -> Callable[[Callable], Callable]:
    """Decorator that files a check as the next claim."""

    def file(check: Callable) -> Callable:
        CLAIMS.append(Claim(text, threshold, check))
        return check

    return file


class Curve(NamedTuple):
    """A setup in a figure of the forward process, indexed by t."""

    mean: pd.Series
    relative: pd.Series  # sensitivity; empty where not measured
    left_out: pd.Series  # why gradients mean nothing at a t, or an empty string


@dataclass(frozen=True)
class Evidence:
    """What the files hold, by the roles of the setups; every method raises Absent for what they do not."""

    curves: dict[tuple[int, str], Curve]  # by figure and role
    points: pd.DataFrame  # as read by `read_points`
    shards: Sequence[File]  # unguided samples
    setups: dict[str, Setup]
    roles: Mapping[str, str]
    valid_accuracy: dict[str, float]  # by a classifier's name, on clean images
    target: str
    n_classes: int
    dataset: str

    def setup(self, role: str) -> Setup:
        if role not in self.roles:
            raise Absent(f"no setup is named as {role} ({ROLES[role]})")
        return self.setups[self.roles[role]]

    def label(self, role: str) -> str:
        return self.setup(role).label if role in self.roles else ROLES[role]

    def forward(self, figure: int, *roles: str) -> pd.DataFrame:
        """The setups' curves, a column for each role, at the t where all have a number, upwards."""
        for role in roles:
            if (figure, self.setup(role).name) not in self.curves:
                raise Absent(f"no curve of {self.label(role)} for figure {figure}")
        frame = pd.concat({role: self.curve(figure, role).mean for role in roles}, axis=1).dropna().sort_index()
        if frame.empty:
            raise Absent(f"no t that the curves of figure {figure} share")
        return frame

    def curve(self, figure: int, role: str) -> Curve:
        return self.curves[figure, self.setup(role).name]

    def steps(self, figure: int) -> float:
        """T, the largest t of the figure, whichever curve reaches it; infinite where it has none."""
        return max((c.mean.index.max() for (number, _), c in self.curves.items() if number == figure), default=np.inf)

    @cached_property
    def guided(self) -> pd.DataFrame:
        """A row for each setup and scale upwards, a column for each metric, n and n_diverged."""
        rows = self.points[self.points["scale"].notna()]
        values = rows.pivot(index=["setup", "scale"], columns="metric", values="value")
        return values.join(rows.groupby(["setup", "scale"])[["n", "n_diverged"]].max()).sort_index()

    def scales(self, of: str | Setup, *metrics: str) -> pd.DataFrame:
        """Metrics, n and n_diverged of a role's or setup's points that have all of them, indexed by scale upwards."""
        setup = self.setup(of) if isinstance(of, str) else of
        table = self.guided[self.guided.index.get_level_values("setup") == setup.name].droplevel("setup")
        table = table.reindex(columns=[*metrics, "n", "n_diverged"]).dropna()
        if table.empty:
            raise Absent(f"no {' with '.join(map(metric_label, metrics))} of {setup.label}")
        return table

    def unguided(self, metric: str) -> float:
        values = self.points[(self.points["metric"] == metric) & self.points["scale"].isna()]["value"].dropna()
        if values.empty:
            raise Absent(f"no {metric_label(metric)} of unguided samples")
        return float(values.iloc[0])

    def unguided_by(self, role: str) -> float:
        """The unguided samples' share by the role's classifier: their accuracy if it scores them, else accuracy/NAME."""
        name = self.setup(role).classifier
        unguided = self.points["setup"][self.points["scale"].isna()].unique()
        theirs = name in {self.setups[setup].classifier for setup in unguided}
        return self.unguided("accuracy" if theirs else f"accuracy/{name}")

    def clean(self, role: str) -> str:
        """How good the role's classifier is on clean images, in words."""
        name = self.setup(role).classifier
        if name not in self.valid_accuracy:
            return f"the card of the {classifier_label(name)} classifier holds no accuracy on clean images"
        accuracy = percent(self.valid_accuracy[name])
        return f"the {classifier_label(name)} classifier is right on {accuracy} of clean validation images"

    def criterion(self) -> str:
        """The distance to the target class by which a scale is best."""
        if (metric := criterion(self.points)) is None:
            raise Absent("no distance to the target class of guided samples")
        return metric

    def only_for(self, dataset: str) -> None:
        if self.dataset != dataset:
            raise Absent(f"a claim about {dataset}, not {self.dataset}")

    def judge(self, claim: Claim) -> dict[str, str]:
        """A row of the page: claim, measured, threshold, and the verdict seen, not seen or not measured."""
        try:
            measured, holds = claim.check(self)
            verdict = "seen" if holds else "not seen"
        except Absent as absent:
            measured, verdict = str(absent), "not measured"
        text = claim.text.format_map({role: self.label(role) for role in ROLES})
        return {"claim": text, "measured": measured, "threshold": claim.threshold, "verdict": verdict}


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def read_evidence(
    figures: Mapping[str, File], scores: File, shards: Sequence[File], setups: File, roles: Mapping[str, str],
    classifiers: Mapping[str, File], target: str, classes: int, dataset: str,
) -> Evidence:  # fmt: skip
    """Read the files of `write_findings`; raises NrcgError naming a file and column that does not fit."""
    known, curves = read_setups(setups), {}
    for role, name in roles.items():
        if role not in ROLES:
            raise NrcgError(f"roles: unknown key {role}; use {', '.join(ROLES)}")
        known_setups(known, [name], f"roles: {role}", setups)
    for figure, path in figures.items():
        expected = FIGURES.get(int(figure)) if str(figure).isdecimal() else None
        if expected is None:
            raise NrcgError(f"figure {figure} ({path}): claims are about figures {', '.join(map(str, FIGURES))}")
        table, metric = read_forward(path)
        if metric != expected:
            raise NrcgError(f"{path}: column 'metric' must hold {expected!r}, not {metric!r}, for figure {figure}")
        for setup in known_setups(known, list(table["setup"].unique()), path, setups):
            means = (curve(table, setup.name, name)["mean"] for name in (metric, RELATIVE))
            curves[int(figure), setup.name] = Curve(*means, left_out(table, setup.name))
    points = read_points(scores, dataset)
    known_setups(known, list(points["setup"].unique()), scores, setups)
    accuracies = {name: _valid_accuracy(path) for name, path in classifiers.items()}
    accuracies = {name: accuracy for name, accuracy in accuracies.items() if accuracy is not None}
    return Evidence(curves, points, shards, known, roles, accuracies, target, classes, dataset)


def _valid_accuracy(card: File) -> float | None:
    """Of a classifier's card; one that was imported may not know it."""
    value = read_json(card).get("valid_accuracy")
    if value is not None and not number(0, 1).holds(value):
        raise NrcgError(f"{card}: valid_accuracy {value!r} is no share from 0 to 1; make the classifier again")
    return value


def mean_background(shards: Sequence[File]) -> tuple[float, float, int]:
    """Brightness on [0, 1] away from the ball: the mean over samples, the darkest sample's, and their number.

    The background is every pixel farther than AWAY image widths from the centre of darkness, the mean position
    weighted by 1 − brightness; brightness is the mean of R, G and B. `shards` must not be empty.
    """
    images = [Shard.open(path).images for path in shards]
    chunks = [part[i : i + CHUNK] for part in images for i in range(0, len(part), CHUNK)]
    values = np.concatenate([_background(np.asarray(chunk).mean(axis=3) / 255) for chunk in chunks])
    return float(values.mean()), float(values.min()), len(values)


def _background(brightness: np.ndarray) -> np.ndarray:
    """One value for each image of n×H×W."""
    darkness = 1 - brightness + 1e-9  # the centre of an all-white image is its middle
    rows, columns = np.arange(brightness.shape[1]), np.arange(brightness.shape[2])
    total = darkness.sum(axis=(1, 2))
    y, x = darkness.sum(axis=2) @ rows / total, darkness.sum(axis=1) @ columns / total
    squared = ((rows - y[:, None]) ** 2)[:, :, None] + ((columns - x[:, None]) ** 2)[:, None, :]
    away = squared > (AWAY * brightness.shape[2]) ** 2
    return (brightness * away).sum(axis=(1, 2)) / away.sum(axis=(1, 2))
