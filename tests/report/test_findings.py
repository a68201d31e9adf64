"""The page of findings: every claim is seen, not seen or not measured as its files say, and nothing is assumed."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nrcg.errors import NrcgError
from nrcg.report import WORDS
from nrcg.report.claims import background
from nrcg.report.findings import write_findings

SETUPS = Path(__file__).parents[2] / "config" / "setups.yaml"
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
    """Files in which every claim is seen, to be spoilt one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.dataset, self.n_classes, self.note = folder, "sportballs", 3, "a note"
        sensitivities = {"robust": 1.0, "nonrobust": 10.0, X0: 3.0}
        self.curves = {
            1: {"robust": 1 - 0.002 * T, "nonrobust": np.where(T < 10, 1, 0.36), X0: np.where(T < 60, 1, 0.5)},
            2: dict(sensitivities),
            3: dict(sensitivities),
            4: {**sensitivities, ADAM: T / 10, EMA9: 2.0, EMA99: 1.2},
        }
        self.more = {(number, metric): {} for number in (3, 4) for metric in ("relative_sensitivity", "saturated")}
        for number in (3, 4):
            self.more[number, "relative_sensitivity"] = dict.fromkeys(self.curves[number], 1.0)
        self.points = {  # (setup, scale): own accuracy, the judge's, FD to the target class, diverged of 256
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
        self.robust_unguided = 0.35  # accuracy of the unguided samples by the robust classifier
        self.clean = {"robust": 0.86, "nonrobust": 0.998}
        self.shares = {"baseball": 0.33, "basketball": 0.40, "soccer": 0.27}
        self.ground = 255
        self.distance = "cfd_judge"

    def change(self, setup: str, scale: float, **fields) -> None:
        names = ("own", "judge", "distance", "diverged")
        old = dict(zip(names, self.points[setup, scale], strict=True))
        self.points[setup, scale] = tuple((old | fields).values())

    def drop(self, setup: str) -> None:
        self.points = {key: value for key, value in self.points.items() if key[0] != setup}

    def figures(self) -> dict[str, Path]:
        paths = {}
        for number, curves in self.curves.items():
            parts = [
                pd.DataFrame({"setup": s, "metric": METRICS[number], "t": T, "mean": v}) for s, v in curves.items()
            ]
            parts += [
                pd.DataFrame({"setup": s, "metric": metric, "t": T, "mean": v})
                for (figure, metric), values in self.more.items()
                if figure == number
                for s, v in values.items()
            ]
            paths[str(number)] = self.folder / f"figure{number}.csv"
            pd.concat(parts).assign(std=0.1, n=64).to_csv(paths[str(number)], index=False)
        return paths

    def scores(self) -> Path:
        rows = []
        for (setup, scale), (own, judge, distance, lost) in self.points.items():
            values = {"accuracy": own, "accuracy_judge": judge, self.distance: distance}
            values |= {f"judge_share/{name}": share for name, share in self.shares.items()} if scale == "" else {}
            values |= {"accuracy/robust": self.robust_unguided} if scale == "" and self.robust_unguided else {}
            rows += [(self.dataset, setup, scale, metric, value, 256, lost) for metric, value in values.items()]
        columns = ["dataset", "setup", "scale", "metric", "value", "n", "n_diverged"]
        path = self.folder / "points.csv"
        pd.DataFrame(rows, columns=columns).assign(stderr="", features="").to_csv(path, index=False)
        return path

    def shards(self) -> list[Path]:
        images = np.full((6, 32, 32, 3), self.ground, dtype=np.uint8)
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

    def write(self, outputs: list[Path], **changes) -> None:
        files = {"figures": self.figures(), "scores": self.scores(), "unconditional": self.shards()}
        files["classifiers"] = self.cards()
        write_findings(outputs, **({"roles": ROLES, "setups": SETUPS} | files | changes), target="baseball",
                       classes=self.n_classes, dataset=self.dataset, note=self.note)  # fmt: skip

    def findings(self, **changes) -> pd.DataFrame:
        path = self.folder / "findings.csv"
        self.write([path], **changes)
        return pd.read_csv(path, dtype=str, keep_default_na=False).set_index(pd.Index(NAMES))


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def test_every_claim_is_seen_where_the_files_say_so(world):
    verdicts = world.findings()["verdict"]
    assert len(verdicts) == len(WORDS["claims"]) == len(set(world.findings()["claim"]))
    assert verdicts.pop("celeba") == "not measured"
    assert set(verdicts) == {"seen"}, verdicts


def curve(figure, setup, values):
    return lambda world: world.curves[figure].update({setup: values})


def more(figure, metric, setup, values):
    return lambda world: world.more[figure, metric].update({setup: values})


def point(setup, scale, **fields):
    return lambda world: world.change(setup, scale, **fields)


def attribute(name, value):
    return lambda world: setattr(world, name, value)


SPOILT = [  # claim, how its files are changed, which words the page says then
    ("collapse", curve(1, "nonrobust", np.where(T < 25, 1, 0.36)), "36.0 % at t = 25 of 100"),
    ("collapse", curve(1, "nonrobust", np.full(100, 0.44)), "never: lowest 44.0 %"),
    ("collapse", curve(1, "nonrobust", np.where(T == 10, 0.36, 0.9)), "89.4 % on average"),
    ("restored", curve(1, X0, np.where(T < 10, 1, 0.8)), "x̂₀ 80.0 %"),
    ("restored", curve(1, "nonrobust", np.full(100, 0.9)), "nothing to restore"),
    ("logit far", curve(2, "nonrobust", 1.9), "ratio 1.9 on 100 of 100 t; non-robust above robust at 100 of 100 t"),
    ("logit lowered", curve(2, X0, 11.0), "ratio 1.1 "),
    ("logit lowered", curve(2, X0, np.where(T <= 55, 11.0, 1.0)), "x̂₀ above x_t at 55 of 100 t"),
    ("gradient far", curve(3, "nonrobust", np.where(T <= 50, 0.25, 4.0)),
     "ratio 1 on 100 of 100 t; non-robust above robust at 50 of 100 t"),
    ("gradient lowered", curve(3, X0, np.where(T < 90, 11.0, np.inf)), "ratio 1.1 on 89 of 100 t"),
    ("ema level", curve(4, EMA99, np.where(T <= 50, 1.6, 1.0)),
     "eq. 4: ratio 1.6 (x̂₀ without EMA: 3) on 50 of 50 t; relative: 1 "),
    ("ema level", more(4, "relative_sensitivity", EMA99, 1.6),
     "eq. 4: ratio 1.2 (x̂₀ without EMA: 3) on 50 of 50 t; relative: 1.6 (without EMA: 1); "
     "EMA 0.9606 over 100 steps: weights sum to 0.98, as over the paper's 400"),
    ("adam worse", curve(4, ADAM, 10 / T), "from t ≤ 25 to t ≥ 76: times 0."),
    ("adam worse", curve(4, X0, T**2.0), "with ADAM"),
    ("unstabilised", point("nonrobust", 3, judge=0.96), "96.0 % baseball by the judge and FD 54"),
    ("none survives", point("nonrobust", 10, diverged=255), "255 of 256 samples diverged (s = 10)"),
    ("robust", point("robust", 10, judge=0.949), "steers at 0 of 3 scales"),
    ("robust", point("unconditional", "", distance=9.0), "unguided 33.0 % and 9"),
    ("ema", point(EMA99, 10, judge=0.94), "at best 94.0 %"),
    ("robust own", lambda w: [w.change("robust", s, own=v) for s, v in ((3, 0.6), (10, 0.77), (30, 0.44))],
     "at best 77.0 % baseball at s = 10 (unguided 35.0 %); the robust classifier is right on 86.0 % of clean"),
    ("robust own", attribute("robust_unguided", 1.0), "(unguided 100.0 %)"),
    ("ema own", lambda w: [w.change(EMA99, s, own=0.9) for s in (3, 10, 30)],
     "at best 90.0 % baseball at s = 3 (unguided 34.0 %); the non-robust classifier is right on 99.8 %"),
    ("log_prob", point(LOGPROB, 10, judge=0.89), "gap 9.0 to 29.0 points"),
    ("log_prob", lambda w: [w.change(LOGPROB, s, own=0.9) for s in (10, 30)], "never reaches 95.0 % (at best 90.0 %)"),
    ("logit", point(EMA99, 10, judge=0.87), "own 98.0 %, judge 87.0 % at s = 10"),
    ("logit", point(LOGPROB, 10, judge=0.98), "with log_prob: own 98.0 %, judge 98.0 %"),
    ("adam scales", lambda w: [w.change(s, k, distance=1.0) for s, k in ((ADAM, 1), (X0, 3))], "non-robust + x̂₀: 3,"),
    ("turning", point("robust", 30, distance=10.5), "30 at s = 3, 10 at s = 10, 10.5 at s = 30"),
    ("turning", point("robust", 3, distance=1.0), "1 at s = 3"),
    ("inside", point(EMA9, 30, distance=1.0), "AT AN END: non-robust + x̂₀ + EMA 0.9 30 of 3–30"),
    ("classes", attribute("shares", {"a": 0.19, "b": 0.41, "c": 0.40}), "a 19.0 %"),
    ("classes", attribute("shares", {"a": 0.51, "b": 0.24, "c": 0.25}), "a 51.0 %"),
    ("white", attribute("ground", 247), "0.9686 over 6 samples"),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "spoil", "words"), SPOILT, ids=[f"{i}-{row[0]}" for i, row in enumerate(SPOILT)])
