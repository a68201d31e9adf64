import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pytorch_fid import fid_score
from pytorch_fid import inception as fid_inception

from nrcg.datasets.imageset import write_image_set
from nrcg.errors import NrcgError
from nrcg.evaluation.collect import POINT, SCORE_COLUMNS, collect_scores, given_scores
from nrcg.evaluation.extractors import Extractor, load_extractor
from nrcg.evaluation.frechet import FeatureStatistics, GatheredStatistics, frechet_distance
from nrcg.evaluation.score import reference_statistics, score
from nrcg.io.files import sha256
from nrcg.io.images import to_float
from nrcg.models.classifier import build_classifier, save_classifier

disp = pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # pytorch-fid's call of SciPy
CLASSES = ["red", "green", "blue"]
CARD = {"architecture": "none", "classes": CLASSES, "n_logits": 3}


def statistics_of(features, batch=37):
    statistics = FeatureStatistics.empty(features.shape[1])
    for start in range(0, len(features), batch):
        statistics.update(features[start : start + batch])
    return statistics


def correlated(seed, n, dim=24, offset=0.0):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, dim)) @ random.normal(size=(dim, dim)) + offset


# Fréchet statistics


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_streamed_sums_are_the_mean_and_covariance(offset):
    features = correlated(0, 500, offset=offset)
    statistics = statistics_of(features)
    exact = features - offset  # far from zero, only what the float64 features themselves still hold can be expected
    np.testing.assert_allclose(statistics.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.cov, np.cov(exact, rowvar=False), rtol=1e-9, atol=1e-9)


def test_merging_is_exact_whatever_the_split():
    features = correlated(1, 400, offset=50.0)
    whole = statistics_of(features, batch=400)
    merged = statistics_of(features[:7]) + FeatureStatistics.empty(24) + statistics_of(features[7:], batch=1)
    assert merged.n == whole.n == 400
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-12, atol=1e-12 * np.abs(whole.scatter).max())


def test_merging_changes_neither():
    a, b = statistics_of(correlated(1, 30)), statistics_of(correlated(2, 30))
    before = a.scatter.copy(), b.scatter.copy()
    _ = a + b
    np.testing.assert_array_equal((a.scatter, b.scatter), before)


@disp
def test_distance_is_pytorch_fids_and_the_eigenvalue_formulas():
    a, b = correlated(3, 300), correlated(4, 200, offset=0.5)
    ours = frechet_distance(statistics_of(a), statistics_of(b))
    covs = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    theirs = fid_score.calculate_frechet_distance(a.mean(0), covs[0], b.mean(0), covs[1])
    overlap = np.sqrt(np.linalg.eigvals(covs[0] @ covs[1]).real).sum()
    by_hand = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covs[0]) + np.trace(covs[1]) - 2 * overlap
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert ours == pytest.approx(by_hand, rel=1e-6)


def test_distance_of_few_or_equal_samples_is_computed_quietly(capsys, recwarn):
    few, constant = statistics_of(correlated(5, 6)), statistics_of(np.ones((9, 24)))
    expected = ((few.mean - 1) ** 2).sum() + np.trace(few.cov)  # a constant has no spread to overlap with
    assert frechet_distance(few, constant) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-3)
    assert not recwarn.list and capsys.readouterr().out == ""


def test_saved_statistics_come_back_and_a_truncated_file_is_named(tmp_path):
    statistics, path = statistics_of(correlated(6, 50)), tmp_path / "all.npz"
    statistics.save(path)
    loaded = FeatureStatistics.load(path)
    assert loaded.n == 50
    np.testing.assert_array_equal(loaded.mean, statistics.mean)
    np.testing.assert_array_equal(loaded.scatter, statistics.scatter)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(NrcgError, match=r"all\.npz: not complete"):
            FeatureStatistics.load(path)
    np.savez(path, mu=statistics.mean)
    with pytest.raises(NrcgError, match=r"all\.npz: not complete"):
        FeatureStatistics.load(path)
    with pytest.raises(NrcgError, match=r"none\.npz: no such file"):
        FeatureStatistics.load(tmp_path / "none.npz")


def test_what_has_no_distance_is_refused():
    with pytest.raises(NrcgError, match="24 and of 3 features"):
        frechet_distance(statistics_of(correlated(7, 50)), statistics_of(np.ones((5, 3))))
    with pytest.raises(NrcgError, match="1 images"):
        frechet_distance(statistics_of(correlated(7, 1)), statistics_of(correlated(7, 50)))


