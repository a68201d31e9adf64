import json
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pytorch_fid import fid_score
from pytorch_fid import inception as fid_inception

from nrcg.datasets.imageset import write_image_set
from nrcg.errors import NrcgError
from nrcg.evaluation import frechet
from nrcg.evaluation.extractors import Extractor, extractors
from nrcg.evaluation.frechet import FeatureStatistics, frechet_distance, metrics
from nrcg.evaluation.score import load_reference, reference_statistics, score
from nrcg.io.files import sha256
from nrcg.io.images import to_float
from nrcg.io.tables import SCORE_COLUMNS, read_points, read_table
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import save_classifier

disp = pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # pytorch-fid's call of SciPy
CLASSES = ["red", "green", "blue"]
CARD = {"architecture": "none", "classes": CLASSES, "n_logits": 3}


def statistics_of(features, batch=37):
    statistics = FeatureStatistics(features.shape[1])
    for start in range(0, len(features), batch):
        statistics.update(features[start : start + batch])
    return statistics


def correlated(seed, n, dim=24, offset=0.0):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, dim)) @ random.normal(size=(dim, dim)) + offset


# Fréchet statistics


@pytest.mark.parametrize("gathered", [4096, 100])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_streamed_sums_are_the_mean_and_covariance(offset, gathered, monkeypatch):
    monkeypatch.setattr(frechet, "GATHERED", gathered)
    features = correlated(0, 500, offset=offset)
    statistics = statistics_of(features)
    assert statistics.merged()[0] == 500 and statistics.merged() is statistics.merged()
    mean, cov = statistics.gaussian()
    exact = features - offset  # far from zero, only what the float64 features themselves still hold can be expected
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(exact, rowvar=False), rtol=1e-9, atol=1e-9)


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
    mean, cov = few.gaussian()
    expected = ((mean - 1) ** 2).sum() + np.trace(cov)  # a constant has no spread to overlap with
    assert frechet_distance(few, constant) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-3)
    assert not recwarn.list and capsys.readouterr().out == ""


def test_saved_statistics_come_back_and_a_truncated_file_is_named(tmp_path):
    statistics, path = statistics_of(correlated(6, 50)), tmp_path / "all.npz"
    statistics.save(path)
    for loaded, saved in zip(FeatureStatistics.load(path).merged(), statistics.merged(), strict=True):
        np.testing.assert_array_equal(loaded, saved)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(NrcgError, match=r"all\.npz: not complete"):
            FeatureStatistics.load(path)
    np.savez(path, mu=np.zeros(24))
    with pytest.raises(NrcgError, match=r"all\.npz: not complete"):
        FeatureStatistics.load(path)
    np.savez(path, n=50, mean=np.full(24, np.nan), scatter=np.eye(24))
    with pytest.raises(NrcgError, match=r"all\.npz: not feature statistics of finite numbers"):
        FeatureStatistics.load(path)
    with pytest.raises(NrcgError, match=r"none\.npz: no such file"):
        FeatureStatistics.load(tmp_path / "none.npz")


def test_what_has_no_distance_is_refused():
    with pytest.raises(NrcgError, match="24 and of 3 features"):
        frechet_distance(statistics_of(correlated(7, 50)), statistics_of(np.ones((5, 3))))
    with pytest.raises(NrcgError, match="1 images"):
        frechet_distance(statistics_of(correlated(7, 1)), statistics_of(correlated(7, 50)))
    with np.errstate(all="ignore"), pytest.raises(NrcgError, match="do not overflow"):
        frechet_distance(statistics_of(correlated(7, 50) * 1e200), statistics_of(correlated(7, 50)))


# Extractors


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_named(value):
    features = np.random.default_rng(0).normal(size=(500, 8))
    features[3, 2] = value
    with pytest.raises(NrcgError, match=r"1 of 500 images are not finite; look for damaged"):
        FeatureStatistics(8).update(features)


def test_features_of_another_shape_are_named():
    for shape in ((5, 7), (5,), (5, 8, 1)):
        with pytest.raises(NrcgError, match=r"expected N×8; mend the extractor"):
            FeatureStatistics(8).update(np.zeros(shape))


