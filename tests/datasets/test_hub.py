import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from functools import partial
from io import BytesIO

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from published_layouts import make_celebahq
from torchvision import transforms
from typer.testing import CliRunner

from nrcg.cli import app
from nrcg.datasets import check_images, make_images
from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError
from nrcg.io.files import sha256


def convert(source, folder, *, threads=0, **settings):
    return make_images("hub", folder, {"source": str(source), "size": 16} | settings, threads=threads)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return make_celebahq(tmp_path_factory.mktemp("hub") / "celeba-hq@main", n_train=13, n_valid=6, size=40)


@pytest.fixture
def source(hub, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(hub, tmp_path / "hub")


def shard(source, name):
    return next(source.rglob(f"{name}-*.parquet"))


def loaded(source, part, cache):
    """What the library's own loader makes of the files: the PIL images and labels of a part."""
    paths = sorted(str(path) for path in source.rglob(f"{part}-*.parquet"))
    rows = datasets.Dataset.from_parquet(paths, cache_dir=str(cache))
    return rows["image"], rows["label"]


@pytest.mark.parametrize("size", [40, 24])
def test_labels_splits_and_pixels_are_those_of_the_librarys_loader(hub, tmp_path, size):
    made = convert(hub, tmp_path / "set", size=size)
    resize = transforms.Resize((size, size))
    for part, split in (("train", "train"), ("validation", "valid")):
        images, labels = loaded(hub, part, tmp_path / "cache")
        chosen = made.indices(split)
        assert np.array_equal(made.images[chosen], [np.asarray(resize(image)) for image in images])
        assert np.array_equal(made.labels[chosen], labels) and set(labels) == {0, 1}
    assert len(made.indices("train")) == 13 and len(made.indices("valid")) == 6 and len(made) == 19


def test_cropped_to_a_rectangle_as_torchvision_does(hub, tmp_path):
    made = convert(hub, tmp_path / "set", size=[24, 16], fit="crop")
    steps = transforms.Compose([transforms.Resize(24), transforms.CenterCrop((24, 16))])
    images, _ = loaded(hub, "validation", tmp_path / "cache")
    assert np.array_equal(made.images[13:], [np.asarray(steps(image)) for image in images])
    assert made.card["size"] == [24, 16]


def test_names_as_labels_and_other_columns_and_splits(source, tmp_path):
    """Sorted names become classes; the validation split is drawn, or another one."""
    words = {path: pq.read_table(path)["label"].to_pylist() for path in source.rglob("*.parquet")}
    for path, labels in words.items():
        rows = pq.read_table(path)["image"].to_pylist()
        table = {"picture": rows, "sex": [["zoe", "Adam"][label] for label in labels]}
        pq.write_table(pa.table(table), path.with_name(path.name.replace("train", "all").replace("validation", "dev")))
        path.unlink()
    columns = {"image": "picture", "label": "sex", "train": "all"}
    made = convert(source, tmp_path / "a", **columns, valid="dev")
    assert made.classes == ["Adam", "zoe"] and len(made.indices("valid")) == 6
    numbers = [label for path in sorted(words) for label in words[path]]
    assert made.labels.tolist() == [1 - label for label in numbers]
    turned = convert(source, tmp_path / "b", **columns, valid="dev", classes=["zoe", "Adam"])
    assert turned.labels.tolist() == numbers and np.array_equal(turned.images, made.images)
    drawn = convert(source, tmp_path / "c", **columns, valid=None, valid_fraction=0.25, seed=3)
    assert len(drawn) == 13 and drawn.card["seed"] == 3
    for label in (0, 1):
        n = int((drawn.labels == label).sum())
        assert len(drawn.indices("valid", label)) == max(1, round(n / 4))
    with pytest.raises(NrcgError, match=r"row \d has sex zoe; name a column of 0 to 1, or the right classes"):
        convert(source, tmp_path / "d", **columns, valid="dev", classes=["Adam", "eve"])


def test_numbers_without_names_ask_for_them(source, tmp_path):
    for path in source.rglob("*.parquet"):
        rewrite(path)
    with pytest.raises(NrcgError, match=r"classes: none, and .*hub has no names for the column label; give names"):
        convert(source, tmp_path / "set")
    assert convert(source, tmp_path / "set", classes=["f", "m"]).classes == ["f", "m"]


def test_card(hub, tmp_path):
    card = convert(hub, tmp_path / "set", classes=["woman", "man"]).card
    assert (card["name"], card["seed"], card["classes"]) == ("hub", None, ["woman", "man"])
    files = {path.name: sha256(path) for path in sorted(hub.rglob("*.parquet"))}
    told = {"image": "image", "label": "label", "fit": "resize", "background": "white", "valid_fraction": None}
    assert card["parameters"] == {**told, "files": files}


def test_no_network_and_no_cache(hub, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address) or [])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    convert(hub, tmp_path / "set", size=16)
    assert not asked and os.listdir(tmp_path) == ["set"]