def test_a_claim_that_does_not_hold_is_not_seen(world, claim, spoil, words):
    spoil(world)
    finding = world.findings().loc[claim]
    assert finding["verdict"] == "not seen" and words in finding["measured"], finding["measured"]


MISSING = [  # what is missing, the claims that need it
    (lambda w: w.curves.pop(1), {"collapse", "restored"}),
    (lambda w: w.curves.pop(2), {"logit far", "logit lowered"}),
    (lambda w: w.curves.pop(3), {"gradient far", "gradient lowered"}),
    (lambda w: w.curves.pop(4), {"ema level", "adam worse"}),
    (lambda w: w.curves[1].pop("robust"), {"collapse"}),
    (curve(3, X0, 0.0), {"gradient lowered"}),
    (curve(4, ADAM, np.where(T > 20, np.nan, 1.0)), {"adam worse"}),
    (lambda w: w.more[4, "relative_sensitivity"].clear(), {"ema level"}),
    (more(3, "saturated", X0, np.where(T > 24, 0.5, 0.0)), {"gradient lowered"}),
    (lambda w: w.drop("nonrobust"), {"unstabilised", "none survives"}),
    (lambda w: w.drop("robust"), {"robust", "robust own", "turning"}),
    (lambda w: w.drop(EMA99), {"ema", "ema own", "logit", "adam scales"}),
    (attribute("robust_unguided", None), {"robust own"}),  # not by the non-robust classifier's accuracy instead
    (lambda w: w.drop(LOGPROB), {"log_prob", "logit"}),
    (lambda w: w.drop(ADAM), {"adam scales"}),
    (lambda w: w.drop("unconditional"), {"unstabilised", "robust", "robust own", "ema", "ema own", "inside",
                                             "classes"}),
    (attribute("distance", "fd_judge"), {"unstabilised", "robust", "ema", "adam scales", "turning", "inside"}),
    (attribute("distance", "cfid"), {"unstabilised", "robust", "ema"}),
    (lambda w: [w.drop(s) for s in dict.fromkeys(k[0] for k in w.points) if s != "unconditional"], set(NAMES[8:20])),
    (lambda w: w.shares.pop("soccer"), {"classes"}),
    (attribute("dataset", "celebahq"), {"classes", "white"}),
]  # fmt: skip