def test_inception_features_are_pytorch_fids(inception_weights, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, size=(5, 32, 32, 3), dtype=np.uint8)
    files = [tmp_path / f"{i}.png" for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    untouched = fid_inception.load_state_dict_from_url
    extractor = extractors["inception"](inception_weights, "cpu")
    assert fid_inception.load_state_dict_from_url is untouched
    ours = np.concatenate([extractor(images[:3]), extractor(images[3:])])
    monkeypatch.setattr(fid_inception, "load_state_dict_from_url", lambda *_, **__: torch.load(inception_weights))
    network = fid_inception.InceptionV3([fid_inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
    theirs = fid_score.get_activations(files, network, batch_size=5, num_workers=0)
    assert ours.dtype == np.float64 and ours.shape == (5, extractor.dim) == (5, 2048)
    assert theirs.std(axis=0).max() > 0.01  # the images differ
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.max())
    mean, cov = theirs.mean(axis=0), np.cov(theirs, rowvar=False)
    for found, expected in zip(statistics_of(ours, batch=2).gaussian(), (mean, cov), strict=True):
        assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)


def test_judge_features_are_its_last_hidden_layer(tmp_path):
    torch.manual_seed(0)
    judge = build_classifier("resnet18_judge", 3).eval()
    save_classifier(tmp_path, judge, CARD | {"architecture": "resnet18_judge"})
    images = np.random.default_rng(0).integers(0, 256, size=(4, 16, 16, 3), dtype=np.uint8)
    extractor = extractors["classifier"](tmp_path, "cpu")
    found = torch.from_numpy(extractor(images)).float()
    assert found.shape == (4, extractor.dim) == (4, 64)
    with torch.no_grad():  # the rest of the network makes its logits of them
        torch.testing.assert_close(judge.fc[2](found.relu()), judge(to_float(images)))


def test_weights_that_do_not_fit_are_named(tmp_path):
    file = tmp_path / "weights.pth"
    with pytest.raises(NrcgError, match=r"weights\.pth: no such file; get it from https"):
        extractors["inception"](file, "cpu")
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(NrcgError, match=r"weights\.pth: damaged"):
        extractors["inception"](file, "cpu")
    untouched = fid_inception.load_state_dict_from_url
    torch.save({"conv.weight": torch.zeros(3)}, file)
    with pytest.raises(NrcgError, match=r"weights\.pth: .*not weights of pytorch-fid"):
        extractors["inception"](file, "cpu")
    assert fid_inception.load_state_dict_from_url is untouched
    for name in extractors:
        with pytest.raises(NrcgError, match=f"extractor {name}: no weights given"):
            extractors[name](None, "cpu")
    with pytest.raises(NrcgError, match="'clip': unknown; use one of inception, classifier"):
        extractors["clip"]


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", {"torchvision": {"name": "squeezenet1_1"}}])
def test_features_of_any_classifier_are_what_its_last_layer_is_given(tmp_path, architecture):
    torch.manual_seed(0)
    network = build_classifier(architecture, 3).eval()
    save_classifier(tmp_path, network, CARD | {"architecture": architecture})
    images = np.random.default_rng(0).integers(0, 256, size=(4, 40, 40, 3), dtype=np.uint8)
    extractor = extractors["classifier"](tmp_path, "cpu")
    found = torch.from_numpy(extractor(images)).float()
    with torch.no_grad():
        if architecture == "mobilenet_v3_small":
            body = network.avgpool(network.features(to_float(images))).flatten(1)
            expected = network.classifier[:-1](body)
        else:  # its last layer is a convolution, after which the pixels are averaged
            expected = network.features(to_float(images)).mean((2, 3))
    assert found.shape == (4, extractor.dim) == expected.shape
    torch.testing.assert_close(found, expected)


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
COLOUR = Extractor(3, lambda inputs: (inputs.double().mean((2, 3)) + 1) * 127.5)


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


def test_memory_of_scoring_does_not_grow_with_the_samples(tmp_path, monkeypatch):
    monkeypatch.setattr("nrcg.evaluation.score.metrics", {"none": lambda *_: 0.0})  # a distance needs the same for all
    monkeypatch.setattr(frechet, "GATHERED", 128)
    classifier = Brightest(), CARD

    class Pixels:  # in NumPy's memory, which is traced; torch's is not
        dim = 512

        def __call__(self, images):
            return images.reshape(len(images), -1)[:, :512].astype(float)

    images = np.random.default_rng(0).integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8)
    peaks = []
    for n in (200, 2000):
        shard = write_shard(tmp_path / f"{n}.npy", images[:n], 0)
        references = {"pixels": (Pixels(), FeatureStatistics(512), FeatureStatistics(512))}
        tracemalloc.start()
        score([shard], target=0, guiding=classifier, judge=classifier, references=references)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1800 * 1000  # pixels are 3 072 bytes an image, features 4 096; seeds and verdicts stay


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