# Extractors


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_named(value):
    features = np.random.default_rng(0).normal(size=(500, 8))
    good, gathered = FeatureStatistics.empty(8), GatheredStatistics(8)
    good.update(features)
    features[3, 2] = value
    gathered.update(features)
    for take in (lambda: FeatureStatistics.empty(8).update(features), gathered.result):
        with pytest.raises(NrcgError, match=r"1 of 500 images are not finite; look for damaged"):
            take()
    bad = FeatureStatistics(500, features.mean(0), good.scatter)  # from elsewhere
    with pytest.raises(NrcgError, match="statistics are not finite"):
        frechet_distance(good, bad)


def test_one_image_has_no_distance():
    one = FeatureStatistics.empty(8)
    one.update(np.zeros((1, 8)))
    with pytest.raises(NrcgError, match="at least 2"):
        frechet_distance(one, one)


def test_inception_features_are_pytorch_fids(inception_weights, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, size=(5, 32, 32, 3), dtype=np.uint8)
    files = [tmp_path / f"{i}.png" for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    untouched = fid_inception.load_state_dict_from_url
    extractor = load_extractor("inception", weights=inception_weights)
    assert fid_inception.load_state_dict_from_url is untouched
    ours = np.concatenate([extractor(images[:3]), extractor(images[3:])])
    monkeypatch.setattr(fid_inception, "load_state_dict_from_url", lambda *_, **__: torch.load(inception_weights))
    network = fid_inception.InceptionV3([fid_inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
    theirs = fid_score.get_activations(files, network, batch_size=5, num_workers=0)
    assert ours.dtype == np.float64 and ours.shape == (5, extractor.dim) == (5, 2048)
    assert theirs.std(axis=0).max() > 0.01  # the images differ
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.max())
    mean, cov = theirs.mean(axis=0), np.cov(theirs, rowvar=False)
    statistics = statistics_of(ours, batch=2)
    assert np.linalg.norm(statistics.mean - mean) < 1e-4 * np.linalg.norm(mean)
    assert np.linalg.norm(statistics.cov - cov) < 1e-4 * np.linalg.norm(cov)


def test_judge_features_are_its_last_hidden_layer(tmp_path):
    torch.manual_seed(0)
    judge = build_classifier("resnet18_judge", 3).eval()
    save_classifier(tmp_path, judge, CARD | {"architecture": "resnet18_judge"})
    images = np.random.default_rng(0).integers(0, 256, size=(4, 16, 16, 3), dtype=np.uint8)
    extractor = load_extractor("judge", weights=tmp_path)
    found = torch.from_numpy(extractor(images)).float()
    assert found.shape == (4, extractor.dim) == (4, 64)
    with torch.no_grad():  # the rest of the network makes its logits of them
        torch.testing.assert_close(judge.fc[2](found.relu()), judge(to_float(images)))


def test_weights_that_do_not_fit_are_named(tmp_path):
    file = tmp_path / "weights.pth"
    with pytest.raises(NrcgError, match=r"weights\.pth: no such file; get it from https"):
        load_extractor("inception", weights=file)
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(NrcgError, match=r"weights\.pth: damaged"):
        load_extractor("inception", weights=file)
    torch.save({"conv.weight": torch.zeros(3)}, file)
    with pytest.raises(NrcgError, match=r"weights\.pth: not weights of pytorch-fid"):
        load_extractor("inception", weights=file)
    with pytest.raises(NrcgError, match="no weights given"):
        load_extractor("inception", weights=None)
    with pytest.raises(NrcgError, match="'clip': unknown"):
        load_extractor("clip", weights=file)
    save_classifier(tmp_path, build_classifier("mobilenet_v3_small", 3), CARD | {"architecture": "mobilenet_v3_small"})
    with pytest.raises(NrcgError, match="a mobilenet_v3_small; features of a judge"):
        load_extractor("judge", weights=tmp_path)


# Scores


class Brightest(torch.nn.Module):
    """Assigns an image to its brightest colour channel; mid-grey, a tie, to class 0. `order` renames the channels."""

    def __init__(self, order=(0, 1, 2)):
        super().__init__()
        self.order = list(order)

    def forward(self, images):
        return images.mean((2, 3))[:, self.order]


def colours(images):
    return images.reshape(len(images), -1, 3).mean(axis=1)


# the "network" gets floats in [−1, 1] and answers in 0…255, so that `colours` of the bytes is the expected feature
COLOUR = Extractor("judge", 3, lambda inputs: (inputs.double().mean((2, 3)) + 1) * 127.5, "cpu")


def write_shard(path, images, start, diverged=(), **changes):
    np.save(path, images)
    card = {"seeds": [start, start + len(images)], "diverged": list(diverged), "sha256": sha256(path)} | changes
    path.with_suffix(".json").write_text(json.dumps({key: value for key, value in card.items() if value is not None}))
    return path


@pytest.fixture
def shards(tmp_path):
    """20 random images as seeds 100…119 in two shards; seeds 103, 104 and 115 diverged to mid-grey."""
    images = np.random.default_rng(3).integers(0, 256, size=(20, 4, 4, 3), dtype=np.uint8)  # no two channels tie
    images[[3, 4, 15]] = 128
    paths = [
        write_shard(tmp_path / "a.npy", images[:13], 100, [103, 104]),
        write_shard(tmp_path / "b.npy", images[13:], 113, [115]),
    ]
    return paths, images


@pytest.fixture
def training(tmp_path):
    random = np.random.default_rng(2)
    images = random.integers(0, 256, size=(60, 4, 4, 3), dtype=np.uint8)
    labels, split = random.integers(0, 3, size=60), np.arange(60) % 3
    write_image_set(tmp_path / "set", images, labels, split, name="s", classes=CLASSES, seed=0, parameters={})
    return tmp_path / "set", images, labels, split


def fid_of(a, b):
    return fid_score.calculate_frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))