@pytest.mark.parametrize(("remove", "claims"), MISSING)
def test_what_the_files_do_not_hold_is_not_measured(world, remove, claims):
    remove(world)
    findings = world.findings()
    absent = set(findings.index[findings["verdict"] == "not measured"])
    assert absent == claims | {"celeba"}
    assert (findings.loc[list(absent), "measured"] != "").all()


def test_what_saturates_decides_no_verdict(world):
    """log p of the non-robust classifier is rounding noise for t > 45: curves and verdicts turn round there."""
    noise = T > 45
    world.curves[3][X0] = np.where(noise, 1e-9, 20.0)
    world.curves[4] |= {X0: np.where(noise, 1e-9, 20.0), ADAM: np.where(noise, 1e-9, T / 10)}
    seen = world.findings()
    assert seen.loc["gradient lowered", "verdict"] == "seen" and seen.loc["adam worse", "verdict"] == "not seen"
    for number, setups in ((3, [X0]), (4, [X0, ADAM, EMA99])):
        world.more[number, "saturated"] |= {setup: np.where(noise, 0.97, 0.3) for setup in setups}
    seen = world.findings()
    assert seen.loc["gradient lowered", "verdict"] == "not seen" and seen.loc["adam worse", "verdict"] == "seen"
    words = "ratio 2 on 45 of 100 t, without t = 46–100 (log p saturated); x̂₀ above x_t at 45 of 45 t; relative"
    assert words in seen.loc["gradient lowered", "measured"]
    assert seen.loc["ema level", "verdict"] == "seen" and "on 45 of 50 t, without" in seen.loc["ema level", "measured"]