def test_any_folder_name_will_do(hub, tmp_path):
    strange = tmp_path / ".cache" / "a [1]*?" / "snapshots"
    shutil.copytree(hub / "data", strange)
    assert convert(tmp_path, tmp_path / "set", size=16).card["n"] == 19


def rewrite(path, **columns):
    """Write a parquet file anew, by pyarrow alone, with some columns replaced, or left out where None."""
    table = {name: pq.read_table(path)[name].to_pylist() for name in ("image", "label")} | columns
    pq.write_table(pa.table({name: values for name, values in table.items() if values is not None}), path)


def test_files_of_another_writer(source, tmp_path):
    """Without the library's own notes in the file; grey pictures, encoded as JPEG; an image of another size."""
    encoded = []
    for side in (40, 30, *[40] * 11):
        file = BytesIO()
        Image.fromarray(np.random.default_rng(side).integers(0, 256, (side, side), dtype=np.uint8)).save(file, "JPEG")
        encoded.append({"bytes": file.getvalue(), "path": None})
    path = shard(source, "train-00000")
    rewrite(path, image=encoded[: pq.read_metadata(path).num_rows])
    made = convert(source, tmp_path / "set", size=40, classes=["f", "m"])
    grey = np.asarray(Image.open(BytesIO(encoded[0]["bytes"])).convert("RGB"))
    assert np.array_equal(made.images[0], grey) and made.images[1].shape == (40, 40, 3)


def cut(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def spoil_image(path, value):
    rewrite(
        path, image=[value if row == 2 else image for row, image in enumerate(pq.read_table(path)["image"].to_pylist())]
    )


SPOILED = {
    "no folder": (shutil.rmtree, r"source .*hub: no such folder; name a folder, or a hub id"),
    "no train": (
        lambda s: [path.unlink() for path in s.rglob("train*")],
        r"hub: holds the train files \(none\) of .*nrcg get hub",
    ),
    "no validation": (lambda s: shard(s, "validation").unlink(), r"hub: holds the validation files \(none\) of"),
    "one file less": (
        lambda s: shard(s, "train-00000").unlink(),
        r"hub: holds the train files 1 of .* instead of 0 to 1, each once",
    ),
    "a file twice": (
        lambda s: shutil.copytree(s / "data", s / "old"),
        r"train files 0, 0, 1, 1 of .* instead of 0 to 1, each once",
    ),
    "cut file": (
        lambda s: cut(shard(s, "train-00001")),
        r"train-00001-.*: not a complete parquet file \(Parquet magic",
    ),
    "empty file": (lambda s: cut(shard(s, "train-00001"), 0), r"train-00001-.*: not a complete parquet file"),
    "no label": (
        lambda s: rewrite(shard(s, "validation"), label=None, gender=[0] * 6),
        r"validation-.*: no column 'label'; it has image, gender",
    ),
    "no image": (lambda s: rewrite(shard(s, "validation"), image=None), r"no column 'image'; it has label"),
    "label 2": (
        lambda s: rewrite(shard(s, "validation"), label=[0, 1, 1, 2, 0, 1]),
        r"validation-.*: row 3 has label 2; name a column of 0 to 1, or the right classes",
    ),
    "label -1": (lambda s: rewrite(shard(s, "validation"), label=[-1] * 6), r"validation-.*: row 0 has label -1"),
    "words": (
        lambda s: rewrite(shard(s, "validation"), label=["Male"] * 6),
        r"validation-.*: row 0 has label Male; name a column of 0 to 1",
    ),
    "empty label": (
        lambda s: rewrite(shard(s, "validation"), label=[None, *[1] * 5]),
        r"row 0 has label None; name a col",
    ),
    "broken image": (
        lambda s: spoil_image(shard(s, "train-00001"), {"bytes": b"no image", "path": None}),
        r"train-00001-.*: row 2: not a readable image \(cannot identify",
    ),
    "null image": (
        lambda s: spoil_image(shard(s, "train-00001"), None),
        r"train-00001-.*: row 2: not a readable image",
    ),
    "no struct": (
        lambda s: rewrite(shard(s, "validation"), image=[3] * 6),
        r"validation-.*: row 0: not a readable image",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_spoiled_sources_are_named(case, source, tmp_path):
    spoil, message = SPOILED[case]
    spoil(source)
    with pytest.raises(NrcgError, match=message) as caught:
        convert(source, tmp_path / "set", size=16)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set" / "images.npy").exists() and not (tmp_path / "set" / "card.json").exists()


def test_data_damaged_in_the_middle_is_named(source, tmp_path):
    path = shard(source, "validation")
    data = bytearray(path.read_bytes())
    data[100:3000] = bytes(2900)
    path.write_bytes(data)
    with pytest.raises(NrcgError, match=r"validation-.*: row \d: not a readable image"):
        convert(source, tmp_path / "set", size=16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ["face"]}, r"classes \['face'\]: must be a list of at least 2, each a name"),
        ({"classes": ["face", "Face "]}, r"classes: the classes 'face' and 'Face ' have the same name"),
        ({"classes": ["f", "m"], "source": "owner/name@main"}, "owner/name@main: holds the train files .none. of"),
        ({"source": "owner/name@main"}, "classes: none, and owner/name@main is not downloaded yet"),
        ({"source": "owner"}, "source owner: no such folder; name a folder, or a hub id"),
        ({"label": "gender"}, "no column 'gender'; it has image, label"),
        ({"image": "picture"}, "no column 'picture'; it has image, label"),
        ({"valid": "test"}, r"holds the test files \(none\) of test-….*or name another split"),
        ({"valid": "train"}, "valid train: same as train"),
        ({"fit": "stretch"}, "fit 'stretch': must be one of resize, crop"),
        ({"background": "whitish"}, "background 'whitish': must be a colour"),
        ({"size": 0}, "size 0"),
        ({"size": [16, 16, 16]}, r"size \[16, 16, 16\]: must be a whole number from 8 to 65536, or two"),
        ({"size": [16, 7]}, r"size \[16, 7\]: must be"),
    ],
)
def test_bad_values_are_named(arguments, message, hub, tmp_path):
    with pytest.raises(NrcgError, match=message):
        convert(**{"source": hub, "folder": tmp_path / "set", **arguments})
    assert not (tmp_path / "set").exists()


