"""The scores of a point by hand, and by the verbs with a module of the user's."""

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_fid import fid_score
from real_images import real_of
from scipy import stats

from nrcg.datasets.imageset import write_image_set
from nrcg.errors import NrcgError
from nrcg.evaluation.comparison import Pair
from nrcg.evaluation.extractors import extractors
from nrcg.evaluation.metrics import metrics
from nrcg.evaluation.reference import Reference
from nrcg.evaluation.score import Point, accepted, read_point, score
from nrcg.io.files import sha256
from nrcg.io.tables import SCORE_COLUMNS, read_table
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import save_classifier

CLASSES = ["red", "green", "blue"]
DEFAULT = ["fd", "kid", "precision", "recall", "density", "coverage", "off_manifold"]


def verdicts_of(n, diverged=(), first=0, seed=0):
    """Random ones."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame({"seed": np.arange(first, first + n), "diverged": np.isin(np.arange(n), diverged)})
    for name in ("guiding", "judge", "robust"):
        table[name] = np.where(table["diverged"], "", np.array(CLASSES)[random.integers(0, 3, n)])
    return table


@pytest.fixture(scope="module")
def reference():
    """Real images of three features: of all classes, and of the target class."""
    random = np.random.default_rng(1)
    everything, of_class = random.normal(size=(300, 3)), random.normal(size=(120, 3)) * 0.5 + 1
    return Reference(*(real_of(each, each[:50] + 0.1) for each in (everything, of_class)))


def features_of(n, seed=0):
    return (np.random.default_rng(seed).normal(size=(n, 3)) * 0.7 + 0.5).astype(np.float32)


def scored(n=40, verdicts=None, chosen=DEFAULT, names=("judge",), evaluations=None, **how):
    verdicts = verdicts_of(n) if verdicts is None else verdicts
    point = Point(verdicts, {name: features_of(len(verdicts)) for name in names}, evaluations)
    return score(point, **{"target": "green", "classes": CLASSES, "chosen": chosen} | how)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # pytorch-fid's call of SciPy
def test_scores_by_hand(reference):
    verdicts = verdicts_of(40, diverged=[3, 4, 15])
    table = scored(verdicts=verdicts, references={"judge": reference}, evaluations=12.5)
    assert list(table.columns) == SCORE_COLUMNS and (table["seeds"] == "reported").all() and (table["n"] == 40).all()
    found = table.set_index("metric")
    shares = {"accuracy": "guiding", "accuracy/robust": "robust", "accuracy_judge": "judge"}
    shares = {metric: (verdicts[name] == "green").sum() for metric, name in shares.items()}
    shares |= {f"judge_share/{name}": (verdicts["judge"] == name).sum() for name in CLASSES}
    for metric, hits in shares.items():
        assert found["value"][metric] == hits / 40  # of all samples: diverged ones are misses
        wilson = stats.binomtest(int(hits), 40).proportion_ci(method="wilson")
        np.testing.assert_allclose(found.loc[metric, ["low", "high"]].astype(float), wilson, atol=1e-6)
        assert found["n_diverged"][metric] == 3 and np.isnan(found["features"][metric])
    assert (
        found["value"]["unet_evaluations"] == 12.5 and found.loc["unet_evaluations", ["low", "features"]].isna().all()
    )
    assert list(found.index) == [*shares, "unet_evaluations"] + [
        f"{prefix}{name}_judge" for prefix in ("", "c") for name in ("fd", "fd_infinity", *DEFAULT[1:])
    ]
    distances = found.iloc[len(shares) + 1 :]
    assert (distances["features"] == 3).all() and distances[["value", "low", "high"]].notna().all(axis=None)
    assert (distances["low"] <= distances["value"]).all() and (distances["value"] <= distances["high"]).all()
    samples = features_of(40).astype(float)
    for prefix, real in (("", reference.all), ("c", reference.target)):
        theirs = real.pool.mean(0), np.cov(real.pool, rowvar=False)
        expected = fid_score.calculate_frechet_distance(samples.mean(0), np.cov(samples, rowvar=False), *theirs)
        assert found["value"][f"{prefix}fd_judge"] == pytest.approx(expected, rel=1e-4)
        pair = Pair.of(samples.astype(np.float32), real)
        for name in DEFAULT:
            assert found["value"][f"{prefix}{name}_judge"] == pytest.approx(metrics[name](pair))
        off = stats.binomtest(round(40 * metrics["off_manifold"](pair)), 40).proportion_ci(method="wilson")
        np.testing.assert_allclose(
            found.loc[f"{prefix}off_manifold_judge", ["low", "high"]].astype(float), off, atol=1e-6
        )


def test_rows_are_named_by_metric_and_extractor(reference):
    references = dict.fromkeys(("inception", "mine"), reference)
    table = scored(names=references, references=references, chosen=["fd", "kid"])
    names = list(table["metric"][table["features"].notna()])
    assert names == [
        prefix + name
        for first in (("fid", "fid_infinity", "kid_inception"), ("fd_mine", "fd_infinity_mine", "kid_mine"))
        for prefix in ("", "c")
        for name in first
    ]


def test_fd_of_infinitely_many_is_told_of_four_samples_a_feature(reference):
    for n, told in ((11, False), (12, True)):
        table = scored(n, references={"judge": reference}, chosen=["fd"])
        assert table["metric"].str.contains("infinity").any() == told
    few = Reference(real_of(features_of(5, 1)), reference.target)  # of five real images, five are compared one by one
    table = scored(40, references={"judge": few}, chosen=["fd"])
    assert list(table["metric"][table["metric"].str.contains("infinity")]) == ["cfd_infinity_judge"]


def test_samples_that_choose_scales_are_told_apart(reference):
    """Their distances have no intervals, which take the longest; the others are scored as if they were alone."""
    how = {"references": {"judge": reference}, "evaluations": 7.0}
    verdicts = verdicts_of(40, diverged=[0, 30], first=100)
    point = Point(verdicts, {"judge": features_of(40)}, 7.0)
    table = scored(verdicts=verdicts, tuning=116, **how)
    tuning, reported = (table[table["seeds"] == seeds] for seeds in ("tuning", "reported"))
    assert set(tuning["n"]) == {16} and set(reported["n"]) == {24}
    assert tuning[tuning["features"].notna()][["low", "high"]].isna().all(axis=None)
    for rows, part, value in ((slice(0, 16), tuning, 0), (slice(16, 40), reported, 116)):
        alone = Point(point.verdicts[rows], {"judge": point.features["judge"][rows]}, 7.0)
        other = score(alone, target="green", classes=CLASSES, references=how["references"], chosen=DEFAULT)
        other = other[other["metric"].isin(part["metric"])].reset_index(drop=True)
        columns = ["metric", "value", "n", "n_diverged"] + (["low", "high"] if value else [])
        pd.testing.assert_frame_equal(part.reset_index(drop=True)[columns], other[columns])
    assert set(scored(verdicts=verdicts, tuning=10, **how)["seeds"]) == {"reported"}
    assert set(scored(verdicts=verdicts, tuning=140, **how)["seeds"]) == {"tuning"}


def test_one_sample_has_no_distance_and_two_have_no_interval(reference):
    assert not scored(1, references={"judge": reference})["features"].notna().any()
    table = scored(2, references={"judge": reference}, chosen=["fd", "kid", "density"])
    distances = table[table["features"].notna()]
    assert len(distances) == 6 and distances["value"].notna().all() and distances[["low", "high"]].isna().all(axis=None)


def test_memory_of_distances_does_not_grow_with_the_samples(tmp_path, monkeypatch):
    monkeypatch.setattr("nrcg.evaluation.comparison.CHUNK", 100)
    random, peaks = np.random.default_rng(0), []
    real = real_of(random.normal(size=(100, 64)))
    for n in (1000, 20000):
        np.save(tmp_path / "f.npy", random.normal(size=(n, 64)).astype(np.float32))
        features = {"judge": np.load(tmp_path / "f.npy", mmap_mode="r")}
        point = Point(verdicts_of(n), features)
        tracemalloc.start()
        score(point, target="red", classes=CLASSES, references={"judge": Reference(real, real)}, chosen=DEFAULT[:6])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 19000 * 128  # half of the features; verdicts stay


@pytest.fixture
def files(tmp_path):
    """What `nrcg measure features` leaves."""
    verdicts_of(20).to_csv(tmp_path / "v.csv", index=False)
    np.save(tmp_path / "f.npy", features_of(20))
    (tmp_path / "card.json").write_text(json.dumps({"unet_evaluations": 40.0}))
    return {"verdicts": str(tmp_path / "v.csv"), "features": {"judge": str(tmp_path / "f.npy")}}


def test_the_card_tells_the_evaluations(files, tmp_path, reference):
    how = {"target": "red", "classes": CLASSES, "references": {"judge": reference}, "chosen": ["kid"]}
    without, table = (score(read_point(**files, card=card), **how) for card in (None, tmp_path / "card.json"))
    cost = table["metric"] == "unet_evaluations"
    assert list(table["value"][cost]) == [40]
    pd.testing.assert_frame_equal(without, table[~cost].reset_index(drop=True))


def test_rejection_keeps_samples_of_the_target_and_counts_the_others_as_cost(reference):
    verdicts = verdicts_of(40, diverged=[3], first=100)
    kept = accepted(Point(verdicts, {"judge": features_of(40)}, 12.0), "green")
    mine = verdicts["guiding"] == "green"
    how = {"target": "green", "classes": CLASSES, "references": {"judge": reference}, "chosen": DEFAULT}
    table = score(kept, tuning=110, **how)
    reported = table[table["seeds"] == "reported"].set_index("metric")
    assert (reported["n"] == (mine & (verdicts["seed"] >= 110)).sum()).all() and 3 < mine.sum() < 40
    assert reported["value"]["unet_evaluations"] == pytest.approx(12 * 40 / mine.sum())
    assert reported["value"]["accuracy"] == 1 and 0 < reported["value"]["accuracy_judge"] < 1
    alone = Point(verdicts[mine].drop(columns="robust"), {"judge": features_of(40)[mine]})
    assert (
        score(alone, tuning=110, **how)["value"].tolist()
        == table["value"][table["metric"] != "unet_evaluations"].tolist()
    )
    (row,) = score(accepted(kept, "blue"), **how).to_dict("records")
    assert row["n"] == 0 and np.isnan(row["value"])


def test_files_that_do_not_fit_are_named(files, tmp_path):
    verdicts, features = tmp_path / "v.csv", tmp_path / "f.npy"
    whole, text = features.read_bytes(), verdicts.read_text()

    def refused(message, **changed):
        with pytest.raises(NrcgError, match=message):
            read_point(**files | changed)
        verdicts.write_text(text)
        features.write_bytes(whole)

    refused(r"none\.npy: no such file", features={"judge": f"{tmp_path}/none.npy"})
    refused(r"none\.json: no such file", card=f"{tmp_path}/none.json")
    features.write_bytes(whole[:-20])
    refused(r"f\.npy: not a complete \.npy array")
    np.save(features, features_of(19))
    refused(r"f\.npy: float32 \(19, 3\), but .*v\.csv has 20 samples; make both again")
    np.save(features, features_of(20).astype(float))
    refused(r"f\.npy: float64 \(20, 3\)")
    verdicts.write_text(text[:-1])
    refused(r"v\.csv: truncated")
    verdicts.write_text(text.replace("judge", "jugde"))
    refused(r"v\.csv: no column 'judge'")
    verdicts.write_text(text.replace("False", "no"))
    refused(r"v\.csv: not verdicts")
    lines = text.splitlines(keepends=True)
    verdicts.write_text("".join([lines[0], *lines[:0:-1]]))
    refused(r"v\.csv: not verdicts .one row per seed, ascending")


def test_metrics_and_features_that_are_not_there_are_named(reference):
    with pytest.raises(NrcgError, match="metric 'fid': unknown; use one of fd, kid"):
        scored(references={"judge": reference}, chosen=["fd", "fid"])
    with pytest.raises(NrcgError, match="no features of extractor 'mine'; extract them first"):
        scored(references={"mine": reference})
    other = Reference(*(real_of(np.random.default_rng(0).normal(size=(20, 4))) for _ in range(2)))
    with pytest.raises(NrcgError, match="extractor judge: 3 features per sample, but 4 per real image"):
        scored(references={"judge": other})


# By the verbs, with a module of the user's

MODULE = """
import numpy as np
from nrcg.evaluation.extractors import Extractor, extractors
from nrcg.evaluation.metrics import metrics

