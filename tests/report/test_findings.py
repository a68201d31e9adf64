"""The claims: each is seen, not seen, undecided or not measured as the files say, and nothing is assumed."""

import numpy as np
import pytest
from world import ADAM, EMA9, EMA99, LOGPROB, NAMES, X0, T, World

from nrcg.report import WORDS
from nrcg.report.claims import background


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def test_every_claim_is_seen_where_the_files_say_so(world):
    verdicts = world.findings()["verdict"]
    assert len(verdicts) == len(WORDS["claims"]) == len({claim["text"] for claim in WORDS["claims"]})
    assert verdicts.pop("celeba") == "not measured"
    assert set(verdicts) == {"supported"}, verdicts


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
    ("collapse", curve(1, "nonrobust", np.full(100, 0.5)), "never: lowest 50.0 % [46.9, 53.1] at t = 1 of 100"),
    ("collapse", curve(1, "nonrobust", np.where(T == 10, 0.36, 0.9)), "89.4 % [87.3, 91.2] on average"),
    ("restored", curve(1, X0, np.where(T < 10, 1, 0.8)), "x̂₀ 80.0 % [77.4, 82.4]"),
    ("restored", curve(1, "nonrobust", np.full(100, 0.9)), "nothing to restore"),
    ("logit far", curve(2, "nonrobust", 1.9),
     "ratio 1.9 [1.89, 1.91] on 100 of 100 t; non-robust above robust at 100 of 100 t"),
    ("logit lowered", curve(2, X0, 11.0), "ratio 1.1 "),
    ("logit lowered", curve(2, X0, np.where(T <= 55, 11.0, 1.0)), "x̂₀ above x_t at 55 of 100 t"),
    ("gradient far", curve(3, "nonrobust", np.where(T <= 50, 0.25, 4.0)), "non-robust above robust at 50 of 100 t"),
    ("gradient lowered", curve(3, X0, np.where(T < 90, 11.0, np.inf)), "] on 89 of 100 t"),
    ("ema level", curve(4, EMA99, np.where(T <= 50, 1.6, 1.0)), "(x̂₀ without EMA: 3) on 50 of 50 t; relative: 1 "),
    ("ema level", more(4, "relative_sensitivity", EMA99, 1.6),
     "(x̂₀ without EMA: 3) on 50 of 50 t; relative: 1.6 (without EMA: 1); "
     "EMA 0.9606 over 100 steps: weights sum to 0.98, as over the paper's 400"),
    ("adam worse", curve(4, ADAM, 10 / T), "ratio of t ≥ 76 to t ≤ 25: 0."),
    ("adam worse", curve(4, X0, T**2.0), "with ADAM"),
    ("unstabilised", point("nonrobust", 3, judge=0.96),
     "at s = 3: 96.0 % [92.8, 97.8] baseball by the judge (unguided 33.0 % [27.5, 39.0]), FD to target class (judge) "
     "54 [52.92, 55.08] (unguided 60 [58.8, 61.2])"),
    ("none survives", point("nonrobust", 10, diverged=255), "255 of 256 samples diverged (s = 10)"),
    ("robust", point("robust", 10, judge=0.8), "at s = 10: 80.0 % [74.7, 84.4] baseball by the judge"),
    ("robust", point("unconditional", "", distance=9.0), "FD to target class (judge) 10 [9.8, 10.2] (unguided 9 ["),
    ("ema", point(EMA99, 10, judge=0.85), "at s = 10: 85.0 %"),
    ("robust own", point("robust", 10, own=0.77),
     "77.0 % [71.5, 81.7] baseball at s = 10 (unguided 35.0 %); the robust classifier classifies 86.0 % of clean"),
    ("robust own", lambda w: [w.change("robust", 10, own=0.95), setattr(w, "robust_unguided", 1.0)],
     "(unguided 100.0 %)"),
    ("ema own", point(EMA99, 10, own=0.8), "(unguided 34.0 %); the non-robust classifier classifies 99.8 %"),
    ("log_prob", point(LOGPROB, 10, judge=0.97), "a gap of 1.0 [−2.0, 4.1] points; up to 29.0 over the 2 such scales"),
    ("log_prob", lambda w: [w.change(LOGPROB, s, own=0.7) for s in (3, 10, 30)], "never reaches 90.0 % (best: 70.0"),
    ("logit", point(EMA99, 10, judge=0.7), "own 98.0 %, judge 70.0 % at s = 10"),
    ("logit", lambda w: [w.change(EMA99, 10, judge=0.93), w.change(LOGPROB, 10, own=0.92, judge=0.98)],
     "with log_prob: own 92.0 %, judge 98.0 % at s = 10, a gap of −6.0 ["),
    ("adam scales", lambda w: [w.change(s, k, distance=1.0) for s, k in ((ADAM, 1), (X0, 3))], "non-robust + x̂₀: 3,"),
    ("turning", point("robust", 30, distance=10.5),
     "30 [29.4, 30.6] at s = 3, 10 [9.8, 10.2] at s = 10, 10.5 [10.29, 10.71] at s = 30"),
    ("turning", point("robust", 3, distance=1.0), "1 [0.98, 1.02] at s = 3, 20 ["),
    ("turning", lambda w: [w.change("robust", s, distance=d) for s, d in ((10, 20.0), (30, 10.0))]
     + [setattr(w, "half", 0.06)], "30 [28.2, 31.8] at s = 3, 10 [9.4, 10.6] at s = 30"),
    ("inside", point(EMA9, 30, distance=1.0), "AT AN END: non-robust + x̂₀ + EMA 0.9 30 of 3–30"),
    ("classes", attribute("shares", {"a": 0.12, "b": 0.44, "c": 0.44}), "a 12.0 % [8.6, 16.6]"),
    ("classes", attribute("shares", {"a": 0.60, "b": 0.2, "c": 0.2}), "a 60.0 %"),
    ("white", attribute("ground", 247), "0.9686 ± 0.0000 over 6 samples"),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "spoil", "words"), SPOILT, ids=[f"{i}-{row[0]}" for i, row in enumerate(SPOILT)])
