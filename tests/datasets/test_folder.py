import os
import shutil
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image
from published_layouts import make_folder
from torchvision import transforms
from torchvision.datasets import ImageFolder
from typer.testing import CliRunner

from nrcg.cli import app
from nrcg.datasets import check_images, make_images
from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError


def convert(source, folder, *, threads=0, **settings):
    return make_images("folder", folder, {"source": str(source), "size": 16} | settings, threads=threads)


def reference(source, *steps):
    """torchvision's reader of class folders: uint8 N×H×W×3, labels, and the names of the classes."""
    rows = ImageFolder(source, transform=transforms.Compose([*steps, transforms.PILToTensor()]))
    images, labels = zip(*rows, strict=True)
    return np.stack([image.permute(1, 2, 0).numpy() for image in images]), list(labels), rows.classes


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("flat") / "pets", n=23, classes=("blue", "red", "A grey"))


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split") / "pets"
    for i, part in enumerate(("train", "Val", "test")):
        make_folder(folder / part, n=6, seed=i)
    return folder


@pytest.fixture
def source(flat, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(flat, tmp_path / "pets")


@pytest.mark.parametrize("size", [24, [20, 28]])
def test_labels_and_pixels_are_torchvisions(flat, tmp_path, size):
    made = convert(flat, tmp_path / "set", size=size)
    sides = (size, size) if isinstance(size, int) else size
    images, labels, classes = reference(flat, transforms.Resize(sides))
    assert np.array_equal(made.images, images) and made.labels.tolist() == labels and made.classes == classes
    assert made.card["size"] == size


@pytest.mark.parametrize(
    ("size", "shorter"), [(24, 24), (19, 19), ([24, 16], 24), ([16, 24], 20), ([32, 40], 32), ([17, 90], 72)]
)
def test_crop_is_torchvisions(flat, tmp_path, size, shorter):
    """Pictures of 40×32: `shorter` is what their height becomes, so that both sides are long enough."""
    made = convert(flat, tmp_path / "set", size=size, fit="crop")
    steps = transforms.Resize(shorter), transforms.CenterCrop(size)
    if shorter not in np.atleast_1d(size):  # the width decides
        width = size[1]
        steps = transforms.Resize((width * 32 // 40, width)), steps[1]
    assert np.array_equal(made.images, reference(flat, *steps)[0])


def test_folders_of_splits(split, tmp_path):
    made = convert(split, tmp_path / "set")
    for part, name in (("train", "train"), ("valid", "Val"), ("test", "test")):
        images, labels, _ = reference(split / name, transforms.Resize((16, 16)))
        chosen = made.indices(part)
        assert np.array_equal(made.images[chosen], images) and made.labels[chosen].tolist() == labels
    assert made.card["seed"] is None and made.card["parameters"]["valid_fraction"] is None


def test_validation_images_are_drawn_from_each_class(flat, tmp_path):
    sets = [convert(flat, tmp_path / str(seed), seed=seed, valid_fraction=0.3) for seed in (0, 0, 1)]
    for made in sets:
        for label in range(3):
            n = int((made.labels == label).sum())
            assert len(made.indices("valid", label)) == round(0.3 * n) and n > 5
    assert np.array_equal(sets[0].split, sets[1].split) and not np.array_equal(sets[0].split, sets[2].split)
    assert sets[2].card["seed"] == 1 and sets[2].card["parameters"]["valid_fraction"] == 0.3


def test_only_train_and_test_are_folders(split, tmp_path):
    shutil.copytree(split, tmp_path / "pets", ignore=shutil.ignore_patterns("Val"))
    made = convert(tmp_path / "pets", tmp_path / "set")
    assert [len(made.indices(part)) for part in ("train", "valid", "test")] == [4, 2, 6]


def test_threads_and_batches_change_nothing(flat, tmp_path, monkeypatch):
    monkeypatch.setattr("nrcg.datasets.pictures.BATCH", 5)
    one, four = (convert(flat, tmp_path / str(n), threads=n) for n in (1, 4))
    assert one.card == four.card


def test_other_files_are_passed_over_and_deeper_ones_read(source, tmp_path):
    before = convert(source, tmp_path / "a")
    for name in (".DS_Store", "._0001.jpg", "notes.txt", "drawing.eps", ".cache/0001.jpg"):
        (source / "red" / name).parent.mkdir(exist_ok=True)
        (source / "red" / name).write_bytes(b"?")
    (source / ".git").mkdir()
    (source / "readme.md").write_text("?")
    assert convert(source, tmp_path / "b").card["digest"] == before.card["digest"]
    (source / "red/zz/deep").mkdir(parents=True)
    shutil.copy(source / "red/0001.jpg", source / "red/zz/deep/x.JPG")
    assert convert(source, tmp_path / "c").card["n"] == 24


def test_a_class_may_be_called_train(source):
    (source / "red").rename(source / "train")
    assert check_images("folder", {"source": source}) == ["A grey", "blue", "train"]


def remove(*paths):
    for path in paths:
        shutil.rmtree(path)


def renamed(folder, name):
    shutil.copytree(folder / "red", folder / name)


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


FLAT = {
    "no folder": (shutil.rmtree, "source .*pets: no such folder; name a folder"),
    "no class folder": (lambda s: remove(*s.iterdir()), "source .*pets: holds no class folders; put the pictures"),
    "one class": (
        lambda s: remove(s / "red", s / "A grey"),
        "source .*pets: holds one class folder, blue; it needs two",
    ),
    "empty class": (
        lambda s: (s / "green").mkdir(),
        "source: .*pets/green holds no pictures; add some, or remove",
    ),
    "no picture": (
        lambda s: [(s / "green").mkdir(), (s / "green/a.txt").write_text("?")],
        "source: .*pets/green holds no pictures",
    ),
    "one name": (
        lambda s: renamed(s, "Red"),
        "source .*pets: the classes 'Red' and 'red' have the same name; rename one",
    ),
    "a space": (lambda s: renamed(s, "red "), "the classes 'red' and 'red ' have the same name"),
    "composed": (
        lambda s: [renamed(s, normalize(form, "grün")) for form in ("NFC", "NFD")],
        "the classes 'gru.n' and 'grün' have the same name",
    ),
    "damaged": (
        lambda s: cut(s / "red/0004.png"),
        r"pets/red/0004.png: not a readable image \(.*; repair or remove it",
    ),
    "no image": (lambda s: (s / "red/0004.png").write_text("?"), r"pets/red/0004.png: not a readable image \(cannot"),
    "one image": (
        lambda s: [path.unlink() for path in list((s / "red").iterdir())[1:]],
        "valid_fraction 0.2: class 'red' has 1 image.s., too few for training and validation; add images",
    ),
    "no train": (
        lambda s: [shutil.copytree(s, s.parent / "val"), (s.parent / "val").rename(s / "val")],
        "source .*pets: holds val, but no folder train",
    ),
}
SPLIT = {
    "one class more": (
        lambda s: renamed(s / "Val", "green"),
        "source: .*Val/green has no counterpart in .*train;",
    ),
    "empty class": (
        lambda s: [path.unlink() for path in (s / "test/red").iterdir()],
        "source: .*test/red holds no pictures; add some, or remove",
    ),
    "two": (
        lambda s: shutil.copytree(s / "test", s / "validation"),
        "source .*pets: Val and validation are both for valid; keep one",
    ),
    "train of one class": (lambda s: remove(s / "train/red"), "source .*pets: holds one class folder, blue"),
}


@pytest.mark.parametrize("case", [*FLAT, *(f"split: {case}" for case in SPLIT)])
def test_spoiled_sources_are_named(case, source, split, tmp_path):
    if case.startswith("split: "):
        remove(source)
        shutil.copytree(split, source)
    spoil, message = {**FLAT, **{f"split: {key}": value for key, value in SPLIT.items()}}[case]
    spoil(source)
    with pytest.raises(NrcgError, match=message) as caught:
        convert(source, tmp_path / "set")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set/card.json").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": None}, "folder: source None: must be a path"),
        ({"fit": None}, "fit None: must be one of resize, crop"),
        ({"fit": "stretch"}, "fit 'stretch': must be one of resize, crop"),
        ({"background": "#fff"}, "background '#fff': must be a colour: a name that Pillow knows"),
        ({"valid_fraction": 0}, "valid_fraction 0: must be a finite number above 0 and below 1"),
        ({"valid_fraction": 0.95}, "valid_fraction 0.95: class 'A grey' has 7 image.s., too few"),
        ({"size": [16, "16"]}, "size .*: must be a whole number from 8 to 65536, or two"),
        ({"seed": -1}, "seed -1: must be"),
        ({"classes": ["a", "b"]}, "images: unknown key classes; nearest are"),
    ],
)
def test_bad_values_are_named(flat, tmp_path, settings, message):
    with pytest.raises(NrcgError, match=message):
        make_images("folder", tmp_path / "set", {"source": flat, "size": 16} | settings)


