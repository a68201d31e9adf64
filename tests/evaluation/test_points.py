"""The points of a data set: which samples choose a scale, what several trainings are together, and what is refused."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from scored import COLUMNS, edit, rows_of, write_scores

from nrcg.errors import NrcgError
from nrcg.evaluation.points import collect_scores, read_points
from nrcg.evaluation.uncertainty import T95, Z95


def point(setup, scale, distance, *, accuracy=0.5, metric="cfd_judge", **more):
    return rows_of(setup, scale, {"accuracy": accuracy, metric: distance}, features=64, **more)


def read(tmp_path, rows, dataset=None):
    return read_points(write_scores(tmp_path / "scores.csv", rows), dataset)


CHOICE = [  # reported and tuning samples disagree on the scale of `a`, and on whether `a` or `b` is nearer
    *point("free", "", 1.0), *point("free", "", 1.0, seeds="tuning", half=None, n=50),
    *point("a", 1, 5.0), *point("a", 2, 3.0),
    *point("a", 1, 4.0, seeds="tuning", half=None, n=50), *point("a", 2, 6.0, seeds="tuning", half=None, n=50),
    *point("b", 7, 4.5), *point("b", 7, 3.5, seeds="tuning", half=None, n=50),
]  # fmt: skip


def test_scales_are_chosen_on_the_tuning_samples_and_their_numbers_are_those_reported(tmp_path):
    points = read(tmp_path, CHOICE)
    assert points.tuned and points.best == {"a": 1, "b": 7} and points.best_setup == "b"
    assert points.note == "Scales were chosen on 50 other samples per point."
    chosen = points.at_best().query("metric == 'cfd_judge'")
    assert chosen[["setup", "scale", "value", "n"]].to_numpy().tolist() == [["a", 1, 5.0, 256], ["b", 7, 4.5, 256]]
    assert chosen["low"].tolist() == pytest.approx([4.9, 4.41]) and points.tuning["low"].isna().all()


def test_without_tuning_samples_the_reported_ones_choose_and_the_note_says_so(tmp_path):
    points = read(tmp_path, [row for row in CHOICE if row["seeds"] == "reported"])
    assert not points.tuned and points.best == {"a": 2, "b": 7} and points.best_setup == "a"
    assert points.note.startswith("Scales were chosen on the reported samples, so scores")
    # so they do where too few tuning samples were scored for a distance
    few = [row for row in CHOICE if row["seeds"] == "reported" or row["metric"] == "accuracy"]
    assert read(tmp_path, few).best == points.best and read(tmp_path, few).note == points.note


def test_with_one_scale_each_there_was_no_choice_to_tell_of(tmp_path):
    points = read(tmp_path, [*point("free", "", 9.0), *point("a", 1, 5.0), *point("b", 2, 3.0)])
    assert points.note == "" and points.best == {"a": 1, "b": 2}


@pytest.mark.parametrize(("names", "criterion"), [
    (["cfd_judge"], "cfd_judge"), (["cfd_mine", "cfd_judge"], "cfd_mine"), (["cfd_judge", "cfid"], "cfid"),
    (["fd_judge", "ckid_judge", "cfd_infinity_judge"], None), (["cfid_infinity", "cfd_judge"], "cfd_judge"),
])  # fmt: skip
def test_the_distance_that_decides(tmp_path, names, criterion):
    rows = [row for i, name in enumerate(names) for row in rows_of("a", 1, {name: 1.0 + i})]
    points = read(tmp_path, rows + rows_of("free", "", {"cfid": 1.0}))  # unguided alone: decides nothing
    assert points.criterion == criterion and points.best == ({"a": 1} if criterion else {})
    assert (points.best_setup, len(points.at_best())) == (("a", len(names)) if criterion else (None, 0))


def test_a_blank_value_is_not_the_best(tmp_path):
    points = read(tmp_path, [*point("a", 1, ""), *point("a", 2, 8.0), *point("b", 3, "")])
    assert points.best == {"a": 2} and points.best_setup == "a"


def test_trainings_are_averaged(tmp_path):
    shares, distances = (0.5, 0.625, 0.75), (10.0, 12.0, 20.0)
    more = {"features": 64, "n": 64}
    rows = [row for i in range(3) for row in rows_of(
        "a", 1, {"accuracy": shares[i], "cfd_judge": distances[i], "unet_evaluations": 300}, half=0.1, repeat=i + 1,
        lost=i, **more)]  # fmt: skip
    points = read(tmp_path, rows + rows_of("free", "", {"accuracy": 0.25}, **more))
    share, distance, cost, alone = (row for _, row in points.reported.iterrows())
    pooled = binomtest(120, 192).proportion_ci(method="wilson")
    assert (share["value"], share["n"], share["n_diverged"]) == (0.625, 192, 3)
    assert (share["low"], share["high"]) == pytest.approx((pooled.low, pooled.high), abs=1e-6)
    assert share["between"] == pytest.approx(np.sqrt(max(0, np.var(shares, ddof=1) - error_of(rows, "accuracy"))))
    half = 0.1 * np.sqrt(10**2 + 12**2 + 20**2) / 3  # of a mean of independent numbers
    assert (distance["value"], distance["n"], distance["n_diverged"]) == (14.0, 64, 2)  # of one: its bias is of n = 64
    assert (distance["low"], distance["high"]) == pytest.approx((14 - half, 14 + half))
    assert distance["between"] == pytest.approx(np.sqrt(28 - error_of(rows, "cfd_judge")))
    assert cost["value"] == 300 and np.isnan(cost[["low", "high", "between"]].astype(float)).all()
    assert alone["value"] == 0.25 and np.isnan(alone["between"])
    assert points.repeats.query("metric == 'accuracy' and scale == 1")["value"].tolist() == list(shares)


def error_of(rows, metric):
    """Mean square of the standard errors, as the intervals tell them."""
    sure = Z95 if metric == "accuracy" else T95
    return np.mean([((row["high"] - row["low"]) / 2 / sure) ** 2 for row in rows if row["metric"] == metric])


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.2])
def test_the_spread_between_trainings_is_recovered_without_the_error_of_sampling(tmp_path, spread):
    """400 trainings of which each draws 500 samples: the standard deviation of their shares is more than the spread."""
    random = np.random.default_rng(0)
    true = np.clip(random.normal(0.5, spread, 400), 0, 1)
    shares = random.binomial(500, true) / 500
    rows = [row for i, share in enumerate(shares) for row in rows_of("a", 1, {"accuracy": share}, n=500, repeat=i + 1)]
    (row,) = (row for _, row in read(tmp_path, rows).reported.iterrows())
    assert row["between"] == pytest.approx(spread, abs=0.009)
    if spread < 0.1:
        assert shares.std(ddof=1) > spread + 0.004  # what it would be with that error
    few = [row for i in range(3) for row in rows_of("a", 1, {"accuracy": 0.5}, n=500, repeat=i + 1)]
    assert read(tmp_path, few).reported["between"].tolist() == [0.0]  # three that are the same


def test_an_end_of_a_share_of_several_trainings_is_a_share(tmp_path):
    """Of metrics whose interval is not symmetric: 0 ± its half would reach below 0."""
    ends = [{"low": 0.0, "high": 0.08}, {"low": 0.0, "high": 0.06}]
    rows = [row | end for i, end in enumerate(ends) for row in rows_of("a", 1, {"off_manifold_judge": 0.0}, repeat=i)]
    (row,) = (row for _, row in read(tmp_path, rows).reported.iterrows())
    assert (row["low"], row["high"], row["between"]) == pytest.approx((0.0, 0.05, 0.0))


def test_without_an_interval_of_each_training_no_spread_is_claimed(tmp_path):
    rows = point("a", 1, 10.0, half=None) + point("a", 1, 20.0, repeat=2)
    row = read(tmp_path, rows).reported.query("metric == 'cfd_judge'").iloc[0]
    assert row["value"] == 15 and np.isnan(row[["low", "high", "between"]].astype(float)).all()


def test_real_images_and_rejection_are_kept_apart(tmp_path):
    chosen_on = point("rejection", "", 0.3, n=20, seeds="tuning")
    points = read(tmp_path, CHOICE + point("real", "", 0.1, n=90) + point("rejection", "", 0.2, n=30) + chosen_on)
    assert points.rejection["value"].tolist() == [0.5, 0.2] and "rejection" not in set(points.tuning["setup"])
    assert points.real["value"].tolist() == [0.5, 0.1] and points.real["n"].tolist() == [90, 90]
    assert "real" not in set(points.reported["setup"]) | set(points.repeats["setup"]) and "real" not in points.best
    assert points.reported["setup"].tolist() == read(tmp_path, CHOICE).reported["setup"].tolist()


def test_collected_scores_are_what_is_read(tmp_path):
    """Parts in any order; rows without a scale first, then by scale, training and seeds."""
    parts = {("a", 1): [(2, 10.0), (1, 11.0)], ("a", 2): [(2, 12.0), (1, 13.0)], ("free", 1): [("", 14.0)]}
    for (setup, repeat), found in parts.items():
        rows = [row for scale, value in found for row in point(setup, scale, value)]
        pd.DataFrame(rows)[["scale", *COLUMNS[4:]]].to_csv(tmp_path / f"{setup}{repeat}.csv", index=False)
    table = collect_scores([("d", *key, tmp_path / f"{key[0]}{key[1]}.csv") for key in [*parts][::-1]])
    assert list(table) == COLUMNS
    table.to_csv(tmp_path / "all.csv", index=False)
    points = read_points(tmp_path / "all.csv")
    distances = points.repeats.query("metric == 'cfd_judge'")
    assert distances[["setup", "scale", "repeat", "value"]].fillna(0).to_numpy().tolist() == [
        ["a", 1, 1, 11.0], ["a", 1, 2, 13.0], ["a", 2, 1, 10.0], ["a", 2, 2, 12.0], ["free", 0, 1, 14.0]
    ]  # fmt: skip
    assert points.reported.query("metric == 'cfd_judge'")["value"].tolist() == [12.0, 11.0, 14.0]


WRONG = {  # column, its value where the scale is 2, and what is said
    ("seeds", "spare"): "column 'seeds' holds 'spare'; use tuning or reported",
    ("scale", "1"): "duplicate row for 'accuracy' of 'a' at scale 1",
    ("scale", "-1"): "column 'scale' must be at least 0, or blank without guidance",
    ("dataset", "other"): "column 'dataset' holds sportballs, other; choose one",
    ("repeat", "1.5"): "column 'repeat' holds '1.5' where a number belongs",
    ("low", "little"): "column 'low' holds 'little' where a number belongs",
}


@pytest.mark.parametrize("change", WRONG)
def test_what_does_not_fit_is_refused(tmp_path, change):
    column, value = change
    path = write_scores(tmp_path / "scores.csv", point("a", 1, 3.0) + point("a", 2, 4.0))
    edit(path, column, lambda table: table["scale"] == "2", value)
    with pytest.raises(NrcgError, match=rf"scores\.csv: {re.escape(WRONG[change])}"):
        read_points(path)


def test_no_reported_samples_a_missing_column_and_an_unknown_data_set_are_refused(tmp_path):
    tuning = point("a", 1, 3.0, seeds="tuning", half=None)
    with pytest.raises(NrcgError, match="no rows with 'reported' in column 'seeds'; score samples first"):
        read(tmp_path, tuning)
    with pytest.raises(NrcgError, match="no rows with 'reported'"):
        read(tmp_path, tuning + point("real", "", 0.1))
    with pytest.raises(NrcgError, match="column 'dataset' has no 'celeba'; it holds sportballs"):
        read(tmp_path, CHOICE, "celeba")
    both = CHOICE + point("a", 1, 3.0, dataset="celeba")
    assert (
        read(tmp_path, both, "celeba").best == {"a": 1} and read(tmp_path, both, "sportballs").dataset == "sportballs"
    )
    pd.DataFrame(CHOICE).drop(columns="high").to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(NrcgError, match=r"scores\.csv: no column 'high'; it has dataset, setup"):
        read_points(tmp_path / "scores.csv")
