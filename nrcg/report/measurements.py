"""The curves, points and samples against which the claims of `findings` are checked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.io.files import read_json
from nrcg.io.shards import Shard
from nrcg.io.tables import read_points
from nrcg.plots.forward_table import RELATIVE, curve, left_out, read_forward
from nrcg.plots.style import Setup, classifier_label, known_setups, metric_label, read_setups, styled

FIGURES = {1: "accuracy", 2: "logit_sensitivity", 3: "gradient_sensitivity", 4: "gradient_sensitivity"}
UNGUIDED_BY = "nonrobust"  # the classifier of the unguided samples' plain accuracy
AWAY = 0.4  # image widths from the ball's centre at which the background begins
VERDICTS = ("seen", "not seen", "not measured")
CHUNK = 256  # samples in memory at a time


@dataclass(frozen=True)
class Finding:
    """A row of the page; `verdict` is "seen", "not seen" or "not measured"."""

    claim: str
    measured: str
    threshold: str
    verdict: str


class Absent(Exception):
    """What a claim needs and the files do not hold, in words."""


@dataclass(frozen=True)
class Evidence:
    """What the files hold; every method raises Absent for what they do not."""

    curves: dict[tuple[int, str], pd.Series]  # (figure, setup) → mean, indexed by t
    points: pd.DataFrame  # as read by `read_points`
    shards: Sequence[Path]  # unguided samples
    setups: dict[str, Setup]
    valid_accuracy: dict[str, float]  # by a classifier's role, on clean images
    target: str
    n_classes: int
    dataset: str
    relative: dict[tuple[int, str], pd.Series]  # as `curves`, of the relative sensitivity; empty where not measured
    left_out: dict[tuple[int, str], pd.Series]  # why gradients mean nothing at a t, or an empty string

    def forward(self, figure: int, *setups: str) -> pd.DataFrame:
        """The setups' curves, a column each, at the t where all have a number, upwards."""
        for setup in setups:
            if (figure, setup) not in self.curves:
                raise Absent(f"no curve of {self.label(setup)} for figure {figure}")
        frame = pd.concat({name: self.curves[figure, name] for name in setups}, axis=1).dropna().sort_index()
        if frame.empty:
            raise Absent(f"no t that the curves of figure {figure} share")
        return frame

    def steps(self, figure: int) -> int:
        """T, the largest t of the figure, whichever curve reaches it."""
        return max(curve.index.max() for (number, _), curve in self.curves.items() if number == figure)

    @cached_property
    def guided(self) -> pd.DataFrame:
        """A row for each setup and scale upwards, a column for each metric, n and n_diverged."""
        rows = self.points[self.points["scale"].notna()]
        values = rows.pivot(index=["setup", "scale"], columns="metric", values="value")
        return values.join(rows.groupby(["setup", "scale"])[["n", "n_diverged"]].max()).sort_index()

    def scales(self, setup: str, *metrics: str) -> pd.DataFrame:
        """Metrics, n and n_diverged of the setup's points that have all of them, indexed by scale upwards."""
        table = self.guided[self.guided.index.get_level_values("setup") == setup].droplevel("setup")
        table = table.reindex(columns=[*metrics, "n", "n_diverged"]).dropna()
        if table.empty:
            raise Absent(f"no {' with '.join(map(metric_label, metrics))} of {self.label(setup)}")
        return table

    def unguided(self, metric: str) -> float:
        values = self.points[(self.points["metric"] == metric) & self.points["scale"].isna()]["value"].dropna()
        if values.empty:
            raise Absent(f"no {metric_label(metric)} of unguided samples")
        return float(values.iloc[0])

    def unguided_by(self, setup: str) -> float:
        """The unguided samples' share by the classifier that guides `setup`: accuracy/NAME, or the plain accuracy."""
        name = self.setups[setup].classifier
        return self.unguided("accuracy" if name == UNGUIDED_BY else f"accuracy/{name}")

    def clean(self, setup: str) -> str:
        """How good the classifier that guides `setup` is on clean images, in words."""
        name = self.setups[setup].classifier
        if name not in self.valid_accuracy:
            return f"the card of the {classifier_label(name)} classifier holds no accuracy on clean images"
        accuracy = percent(self.valid_accuracy[name])
        return f"the {classifier_label(name)} classifier is right on {accuracy} of clean validation images"

    def criterion(self) -> str:
        """The distance to the target class by which a scale is best: cFID where measured, else the judge's."""
        for metric in ("cfid", "cfd_judge"):
            if metric in self.guided and self.guided[metric].notna().any():
                return metric
        raise Absent("no distance to the target class of guided samples")

    def label(self, setup: str) -> str:
        return self.setups[setup].label if setup in self.setups else setup

    def only_for(self, dataset: str) -> None:
        if self.dataset != dataset:
            raise Absent(f"a claim about {dataset}, not {self.dataset}")


Check = Callable[[Evidence], tuple[str, bool]]


def claim(text: str, threshold: str) -> Callable[[Check], Callable[[Evidence], Finding]]:
    """Make a Finding of a check that returns the measured numbers in words and whether they meet the threshold."""

    def register(check: Check) -> Callable[[Evidence], Finding]:
        @wraps(check)
        def finding(evidence: Evidence) -> Finding:
            try:
                measured, holds = check(evidence)
            except Absent as absent:
                return Finding(text, str(absent), threshold, "not measured")
            return Finding(text, measured, threshold, "seen" if holds else "not seen")

        return finding

    return register


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def read_evidence(
    figures: Mapping[int, str | Path],
    scores: str | Path,
    shards: Sequence[str | Path],
    *,
    setups_tsv: str | Path,
    classifiers: Mapping[str, str | Path],
    target_name: str,
    n_classes: int,
    dataset: str,
) -> Evidence:
    """Read the files of `write_findings`; raises NrcgError naming a file and column that does not fit."""
    with styled(None):
        setups = read_setups(setups_tsv)
    curves, relative, out = {}, {}, {}
    for figure, path in figures.items():
        if figure not in FIGURES:
            raise NrcgError(f"figure {figure} ({path}): claims are about figures {', '.join(map(str, FIGURES))}")
        table, metric = read_forward(path)
        if metric != FIGURES[figure]:
            raise NrcgError(
                f"{path}: column 'metric' must hold {FIGURES[figure]!r}, not {metric!r}, for figure {figure}"
            )
        for setup in known_setups(setups, list(table["setup"].unique()), path, setups_tsv):
            curves[figure, setup] = curve(table, setup, metric)["mean"]
            relative[figure, setup] = curve(table, setup, RELATIVE)["mean"]
            out[figure, setup] = left_out(table, setup)
    points = read_points(scores, dataset)
    known_setups(setups, list(points["setup"].unique()), scores, setups_tsv)
    clean = {role: _valid_accuracy(path) for role, path in classifiers.items()}
    clean = {role: accuracy for role, accuracy in clean.items() if accuracy is not None}
    paths = [Path(path) for path in shards]
    return Evidence(curves, points, paths, setups, clean, target_name, n_classes, dataset, relative, out)


def _valid_accuracy(card: str | Path) -> float | None:
    """Of a classifier's card; one that was imported may not know it."""
    value = read_json(card).get("valid_accuracy")
    if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
        raise NrcgError(f"{card}: valid_accuracy {value!r} is no share from 0 to 1; make the classifier again")
    return value


def mean_background(shards: Sequence[Path]) -> tuple[float, float, int]:
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