def test_a_claim_that_does_not_hold_is_not_seen(world, claim, spoil, words):
    spoil(world)
    finding = world.findings(claim).loc[claim]
    assert finding["verdict"] == "not supported" and words in finding["measured"], finding["measured"]


OF_COUNTS = {"none survives", "inside"}  # of how many diverged, and of the grid: sure whatever the intervals


def test_few_samples_leave_claims_undecided(world):
    """The same numbers with wide intervals. 30 or 40 % by the judge are clearly not 90 % of 10 samples either."""
    world.n, world.half, world.images, world.std = 10, 0.6, 4, 6.0
    world.change("nonrobust", 10, diverged=10)
    world.ground = [255, 255, 255, 255, 255, 220]
    verdicts = world.findings()["verdict"].drop("celeba")
    assert set(verdicts.index[verdicts == "supported"]) == OF_COUNTS | {"unstabilised"}
    assert set(verdicts.index[verdicts == "undecided"]) == set(verdicts.index) - OF_COUNTS - {"unstabilised"}


NEAR = [  # claim, and files that are near its threshold: the interval of what is measured holds it
    ("collapse", curve(1, "nonrobust", np.where(T < 24, 1, 0.44))),
    ("collapse", curve(1, "nonrobust", np.where(T < 25, 0.44, 0.36))),
    ("unstabilised", point("nonrobust", 3, judge=0.9)),
    ("robust", point("robust", 10, judge=0.92)),
    ("robust", point("unconditional", "", distance=10.2)),
    ("robust own", point("robust", 10, own=0.91)),
    ("log_prob", point(LOGPROB, 10, judge=0.87)),
    ("log_prob", lambda w: [w.change(LOGPROB, s, own=0.88) for s in (3, 10, 30)]),  # may be ≥ 90 %
    ("logit", lambda w: [w.change(EMA99, s, own=0.88) for s in (3, 10, 30)]),
    ("logit", point(LOGPROB, 10, judge=0.96)),
    ("adam scales", lambda w: [w.change(X0, 3, distance=10.1), w.change(ADAM, 1, distance=20.1)]),
    ("turning", point("robust", 30, distance=11.0)),
    ("turning", point("robust", 3, distance=9.9)),  # the lowest itself, but hardly
    ("classes", attribute("shares", {"a": 0.19, "b": 0.41, "c": 0.40})),
    ("white", attribute("ground", [255, 255, 255, 255, 255, 220])),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "change"), NEAR, ids=[f"{i}-{row[0]}" for i, row in enumerate(NEAR)])