def test_rows_are_named_by_metric_and_extractor(shards, training):
    statistics = reference_statistics(training[0], COLOUR)
    references = dict.fromkeys(("inception", "mine"), (COLOUR, statistics, statistics))
    classifiers = {"guiding": (Brightest(), CARD), "judge": (Brightest(), CARD)}
    table = score(shards[0], target=0, **classifiers, references=references).metrics
    assert list(table.metric[table.features.notna()]) == ["fid", "cfid", "fd_mine", "cfd_mine"]


def test_shards_that_do_not_fit_are_named(shards, tmp_path):
    classifiers = {"guiding": (Brightest(), CARD), "judge": (Brightest(), CARD), "references": {}}
    (a, b), images = shards

    def refused(match, paths=(a, b), **changed):
        with pytest.raises(NrcgError, match=match):
            score(list(paths), **{"target": 0, **classifiers, **changed})

    refused("no sample shards", [])
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
    refused(r"b\.json: no key 'sha256'; delete it")
    b.with_suffix(".json").unlink()
    refused(r"b\.json: no such file")
    refused(r"a\.npy: float32", [write_shard(a, images.astype(np.float32), 100)])
    refused(r"empty\.npy: uint8 \(0, ", [write_shard(tmp_path / "empty.npy", images[:0], 100)])


def test_a_class_without_training_images_is_named(training):
    folder, images, labels, split = training
    write_image_set(folder, images, labels * 0, split, name="s", classes=CLASSES, seed=0, parameters={})
    with pytest.raises(NrcgError, match="0 training images of class 2"):
        reference_statistics(folder, COLOUR, target=2)


# A module of the user's


MODULE = """
import numpy as np
from nrcg.evaluation.extractors import Extractor, extractors
from nrcg.evaluation.frechet import metrics

@extractors.register("mean_colour")
def mean_colour(weights, device):
    return Extractor(3, lambda images: images.mean((2, 3)), device)

@metrics.register("shift")
def shift(samples, reference):
    return float(np.abs(samples.gaussian()[0] - reference.gaussian()[0]).max())
"""


@pytest.fixture
def folders(tmp_path):
    """A guiding classifier and a judge."""
    for name, architecture in (("guide", "mobilenet_v3_small"), ("judge", "resnet18_judge")):
        torch.manual_seed(0)
        card = CARD | {"architecture": architecture}
        save_classifier(tmp_path / name, build_classifier(architecture, 3), card)
    return tmp_path / "guide", tmp_path / "judge"


def nrcg(*words):
    result = subprocess.run([sys.executable, "-m", "nrcg.cli", *map(str, words)], capture_output=True, text=True)
    assert "Traceback" not in result.stderr
    return result


def test_a_module_adds_an_extractor_and_a_metric(shards, training, folders, tmp_path):
    (paths, images), (folder, train_images, labels, split) = shards, training
    (tmp_path / "mine.py").write_text(MODULE)
    common = "--device", "cpu", "--threads", 1, "--module", tmp_path / "mine.py"
    files = {"all": tmp_path / "all.npz", "target": tmp_path / "green.npz"}
    for part, options in (("all", ()), ("target", ("--target", "green"))):
        words = "--data", folder, "--extractor", "mean_colour", *options, "--out", files[part]
        assert nrcg("measure", "reference", *words, *common).returncode == 0
    references = json.dumps({"mean_colour": {part: str(path) for part, path in files.items()}})
    words = "--guiding", folders[0], "--judge", folders[1], "--references", references, "--target", "green"
    outputs = "--verdicts", tmp_path / "verdicts.csv", "--first", tmp_path / "first.npy", "--out", tmp_path / "s.csv"
    result = nrcg("measure", "score", *paths, *words, *outputs, *common)
    assert result.returncode == 0, result.stderr
    table = read_table(tmp_path / "s.csv", text=["metric"], numbers=["value", "features"]).set_index("metric")
    assert list(table.index[table.features.notna()]) == [
        f"{prefix}{name}_mean_colour" for name in ("fd", "shift") for prefix in ("", "c")
    ]
    train = train_images[(split == 0) & (labels == 1)]
    expected = np.abs(colours(images).mean(0) - colours(train).mean(0)).max() / 127.5
    assert table.value["cshift_mean_colour"] == pytest.approx(expected, rel=1e-5)
    seen = read_table(tmp_path / "verdicts.csv", text=["guiding"], numbers=["seed"])
    assert list(seen.seed) == list(range(100, 120)) and list(np.flatnonzero(seen.guiding == "")) == [3, 4, 15]
    assert "mean_colour" not in extractors and "shift" not in metrics  # they were another process's


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"all": "a.npz"}, "--references: judge: no key target; give one"),
        ({"all": "a.npz", "target": 3}, "--references: judge: target 3: must be a name"),
        (
            {"all": "a.npz", "target": "b.npz", "wieghts": "w"},
            "--references: judge: unknown key wieghts; nearest are we",
        ),
        (["a.npz"], "--references: judge: .*give an object"),
        ({"all": "a.npz", "target": "b.npz"}, "extractor 'judge': unknown; use one of inception, classifier"),
        (
            {"extractor": "classifier", "all": "a.npz", "target": "b.npz", "weights": "nowhere"},
            "nowhere/card.json: no such file",
        ),
    ],
)
def test_references_that_are_wrong_are_named(section, message):
    with pytest.raises(NrcgError, match=message):
        load_reference("judge", section, "cpu")
    with pytest.raises(NrcgError, match="extractor 'clip': unknown"):
        load_reference("clip", {"all": "a.npz", "target": "b.npz"}, "cpu")