def test_an_unreadable_folder_is_named(source, tmp_path):
    (source / "red/locked").mkdir(mode=0)
    if os.access(source / "red/locked", os.R_OK):
        pytest.skip("this user may read all")
    with pytest.raises(NrcgError, match=r"red/locked: cannot be read \(Permission denied"):
        convert(source, tmp_path / "set")


def described(*words):
    result = CliRunner().invoke(app, ["data", "describe", *map(str, words)])
    return result, result.stdout


def test_describe_says_what_would_be_read(source, tmp_path):
    Image.new("RGBA", (30, 20)).save(source / "red/zz.webp", lossless=True)
    (source / "red/.DS_Store").write_text("?")
    (source / "notes.txt").write_text("?")
    result, text = described(source, "--settings", '{"size": [16, 24]}', "--sheet", tmp_path / "sheet.png")
    assert result.exit_code == 0, result.output
    made = convert(source, tmp_path / "set")
    table = [line.split() for line in text.splitlines()]
    assert ["class", "train", "valid"] in table and ["all", "19", "5"] in table
    for label, name in enumerate(("grey", "blue", "red")):
        counts = [str(len(made.indices(part, label))) for part in ("train", "valid")]
        assert any(row[-3:] == [name, *counts] for row in table), text
    assert len({len(line) for line in text.splitlines()[2:7]}) == 1  # aligned
    assert "24 pictures of 3 classes, valid drawn from train (0.2 of each class)" in text
    assert "min 30×20, median 40×32, max 40×32" in text and "RGB 16, L 7, RGBA 1" in text
    assert "JPEG 12, PNG 11, WEBP 1" in text and "hidden 1" in text and ".txt 1" in text and "no file\n" in text
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000