def test_what_is_near_its_threshold_is_undecided(world, claim, change):
    change(world)
    finding = world.findings(claim).loc[claim]
    assert finding["verdict"] == "undecided", finding["measured"]


def test_numbers_without_intervals_decide_nothing(world):
    world.half, world.images = None, ""
    findings = world.findings().drop("celeba")
    assert set(findings.index[findings["verdict"] != "undecided"]) == OF_COUNTS | {"white"}
    assert not findings["measured"].str.contains("nan").any()
    for setup in (EMA99, LOGPROB):
        world.change(setup, 10, own=0.2)
        world.change(setup, 30, own=0.2)
    assert world.findings("log_prob").loc["log_prob", "verdict"] == "undecided"


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
    (attribute("distance", "fd_judge"), {"unstabilised", "robust", "robust own", "ema", "ema own", "adam scales",
                                         "turning", "inside"}),
    (attribute("distance", "cfid"), set()),
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


def test_no_shards_is_not_measured(world):
    assert world.findings(unconditional=[]).loc["white", "verdict"] == "not measured"


def test_what_saturates_decides_no_verdict(world):
    """log p of the non-robust classifier is rounding noise for t > 45: curves and verdicts turn round there."""
    noise = T > 45
    world.std = 1e-10
    world.curves[3][X0] = np.where(noise, 1e-9, 20.0)
    world.curves[4] |= {X0: np.where(noise, 1e-9, 20.0), ADAM: np.where(noise, 1e-9, T / 10)}
    seen = world.findings()
    assert (
        seen.loc["gradient lowered", "verdict"] == "supported" and seen.loc["adam worse", "verdict"] == "not supported"
    )
    for number, setups in ((3, [X0]), (4, [X0, ADAM, EMA99])):
        world.more[number, "saturated"] |= {setup: np.where(noise, 0.97, 0.3) for setup in setups}
    seen = world.findings()
    assert (
        seen.loc["gradient lowered", "verdict"] == "not supported" and seen.loc["adam worse", "verdict"] == "supported"
    )
    words = "ratio 2 [2, 2] on 45 of 100 t, without t = 46–100 (log p saturated); x̂₀ above x_t at 45 of 45 t; relative"
    assert words in seen.loc["gradient lowered", "measured"]
    assert (
        seen.loc["ema level", "verdict"] == "supported"
        and "on 45 of 50 t, without" in seen.loc["ema level", "measured"]
    )


@pytest.mark.parametrize(
    ("distance", "lost", "verdict"),
    [(20.0, 0, "supported"), (65.0, 0, "not supported"), (61.0, 0, "undecided"), (20.0, 1, "not supported")],
)
def test_stable_scales_of_celeba(world, distance, lost, verdict):
    world.dataset = "celeba"
    world.points |= {(EMA9, 450): (0.99, 0.97, 20.0, 0), (EMA99, 400): (0.9, 0.9, 100.0, 9)}
    assert world.findings("celeba").loc["celeba", "verdict"] == "not supported"  # the one point near 500 is bad
    world.points[EMA99, 510] = (0.99, 0.97, distance, lost)  # nearer
    assert world.findings("celeba").loc["celeba", "verdict"] == verdict


def test_a_setup_without_a_better_scale_than_none_has_no_best(world):
    for scale in (1, 3):
        world.change("nonrobust", scale, distance=60.0)
    finding = world.findings("inside").loc["inside"]
    assert finding["verdict"] == "supported" and "no scale below unguided: non-robust 1 of 1–10" in finding["measured"]


def test_a_later_minimum_is_a_turning_point_too(world):
    """Whichever of the scales within is lower than the first and the last, not the lowest alone."""
    world.points |= {("robust", 5): (0.9, 0.9, 10.1, 0), ("robust", 20): (0.9, 0.9, 10.1, 0)}
    assert world.findings("turning").loc["turning", "verdict"] == "supported"
    world.change("robust", 30, distance=9.0)  # falls to the end
    assert world.findings("turning").loc["turning", "verdict"] == "not supported"


def test_adam_needs_smaller_scales_than_every_other(world):
    for scale in (3, 30):  # of one setup, the best scale is clearly 10 times as large; of another clearly not
        world.change(X0, scale, distance=1.0 if scale == 3 else 30.0)
    world.change(ADAM, 1, distance=1.0)
    assert world.findings("adam scales").loc["adam scales", "verdict"] == "not supported"


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