def test_no_shards_is_not_measured(world):
    findings = world.findings(unconditional=[])
    assert findings.loc["white", "verdict"] == "not measured"


@pytest.mark.parametrize(
    ("distance", "lost", "verdict"), [(20.0, 0, "seen"), (61.0, 0, "not seen"), (20.0, 1, "not seen")]
)
def test_stable_scales_of_celeba(world, distance, lost, verdict):
    world.dataset = "celeba"
    world.points |= {(EMA9, 450): (0.99, 0.97, 20.0, 0), (EMA99, 400): (0.9, 0.9, 100.0, 9)}
    assert world.findings().loc["celeba", "verdict"] == "not seen"  # the one point near 500 is bad
    world.points[EMA99, 510] = (0.99, 0.97, distance, lost)  # nearer
    assert world.findings().loc["celeba", "verdict"] == verdict


def test_a_setup_without_a_better_scale_than_none_has_no_best(world):
    for scale in (1, 3):
        world.change("nonrobust", scale, distance=60.0)
    finding = world.findings().loc["inside"]
    assert finding["verdict"] == "seen" and "no scale below unguided: non-robust 1 of 1–10" in finding["measured"]


def test_inception_decides_the_best_scale_where_measured(world):
    world.distance = "cfid"
    assert "(by cFID)" in world.findings().loc["adam scales", "measured"]


def test_page(world, tmp_path):
    world.curves.pop(2)
    world.shares = {"a|b": 0.1, "b": 0.45, "c": 0.45}
    world.note = "a note\nof <two> lines"
    world.write([tmp_path / "f.md", tmp_path / "f.html", tmp_path / "f.tex"], title="Findings: SportBalls")
    page = re.sub(" +", " ", (tmp_path / "f.md").read_text())
    assert "\n\na note\n\nof <two> lines\n\n22 claims: 18 seen, 1 not seen, 3 not measured.\n\n| verdict |" in page
    assert page.startswith("# Findings: SportBalls\n") and "baseball, with 256 samples per point" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 24 and all(line.replace("\\|", "").count("|") == 5 for line in rows)
    assert sum(row.startswith("| not measured |") for row in rows) == 3 and r"a\|b 10.0 %" in page
    html = (tmp_path / "f.html").read_text("utf-8")
    assert html.count("<tr") == 23 and html.count("<td>not measured</td>") == 3 and "a|b 10.0 %" in html
    assert '<meta charset="utf-8">' in html and "<h1>Findings: SportBalls</h1>" in html and "x̂₀" in html
    assert "<p>of &lt;two&gt; lines</p>" in html and "…" not in html  # pandas shortens long cells
    assert not re.search(r"src=|href=|@import|url\(", html)  # needs no other file
    assert re.findall("<th>(.*?)</th>", html) == ["verdict", "claim", "measured", "threshold"]
    assert r"\begin{tabular}{llll}" in (tmp_path / "f.tex").read_text()