def test_describe_names_what_cannot_be_read_and_fails(source):
    for i in range(7):
        (source / f"red/broken{i}.png").write_text("?")
    cut(source / "blue/0000.jpg")
    result, text = described(source)
    assert "8 files" in text and "  red/broken0.png: not a readable image" in text and "  and 3 more" in text
    assert "  blue/0000.jpg: not a readable image (image file is truncated" in text
    assert isinstance(result.exception, NrcgError)
    assert str(result.exception) == f"{source}: 8 of 30 pictures cannot be read; repair or remove them"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "source nowhere: no such folder"),
        (["{source}", "--settings", '{"sizes": 3}'], "images: unknown key sizes; nearest are size"),
        (["{source}", "--settings", '{"source": "a"}'], "images: unknown key source"),
    ],
)
def test_describe_refuses_in_one_line(source, words, message):
    result, text = described(*(word.replace("{source}", str(source)) for word in words))
    assert message in str(result.exception) and isinstance(result.exception, NrcgError) and not text


def test_verbs(flat, tmp_path):
    settings = ["--settings", f'{{"source": "{flat}", "size": [16, 24]}}', "--out", str(tmp_path / "set")]
    result = CliRunner().invoke(app, ["data", "make", "folder", *settings])
    assert result.exit_code == 0, result.output
    assert ImageSet.open(tmp_path / "set").images.shape == (23, 16, 24, 3)
    assert (tmp_path / "set/contact_sheet.png").is_file()
    assert "celeba, folder, hub, sportballs, torchvision," in CliRunner().invoke(app, ["data", "make", "--help"]).stdout