def test_threads_change_nothing(hub, tmp_path):
    one, three = (convert(hub, tmp_path / str(n), size=24, threads=n) for n in (1, 3))
    assert one.card == three.card and np.array_equal(one.images, three.images)


def test_checks_touch_no_image(hub):
    for source in (str(hub), "owner/some-name", "owner/name@a/branch"):
        assert check_images("hub", {"source": source, "classes": ["f", "m"]}) == ["f", "m"]
    for source in ("./owner/name", "~/name", "/owner/name", "a/b/c", "", None):
        with pytest.raises(NrcgError, match="source"):
            check_images("hub", {"source": source})
    assert check_images("hub", {"source": str(hub)}) == ["female", "male"]  # from the hub's notes


def test_verb(hub, tmp_path):
    settings = json.dumps({"source": str(hub), "size": 20, "classes": ["f", "m"], "label": "label"})
    options = ["--settings", settings, "--out", str(tmp_path / "set")]
    result = CliRunner().invoke(app, ["data", "make", "hub", *options])
    assert result.exit_code == 0, result.output
    made = ImageSet.open(tmp_path / "set")
    assert made.images.shape == (19, 20, 20, 3) and made.classes == ["f", "m"]
    assert (tmp_path / "set" / "contact_sheet.png").is_file()


def test_full_disk_is_one_line_and_leaves_no_half_file(hub, tmp_path):
    settings = json.dumps({"source": str(hub), "size": 32})
    command = [sys.executable, "-m", "nrcg.cli", "data", "make", "hub", "--settings", settings]
    command += ["--out", tmp_path / "set"]
    small_disk = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (30_000, 30_000))  # the images need 58 496 bytes
    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_disk)
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if line and "Images:" not in line]
    assert len(lines) == 1 and lines[0].startswith("error: ") and "images.npy: cannot be written (File too" in lines[0]
    assert os.listdir(tmp_path / "set") == []


def named(source, names, part=""):
    """The files with other names for the labels in the hub's own metadata."""
    for path in source.rglob(f"{part}*.parquet"):
        table = pq.read_table(path)
        metadata = json.loads(table.schema.metadata[b"huggingface"])
        metadata["info"]["features"]["label"]["names"] = names
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(metadata)}), path)


def test_classes_in_another_order_than_the_files_own_names_are_refused(source, tmp_path):
    named(source, ["Male", "Female"])
    with pytest.raises(
        NrcgError,
        match=r"classes female, male: .*order of the labels in .*train-00000-.* is Male, Female; give them",
    ):
        convert(source, tmp_path / "set", size=8, classes=["female", "male"])
    assert convert(source, tmp_path / "set", size=8, classes=["male", "female"]).classes == ["male", "female"]
    named(source, ["female", "male"], "train")
    with pytest.raises(NrcgError, match=r"classes female, male: .*validation-.* Male, Female"):
        convert(source, tmp_path / "set", size=8)  # by the notes of its first file


def test_other_words_for_the_classes_are_said(source, tmp_path, caplog):
    convert(source, tmp_path / "set", size=8, classes=["woman", "man"])
    assert "names its classes female, male; the config names them woman, man" in caplog.text