@disp
@pytest.mark.parametrize("target", [0, 1])
def test_scores_by_hand(shards, training, target):
    paths, images = shards
    folder, train_images, labels, split = training
    references = (
        reference_statistics(folder, COLOUR, batch_size=7),
        reference_statistics(folder, COLOUR, target=target, batch_size=7),
    )
    table = score(
        paths,
        target=target,
        guiding=(Brightest((1, 0, 2)), CARD),
        judge=(Brightest(), CARD),
        references={"judge": (COLOUR, *references)},
        batch_size=5,
    ).metrics
    assert list(table.columns) == SCORE_COLUMNS
    assert (table.n == 20).all() and (table.n_diverged == 3).all()
    found = table.set_index("metric")
    sane = np.setdiff1d(np.arange(20), [3, 4, 15])
    brightest = colours(images)[sane].argmax(axis=1)
    swapped = np.array([1, 0, 2])[brightest]
    shares = {"accuracy": (swapped == target).sum() / 20, "accuracy_judge": (brightest == target).sum() / 20}
    shares |= {f"judge_share/{name}": (brightest == i).sum() / 20 for i, name in enumerate(CLASSES)}
    for metric, share in shares.items():
        assert found.value[metric] == pytest.approx(share)
        assert found.stderr[metric] == pytest.approx(np.sqrt(share * (1 - share) / 20))
        assert pd.isna(found.features[metric])
    everything, of_class = colours(train_images[split == 0]), colours(train_images[(split == 0) & (labels == target)])
    assert found.value["fd_judge"] == pytest.approx(fid_of(colours(images), everything), rel=1e-4)
    assert found.value["cfd_judge"] == pytest.approx(fid_of(colours(images), of_class), rel=1e-4)
    assert found.features["fd_judge"] == found.features["cfd_judge"] == 3 and np.isnan(found.stderr["fd_judge"])
    assert len(table) == len(shares) + 2  # in particular no row is called FID


def test_only_inception_distances_are_fids(shards, training):
    extractor = Extractor("inception", 3, COLOUR.network, "cpu")
    statistics = reference_statistics(training[0], extractor)
    references = {"inception": (extractor, statistics, statistics)}
    classifiers = {"guiding": (Brightest(), CARD), "judge": (Brightest(), CARD)}
    table = score(shards[0], target=0, **classifiers, references=references).metrics
    assert list(table.metric[table.features.notna()]) == ["fid", "cfid"]