# Collected


def collect(out, *points):
    return nrcg("measure", "collect", *(word for point in points for word in ("--point", point)), "--out", out)


def test_points_are_collected_in_order_and_given_as_they_were(tmp_path):
    one, every = tmp_path / "one.csv", tmp_path / "all.csv"
    one.write_text(f"{','.join(SCORE_COLUMNS)}\nfid,1.5,,8,1,3\naccuracy,0.1,0.30000000000000004,8,1,\n")
    points = ["b:robust:10", "a:robust:10", "a:robust:2.5", "a:robust:-", "a:plain:5"]
    assert collect(every, *(f"{point}={one}" for point in points)).returncode == 0
    lines = every.read_text().splitlines()
    assert lines[0] == "dataset,setup,scale,metric,value,stderr,n,n_diverged,features"
    assert [line.partition(",fid")[0] for line in lines[1::2]] == [
        "a,plain,5.0", "a,robust,", "a,robust,2.5", "a,robust,10.0", "b,robust,10.0",
    ]  # fmt: skip
    assert lines[1:3] == ["a,plain,5.0,fid,1.5,,8,1,3", "a,plain,5.0,accuracy,0.1,0.30000000000000004,8,1,"]
    table = read_points(every, "a")
    assert list(table.metric) == ["fid", "accuracy"] * 4 and table.features[0] == 3 and np.isnan(table.features[1])
    assert nrcg("measure", "collect", "--given", f"a={every}", "--out", tmp_path / "a.csv").returncode == 0
    assert (tmp_path / "a.csv").read_text().splitlines() == lines[:9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metric,value\nfid,1\n", r"one\.csv: no column 'stderr'"),
        ("", r"one\.csv: not a readable table"),
        (f"{','.join(SCORE_COLUMNS)}\nfid,1.5,,8,1,3", r"one\.csv: .*cut short"),
        (f"{','.join(SCORE_COLUMNS)}\nfid,1.5,,8.5,1,3\n", r"one\.csv: column 'n' holds '8\.5' where a number"),
    ],
)
def test_tables_that_are_no_scores_are_named(tmp_path, text, message):
    (tmp_path / "one.csv").write_text(text)
    result = collect(tmp_path / "all.csv", f"a:b:1={tmp_path}/one.csv")
    assert result.returncode == 2 and re.search(message, result.stderr)


def test_what_cannot_be_collected_is_named(tmp_path):
    one = tmp_path / "one.csv"
    one.write_text(f"{','.join(SCORE_COLUMNS)}\nfid,1.5,,8,1,3\n")
    out = "--out", tmp_path / "all.csv"
    for words, message in (
        (("--point", f"a:b={one}"), "write DATASET:SETUP:SCALE=CSV"),
        (("--point", f"a:b:1={one}", "--given", f"a={one}"), "give --point for each point, or --given alone"),
        ((), "give --point"),
        (("--given", f"a={one}"), r"one\.csv: no column 'dataset'"),
    ):
        result = nrcg("measure", "collect", *words, *out)
        assert result.returncode == 2 and re.search(message, result.stderr), words
    collect(tmp_path / "all.csv", f"a:b:1={one}", f"c:b:-={one}")
    result = nrcg("measure", "collect", "--given", f"d={tmp_path}/all.csv", *out)
    assert re.search(r"all\.csv: column 'dataset' has no 'd'; it holds a, c", result.stderr)