def test_a_role_that_no_setup_has_is_not_measured(world):
    roles = {role: name for role, name in ROLES.items() if role not in ("ema", "adam")}
    findings = world.findings(roles=roles)
    absent = {"ema level", "adam worse", "ema", "ema own", "logit", "adam scales", "celeba"}
    assert set(findings.index[findings["verdict"] == "not measured"]) == absent
    assert findings.loc["ema", "claim"] == "Guidance with non-robust + x̂₀ + EMA steers."
    with pytest.raises(NrcgError, match="roles: unknown key emma; nearest are ema, "):
        world.findings(roles={"emma": EMA99})
    with pytest.raises(NrcgError, match=r"roles: ema: column 'setup' holds 'gone', which .*setups\.yaml does not list"):
        world.findings(roles={"ema": "gone"})


def test_claims_take_labels_from_the_setups_and_setups_from_the_roles(world, tmp_path):
    changed = SETUPS.read_text().replace("nonrobust_x0_ema0.99:", "mine:").replace("x̂₀ + EMA 0.99\n", "x̂₀ + MINE\n")
    (tmp_path / "setups.yaml").write_text(changed)
    world.curves[4]["mine"] = world.curves[4].pop(EMA99)
    world.more[4, "relative_sensitivity"]["mine"] = world.more[4, "relative_sensitivity"].pop(EMA99)
    world.points = {("mine" if key[0] == EMA99 else key[0], key[1]): row for key, row in world.points.items()}
    findings = world.findings(roles=ROLES | {"ema": "mine"}, setups=tmp_path / "setups.yaml")
    assert findings.loc["ema", "claim"] == "Guidance with non-robust + x̂₀ + MINE steers."
    assert set(findings["verdict"].drop("celeba")) == {"seen"}


def test_both_measures_are_quoted_and_compared_with_the_same_classifier(world):
    measured = world.findings().loc["robust", "measured"]
    assert "at best 99.0 % baseball by the judge" in measured
    assert "98.0 % by its own classifier (unguided 35.0 %)" in measured  # by the robust one, not 34 %
    assert "98.0 % by its own classifier (unguided 34.0 %)" in world.findings().loc["ema", "measured"]


def test_a_card_without_an_accuracy_is_said_and_a_wrong_one_refused(world):
    world.clean["robust"] = None  # imported
    measured = world.findings().loc["robust own", "measured"]
    assert "the card of the robust classifier holds no accuracy on clean images" in measured
    world.clean["robust"] = "0.9"
    with pytest.raises(NrcgError, match=r"robust\.json: valid_accuracy '0\.9': must be a finite number"):
        world.findings()


def test_background_matches_a_plain_loop():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 10, 8, 3), dtype=np.uint8)
    images[7] = 255
    expected = []
    for image in images / 255.0:
        dark = {(y, x): 1 - image[y, x].mean() + 1e-9 for y in range(10) for x in range(8)}
        centre = [sum(place[i] * d for place, d in dark.items()) / sum(dark.values()) for i in (0, 1)]
        expected.append(np.mean([1 - d for place, d in dark.items() if np.hypot(*np.subtract(place, centre)) > 3.2]))
    assert background(images) == pytest.approx(expected)


def test_bad_input_is_named(world, tmp_path):
    with pytest.raises(NrcgError, match=r"f\.txt: tables are written as"):
        world.write([tmp_path / "f.txt"])
    figures = world.figures()
    with pytest.raises(NrcgError, match=r"figure 5 .*figure1\.csv"):
        world.findings(figures={"5": figures["1"]})
    with pytest.raises(NrcgError, match=r"figure1\.csv: column 'metric' must hold 'logit_sensitivity'"):
        world.findings(figures={"2": figures["1"]})
    with pytest.raises(NrcgError, match=r"gone\.csv: no such file"):
        world.findings(figures={"1": tmp_path / "gone.csv"})
    for broken in ({"t": 3}, {"t": ""}, {"setup": "unheard"}):
        path = tmp_path / "broken.csv"
        pd.read_csv(figures["1"]).assign(**broken).to_csv(path, index=False)
        with pytest.raises(NrcgError, match=r"broken\.csv"):
            world.findings(figures={"1": path})
