"""The curves, points and samples against which claims are checked."""

from types import SimpleNamespace

import pandas as pd

from nrcg.checks import NAME, check, maybe, number
from nrcg.errors import NrcgError
from nrcg.io.files import read_json
from nrcg.io.tables import read_points
from nrcg.plots.forward import curve, read_forward
from nrcg.plots.setups import Setup, classifier_label, criterion, known_setups, metric_label, read_setups
from nrcg.plots.style import File
from nrcg.report import WORDS

FIGURES = {"1": "accuracy", "2": "logit_sensitivity", "3": "gradient_sensitivity", "4": "gradient_sensitivity"}
ROLES, LIMITS = WORDS["roles"], SimpleNamespace(**WORDS["limits"])


class Absent(Exception):
    """What a claim needs and the files do not hold, in words."""


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


class Evidence:
    """What the files of `write_findings` hold, by the roles of the setups; methods raise Absent for what they lack."""

    def __init__(
        self, figures: dict[str, str], scores: File, setups: File, roles: dict[str, str], classifiers: dict[str, str],
        shards: list[str], target: str, classes: int, dataset: str,
    ) -> None:  # fmt: skip
        self.shards, self.target, self.classes, self.dataset = shards, target, classes, dataset
        self.setups, self.tables = read_setups(setups), {}
        check("roles", roles, dict.fromkeys(ROLES, NAME))
        self.roles = {k: known_setups(self.setups, [name], f"roles: {k}", setups)[0] for k, name in roles.items()}
        for figure, path in figures.items():
            if figure not in FIGURES:
                raise NrcgError(f"figure {figure} ({path}): claims are about figures {', '.join(FIGURES)}")
            self.tables[figure], metric = read_forward(path)
            if metric != (due := FIGURES[figure]):
                raise NrcgError(f"{path}: column 'metric' must hold {due!r}, not {metric!r}, for figure {figure}")
            known_setups(self.setups, self.tables[figure]["setup"], path, setups)
        self.points = read_points(scores, dataset)
        known_setups(self.setups, self.points["setup"], scores, setups)
        rows = self.points[self.points["scale"].notna()]
        values = rows.pivot(index=["setup", "scale"], columns="metric", values="value")
        self.guided = values.join(rows.groupby(["setup", "scale"])[["n", "n_diverged"]].max()).sort_index()
        self.accuracies = {name: read_json(path).get("valid_accuracy") for name, path in classifiers.items()}
        for name, accuracy in self.accuracies.items():
            check(str(classifiers[name]), {"valid_accuracy": accuracy}, {"valid_accuracy": maybe(number(0, 1))})

    def setup(self, role: str) -> Setup:
        if role not in self.roles:
            raise Absent(f"this run names no setup as {role} ({ROLES[role]})")
        return self.roles[role]

    def label(self, role: str) -> str:
        return self.roles[role].label if role in self.roles else ROLES[role]

    def forward(self, figure: str, *roles: str, metric: str = "") -> pd.DataFrame:
        """Curves of the figure's metric, or of another, a column for each role, at the t where all have a number."""
        if figure not in self.tables:
            raise Absent(f"no curves of figure {figure}")
        metric, table = metric or FIGURES[figure], self.tables[figure]
        curves = {role: curve(table, self.setup(role).name, metric)["mean"] for role in roles}
        frame = pd.concat(curves, axis=1).dropna().sort_index()
        if frame.empty:
            lacking = [self.label(role) for role in roles if curves[role].empty] or ["all of them at one t"]
            raise Absent(f"no {metric.replace('_', ' ')} of {lacking[0]} for figure {figure}")
        return frame

    def scales(self, role: str, *metrics: str) -> pd.DataFrame:
        """Metrics, n and n_diverged of a role's points that have all of them, indexed by scale upwards."""
        rows = self.guided[self.guided.index.get_level_values("setup") == self.setup(role).name].droplevel("setup")
        rows = rows.reindex(columns=[*metrics, "n", "n_diverged"]).dropna()
        if rows.empty:
            raise Absent(f"no {' with '.join(map(metric_label, metrics))} of {self.label(role)}")
        return rows

    def unguided(self, metric: str) -> float:
        values = self.points[(self.points["metric"] == metric) & self.points["scale"].isna()]["value"].dropna()
        if values.empty:
            raise Absent(f"no {metric_label(metric)} of unguided samples")
        return float(values.iloc[0])

    def unguided_by(self, role: str) -> float:
        """The unguided samples' share by the role's classifier: their own accuracy, or accuracy/NAME."""
        name, unguided = self.setup(role).classifier, self.points["setup"][self.points["scale"].isna()]
        own = name in {self.setups[setup].classifier for setup in unguided}
        return self.unguided("accuracy" if own else f"accuracy/{name}")

    def clean(self, role: str) -> str:
        """How good the role's classifier is on clean images, in words."""
        name = self.setup(role).classifier
        who, accuracy = f"the {classifier_label(name)} classifier", self.accuracies.get(name)
        if accuracy is None:
            return f"the card of {who} holds no accuracy on clean images"
        return f"{who} is right on {percent(accuracy)} of clean validation images"

    def criterion(self) -> str:
        """The distance to the target class by which a scale is best."""
        if (metric := criterion(self.points)) is None:
            raise Absent("no distance to the target class of guided samples")
        return metric