def test_shards_that_do_not_fit_are_named(shards, tmp_path):
    classifiers = {"guiding": (Brightest(), CARD), "judge": (Brightest(), CARD), "references": {}}
    (a, b), images = shards

    def refused(match, paths=(a, b), **changed):
        with pytest.raises(NrcgError, match=match):
            score(list(paths), **{"target": 0, **classifiers, **changed})

    refused("no sample shards", [])
    refused("target 3", target=3)
    refused("of the judge", judge=(Brightest(), CARD | {"classes": ["x", "y", "z"]}))
    refused(r"a\.npy: seeds \[100, 113\] occur", [a, a])
    refused(r"c\.npy: no such file", [tmp_path / "c.npy"])
    write_shard(b, images[13:], 113, seeds=[113, 119])
    refused(r"b\.npy: 7 images, its card says seeds \[113, 119\]")
    write_shard(b, images[13:], 113, [3])
    refused(r"b\.json: `diverged` holds other seeds than 113 to 119")
    write_shard(b, images[13:], 113, seeds=None)
    refused(r"b\.json: no list")
    write_shard(b, images[13:], 113, sha256=None)
    refused(r"b\.json: no key `sha256`; delete the shard and sample it again")
    b.with_suffix(".json").unlink()
    refused(r"b\.json: no such file")
    refused(r"a\.npy: float32", [write_shard(a, images.astype(np.float32), 100)])
    refused(r"empty\.npy: no images", [write_shard(tmp_path / "empty.npy", images[:0], 100)])


def test_a_class_without_training_images_is_named(training):
    folder, images, labels, split = training
    write_image_set(folder, images, labels * 0, split, name="s", classes=CLASSES, seed=0, parameters={})
    with pytest.raises(NrcgError, match="0 training images of class 2"):
        reference_statistics(folder, COLOUR, target=2)


def test_points_are_collected_in_order(tmp_path):
    rows = pd.DataFrame([("fid", 1.5, np.nan, 8, 1, 3), ("accuracy", 0.5, 0.1, 8, 1, None)], columns=SCORE_COLUMNS)
    rows.astype({"features": "Int64"}).to_csv(tmp_path / "one.csv", index=False)
    points = [("b", "robust", 10), ("a", "robust", 10), ("a", "robust", 2.5), ("a", "robust", None), ("a", "plain", 5)]
    table = collect_scores([(*point, tmp_path / "one.csv") for point in points])
    assert list(table.columns) == POINT + SCORE_COLUMNS
    keys = [(*key, None if pd.isna(scale) else scale) for *key, scale in table[POINT].itertuples(index=False)]
    assert keys[::2] == [("a", "plain", 5), *reversed([*points[1:4]]), ("b", "robust", 10)]
    assert list(table.metric) == ["fid", "accuracy"] * 5
    assert table.features[0] == 3 and pd.isna(table.features[1])
    (tmp_path / "one.csv").write_text("metric,value\nfid,1\n")
    with pytest.raises(NrcgError, match=r"one\.csv: columns"):
        collect_scores([(*points[0], tmp_path / "one.csv")])
    (tmp_path / "one.csv").write_text("")
    with pytest.raises(NrcgError, match=r"one\.csv: not a table"):
        collect_scores([(*points[0], tmp_path / "one.csv")])


def test_given_scores_are_the_rows_of_their_data_set(tmp_path):
    rows = pd.DataFrame([("fid", 1.5, np.nan, 8, 1, 3)], columns=SCORE_COLUMNS).astype({"features": "Int64"})
    rows.to_csv(tmp_path / "one.csv", index=False)
    table = collect_scores([("a", "plain", 5, tmp_path / "one.csv"), ("b", "plain", None, tmp_path / "one.csv")])
    table.to_csv(tmp_path / "all.csv", index=False)
    found = given_scores(tmp_path / "all.csv", "b")
    assert found.to_csv(index=False) == table[table["dataset"] == "b"].to_csv(index=False) and len(found) == 1
    with pytest.raises(NrcgError, match=r"all\.csv: no scores of 'c'; it has a, b"):
        given_scores(tmp_path / "all.csv", "c")
    with pytest.raises(NrcgError, match=r"one\.csv: columns"):
        given_scores(tmp_path / "one.csv", "a")


def test_gathered_statistics_are_those_of_all_at_once():
    features = np.random.default_rng(0).normal(size=(2500, 3)) + 100
    gathered = GatheredStatistics(3)
    for batch in np.split(features, range(64, 2500, 64)):
        gathered.update(batch)
    found = gathered.result()
    assert found.n == 2500 and gathered.result() is found
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.scatter / 2499, np.cov(features.T), rtol=1e-10)
    assert GatheredStatistics(3).result().n == 0
