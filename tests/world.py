"""A run's files in which every claim of the page of findings is clearly seen, to be spoilt one by one."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from scored import rows_of, write_scores

from nrcg.report import WORDS
from nrcg.report.findings import write_findings

SETUPS = Path(__file__).parents[1] / "config" / "setups.yaml"
X0, ADAM, EMA9, EMA99 = "nonrobust_x0", "nonrobust_x0_adam", "nonrobust_x0_ema0.9", "nonrobust_x0_ema0.99"
LOGPROB = f"{EMA99}_logprob"
ROLES = {"robust": "robust", "nonrobust": "nonrobust", "x0": X0, "adam": ADAM, "ema_low": EMA9, "ema": EMA99,
         "log_prob": LOGPROB}  # fmt: skip
NAMES = ["collapse", "restored", "logit far", "logit lowered", "gradient far", "gradient lowered", "ema level",
         "adam worse", "unstabilised", "none survives", "robust", "robust own", "ema", "ema own", "log_prob", "logit",
         "adam scales", "turning", "celeba", "inside", "classes", "white"]  # fmt: skip
METRICS = {1: "accuracy", 2: "logit_sensitivity", 3: "gradient_sensitivity", 4: "gradient_sensitivity"}
T = np.arange(1, 101)


class World:
    """The files, and the page that is written of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.dataset, self.n_classes, self.note = folder, "sportballs", 3, "a note"
        sensitivities = {"robust": 1.0, "nonrobust": 10.0, X0: 3.0}
        self.curves: dict[int, dict[str, Any]] = {
            1: {"robust": 1 - 0.002 * T, "nonrobust": np.where(T < 10, 1, 0.36), X0: np.where(T < 60, 1, 0.5)},
            2: dict(sensitivities),
            3: dict(sensitivities),
            4: {**sensitivities, ADAM: T / 10, EMA9: 2.0, EMA99: 1.2},
        }
        self.more = {(number, metric): {} for number in (3, 4) for metric in ("relative_sensitivity", "saturated")}
        for number in (3, 4):
            self.more[number, "relative_sensitivity"] = dict.fromkeys(self.curves[number], 1.0)
        self.points: dict[tuple[str, Any], tuple] = {
            # (setup, scale): own accuracy, the judge's, FD to the target class, how many diverged
            ("unconditional", ""): (0.34, 0.33, 60.0, 0),
            ("nonrobust", 1): (0.50, 0.40, 55.0, 0),
            ("nonrobust", 3): (0.97, 0.30, 54.0, 0),
            ("nonrobust", 10): (0.00, 0.00, 900.0, 256),
            (ADAM, 0.1): (0.50, 0.50, 40.0, 0),
            (ADAM, 0.3): (0.97, 0.96, 20.0, 0),
            (ADAM, 1): (0.99, 0.90, 70.0, 0),
        }
        for setup, judge in (("robust", 0.99), (X0, 0.9), (EMA9, 0.93), (EMA99, 0.97), (LOGPROB, 0.75)):
            self.points |= {
                (setup, 3): (0.80, 0.70, 30.0, 0),
                (setup, 10): (0.98, judge, 10.0, 0),
                (setup, 30): (0.99, judge - 0.05, 20.0, 0),
            }
        self.tuning: dict[tuple[str, float], float] = {}  # (setup, scale): its distance on 100 samples not reported
        self.n, self.half = 256, 0.02  # samples of a point, and half the interval of a distance, as its share
        self.images, self.std = 1000, 0.1  # of the curves
        self.robust_unguided: float | None = 0.35  # accuracy of the unguided samples by the robust classifier
        self.clean = {"robust": 0.86, "nonrobust": 0.998}
        self.shares = {"baseball": 0.33, "basketball": 0.40, "soccer": 0.27}
        self.ground: Any = 255  # of each unguided sample
        self.distance = "cfd_judge"

    def change(self, setup: str, scale: Any, **fields: float) -> None:
        names = ("own", "judge", "distance", "diverged")
        old = dict(zip(names, self.points[setup, scale], strict=True))
        self.points[setup, scale] = tuple((old | fields).values())

    def drop(self, setup: str) -> None:
        self.points = {key: value for key, value in self.points.items() if key[0] != setup}

    def figures(self) -> dict[str, Path]:
        paths = {}
        for number, curves in self.curves.items():
            found = {(METRICS[number], setup): values for setup, values in curves.items()}
            for (figure, metric), others in self.more.items():
                found |= {(metric, setup): values for setup, values in others.items() if figure == number}
            parts = [pd.DataFrame({"setup": setup, "metric": metric, "t": T, "mean": values})
                     for (metric, setup), values in found.items()]  # fmt: skip
            paths[str(number)] = self.folder / f"figure{number}.csv"
            pd.concat(parts).assign(std=self.std, n=self.images).to_csv(paths[str(number)], index=False)
        return paths

    def scores(self) -> Path:
        rows = []
        for (setup, scale), (own, judge, distance, lost) in self.points.items():
            values = {"accuracy": own, "accuracy_judge": judge, self.distance: distance}
            values |= {f"judge_share/{name}": share for name, share in self.shares.items()} if scale == "" else {}
            values |= {"accuracy/robust": self.robust_unguided} if scale == "" and self.robust_unguided else {}
            rows += rows_of(setup, scale, values, n=self.n, lost=lost, half=self.half, dataset=self.dataset)
        for (setup, scale), distance in self.tuning.items():
            own = {"n": 100, "half": None, "seeds": "tuning", "dataset": self.dataset}
            rows += rows_of(setup, scale, {self.distance: distance}, **own)
        return write_scores(self.folder / "points.csv", rows)

    def shards(self) -> list[Path]:
        images = np.zeros((6, 32, 32, 3), dtype=np.uint8) + np.reshape(self.ground, (-1, 1, 1, 1)).astype(np.uint8)
        images[:, 2:12, 4:14] = 60
        path = self.folder / "shard.npy"
        np.save(path, images)
        path.with_suffix(".json").write_text(json.dumps({"seeds": [0, 6], "diverged": []}))
        return [path]

    def cards(self) -> dict[str, Path]:
        paths = {name: self.folder / f"{name}.json" for name in self.clean}
        for name, path in paths.items():
            path.write_text(json.dumps({"valid_accuracy": self.clean[name]}))
        return paths

    def write(self, outputs: list[Path], **changes: Any) -> None:
        files = {"figures": self.figures(), "scores": self.scores(), "unconditional": self.shards()}
        files |= {"classifiers": self.cards(), "roles": ROLES, "setups": SETUPS}
        write_findings(outputs, **(files | changes), target="baseball", classes=self.n_classes, dataset=self.dataset,
                       note=self.note)  # fmt: skip

    def findings(self, *names: str, **changes: Any) -> pd.DataFrame:
        """The page's rows, by NAMES; of these claims alone, which is quicker."""
        path, claims = self.folder / "findings.csv", dict(zip(NAMES, WORDS["claims"], strict=True))
        with patch.dict(WORDS, claims=[claims[name] for name in names or NAMES]):
            self.write([path], **changes)
        return pd.read_csv(path, dtype=str, keep_default_na=False).set_index(pd.Index(names or NAMES))