@extractors.register("mean_colour")
def mean_colour(weights, device):
    return Extractor(3, lambda images: images.mean((2, 3)), device)

@metrics.register("shift")
def shift(pair):
    return float(np.abs(pair.samples.mean(0) - pair.real.statistics.gaussian()[0]).max())
"""


def nrcg(*words):
    result = subprocess.run([sys.executable, "-m", "nrcg.cli", *map(str, words)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_module_adds_an_extractor_and_a_metric(tmp_path):
    random = np.random.default_rng(3)
    for name, architecture in (("guide", "mobilenet_v3_small"), ("judge", "resnet18_judge")):
        torch.manual_seed(0)
        card = {"architecture": architecture, "classes": CLASSES, "n_logits": 3}
        save_classifier(tmp_path / name, build_classifier(architecture, 3), card)
    images, labels = random.integers(0, 256, (180, 4, 4, 3), np.uint8), random.integers(0, 3, 180)
    split = np.arange(180) % 3
    write_image_set(tmp_path / "set", images, labels, split, name="s", classes=CLASSES, seed=0, parameters={})
    samples = random.integers(0, 256, (20, 4, 4, 3), np.uint8)
    for name, start, stop in (("a", 100, 113), ("b", 113, 120)):
        np.save(tmp_path / f"{name}.npy", samples[start - 100 : stop - 100])
        card = {"seeds": [start, stop], "diverged": [s for s in (103, 115) if start <= s < stop], "unet_evaluations": 8}
        (tmp_path / f"{name}.json").write_text(json.dumps(card | {"sha256": sha256(tmp_path / f"{name}.npy")}))
    (tmp_path / "mine.py").write_text(MODULE)
    common = "--module", tmp_path / "mine.py", "--target", "green"
    device = "--device", "cpu", "--threads", 1
    words = "--data", tmp_path / "set", "--extractor", "mean_colour", "--out", tmp_path / "r.npz"
    nrcg("measure", "reference", *words, *common, *device)
    both = "--guiding", tmp_path / "guide", "--judge", tmp_path / "judge", "--extractors", '{"mean_colour": {}}'
    words = "--verdicts", tmp_path / "v.csv", "--out", tmp_path / "features", "--first", tmp_path / "first.npy"
    shards = tmp_path / "b.npy", tmp_path / "a.npy"
    nrcg("measure", "features", *shards, *both, *words, "--n-first", 4, "--first-seed", 105, *common, *device)
    words = "--verdicts", tmp_path / "v.csv", "--card", tmp_path / "first.json", "--scale", 2.5, "--tuning", 105
    words += "--features", f"mean_colour={tmp_path}/features/mean_colour.npy"
    words += "--reference", f"mean_colour={tmp_path}/r.npz"
    metric = "--metric", "fd", "--metric", "shift"
    nrcg("measure", "score", *words, *metric, "--judge", tmp_path / "judge", "--out", tmp_path / "s.csv", *common)
    table = read_table(tmp_path / "s.csv", text=["seeds", "metric"], numbers=["scale", "value", "features", "n"])
    table = table[table["seeds"] == "reported"].set_index("metric")
    assert set(table["scale"]) == {2.5} and (table["n"] == 15).all()
    names = ("fd", "fd_infinity", "shift")
    assert list(table.index[table["features"].notna()]) == [
        f"{c}{name}_mean_colour" for c in ("", "c") for name in names
    ]
    train, seen = images[(split == 0) & (labels == 1)], samples[5:]
    expected = np.abs(seen.mean((0, 1, 2)) - train.mean((0, 1, 2))).max() / 127.5
    assert table["value"]["cshift_mean_colour"] == pytest.approx(expected, rel=1e-5)
    assert table["value"]["unet_evaluations"] == 8
    verdicts = read_table(tmp_path / "v.csv", text=["guiding"], numbers=["seed"])
    assert list(verdicts["seed"]) == list(range(100, 120)) and list(np.flatnonzero(verdicts["guiding"] == "")) == [
        3,
        15,
    ]
    np.testing.assert_array_equal(np.load(tmp_path / "first.npy"), samples[5:9])
    assert "mean_colour" not in extractors and "shift" not in metrics  # they were another process's
