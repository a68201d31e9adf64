"""The curves, points and samples with which claims are checked."""

from types import SimpleNamespace

import pandas as pd

from nrcg.checks import NAME, check, maybe, number
from nrcg.errors import NrcgError
from nrcg.evaluation.points import read_points
from nrcg.evaluation.uncertainty import wilson
from nrcg.io.files import read_json
from nrcg.plots.forward import curve, read_forward
from nrcg.plots.setups import Setup, classifier_label, is_share, known_setups, metric_label, read_setups
from nrcg.plots.style import File
from nrcg.report import WORDS
from nrcg.report.verdicts import Number

FIGURES = {"1": "accuracy", "2": "logit_sensitivity", "3": "gradient_sensitivity", "4": "gradient_sensitivity"}
ROLES, LIMITS = WORDS["roles"], SimpleNamespace(**WORDS["limits"])


class Absent(Exception):
    """A measurement that a claim needs is missing; the message says which."""


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def said(number: Number, metric: str) -> str:
    """A number with its interval."""
    share = is_share(metric)
    value, low, high = (f"{100 * each:.1f}" if share else f"{each:.4g}" for each in number)
    text = f"{value} %" if share else value
    return text if number.low != number.low else f"{text} [{low}, {high}]"


class Evidence:
    """The data of `write_findings` by role of the setup; methods raise Absent for missing data."""

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
        self.scores = read_points(scores, dataset)
        self.points = self.scores.reported
        known_setups(self.setups, self.points["setup"], scores, setups)
        rows = self.points[self.points["scale"].notna()]
        values = rows.pivot(index=["setup", "scale"], columns="metric", values=["value", "low", "high"])
        self.guided = values.join(pd.concat({"": rows.groupby(["setup", "scale"])[["n", "n_diverged"]].max()}, axis=1))
        self.accuracies = {name: read_json(path).get("valid_accuracy") for name, path in classifiers.items()}
        for name, accuracy in self.accuracies.items():
            check(str(classifiers[name]), {"valid_accuracy": accuracy}, {"valid_accuracy": maybe(number(0, 1))})

    def setup(self, role: str) -> Setup:
        if role not in self.roles:
            raise Absent(f"this run has no setup in the role {role} ({ROLES[role]})")
        return self.roles[role]

    def label(self, role: str) -> str:
        return self.roles[role].label if role in self.roles else ROLES[role]

    def forward(self, figure: str, *roles: str, metric: str = "") -> pd.DataFrame:
        """Curves of the figure's metric (or another), one column per role, at all t with numbers for each."""
        if figure not in self.tables:
            raise Absent(f"no curves of figure {figure}")
        metric, table = metric or FIGURES[figure], self.tables[figure]
        curves = {role: curve(table, self.setup(role).name, metric)["mean"] for role in roles}
        frame = pd.concat(curves, axis=1).dropna().sort_index()
        if frame.empty:
            lacking = [self.label(role) for role in roles if curves[role].empty] or ["all of them at one t"]
            raise Absent(f"no {metric.replace('_', ' ')} of {lacking[0]} for figure {figure}")
        return frame

    def share_at(self, role: str, share: float, t: int) -> Number:
        """A share along the forward process with its interval."""
        n = curve(self.tables["1"], self.setup(role).name, FIGURES["1"])["n"].get(t, float("nan"))
        return Number(share, *(float(end) for end in wilson(share, n)))

    def errors(self, figure: str, role: str) -> pd.Series:
        """The standard error of the logarithm of a curve of the figure's metric, by t."""
        found = curve(self.tables[figure], self.setup(role).name, FIGURES[figure])
        return found["std"] / found["n"] ** 0.5 / found["mean"]

    def scales(self, role: str, *metrics: str) -> pd.DataFrame:
        """Metrics as `Number`s, n and n_diverged of a role's points with all metrics, by ascending scale."""
        name, found = self.setup(role).name, self.guided
        rows = found[found.index.get_level_values("setup") == name].droplevel("setup").sort_index()
        columns = {
            metric: [
                Number(*ends) for ends in rows.reindex(columns=[(part, metric) for part in Number._fields]).to_numpy()
            ]
            for metric in metrics
        }
        table = pd.DataFrame(columns | {key: rows["", key] for key in ("n", "n_diverged")}, index=rows.index)
        whole = [all(row[metric].value == row[metric].value for metric in metrics) for _, row in table.iterrows()]
        if not any(whole):
            raise Absent(f"no {' with '.join(map(metric_label, metrics))} of {self.label(role)}")
        return table[whole]

    def chosen(self, role: str, *metrics: str) -> pd.Series:
        """The row of `scales` at the chosen scale; its name is the scale."""
        rows, scale = self.scales(role, *metrics), self.scores.best.get(self.setup(role).name)
        if scale not in rows.index:
            raise Absent(f"no scale of {self.label(role)} was chosen")
        return rows.loc[scale]

    def unguided(self, metric: str) -> Number:
        rows = self.points[(self.points["metric"] == metric) & self.points["scale"].isna()].dropna(subset="value")
        if rows.empty:
            raise Absent(f"no {metric_label(metric)} of unguided samples")
        return Number(*rows[list(Number._fields)].iloc[0])

    def unguided_by(self, role: str) -> Number:
        """The unguided samples' share by the role's classifier: accuracy, or accuracy/NAME."""
        name, unguided = self.setup(role).classifier, self.points["setup"][self.points["scale"].isna()]
        own = name in {self.setups[setup].classifier for setup in unguided}
        return self.unguided("accuracy" if own else f"accuracy/{name}")

    def clean(self, role: str) -> str:
        """The accuracy of the role's classifier on clean images, in words."""
        name = self.setup(role).classifier
        who, accuracy = f"the {classifier_label(name)} classifier", self.accuracies.get(name)
        if accuracy is None:
            return f"the card of {who} has no accuracy on clean images"
        return f"{who} classifies {percent(accuracy)} of clean validation images correctly"

    def criterion(self) -> str:
        """The distance to the target class that chooses scales."""
        if (metric := self.scores.criterion) is None:
            raise Absent("no distance to the target class of guided samples")
        return metric
