import hashlib
import inspect
import json
import os
import resource
import shutil
import subprocess
import sys
from functools import partial

import gdown
import numpy as np
import pandas
import pytest
from PIL import Image
from published_layouts import make_celeba
from torchvision import transforms
from torchvision.datasets import CelebA
from torchvision.datasets.utils import USER_AGENT
from typer.testing import CliRunner

from nrcg.checks import sides
from nrcg.cli import app
from nrcg.datasets import check_images, make_images
from nrcg.datasets.celeba import download_celeba
from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError
from nrcg.io.files import sha256

ATTRIBUTES, PARTITION, IMAGES = "list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"


def convert(source, folder, *, threads=0, **settings):
    return make_images("celeba", folder, {"source": source, **settings}, threads=threads)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return make_celeba(tmp_path_factory.mktemp("official") / "celeba", n=24)


@pytest.fixture
def source(official, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(official, tmp_path / "celeba")


@pytest.fixture(scope="module")
def faces(official, tmp_path_factory):
    return convert(official, tmp_path_factory.mktemp("faces"), size=32)


def reference(official, monkeypatch, split, transform):
    """torchvision's reader on the same files: uint8 N×H×W×3, and the attributes by name."""
    monkeypatch.setattr(CelebA, "_check_integrity", lambda self: True)
    steps = transforms.Compose([transform, transforms.PILToTensor()])
    rows = CelebA(official.parent, split=split, transform=steps)
    return np.stack([image.permute(1, 2, 0).numpy() for image, _ in rows]), rows.attr.numpy(), rows.attr_names


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_labels_splits_and_pixels_are_torchvisions(official, faces, monkeypatch, split):
    images, attributes, names = reference(official, monkeypatch, split, transforms.Resize((32, 32)))
    chosen = faces.indices(split)
    assert np.array_equal(faces.images[chosen], images)
    assert np.array_equal(faces.labels[chosen], attributes[:, names.index("Male")])
    assert set(faces.labels[chosen]) == {0, 1}


@pytest.mark.parametrize(("crop", "size"), [(140, 64), (101, 24), (178, 178), (101, (40, 24))])
def test_crop_is_torchvisions(official, tmp_path, monkeypatch, crop, size):
    cropped = convert(official, tmp_path, size=size, crop=crop)
    steps = transforms.Compose([transforms.CenterCrop(crop), transforms.Resize(sides(size))])
    assert np.array_equal(cropped.images, reference(official, monkeypatch, "all", steps)[0])
    assert cropped.card["parameters"]["crop"] == crop


def test_threads_and_batches_change_nothing(official, faces, tmp_path, monkeypatch):
    monkeypatch.setattr("nrcg.datasets.pictures.BATCH", 5)
    for threads in (1, 3):
        assert convert(official, tmp_path / str(threads), size=32, threads=threads).card == faces.card


def test_card(official, faces):
    assert (faces.card["name"], faces.card["seed"], faces.classes) == ("celeba", None, ["female", "male"])
    files = {name: sha256(official / name) for name in (ATTRIBUTES, PARTITION)}
    assert faces.card["parameters"] == {"attribute": "Male", "crop": None, "files": files}


def test_order_is_the_partitions_and_rows_are_joined_by_name(source, faces, tmp_path):
    lines = (source / PARTITION).read_text().splitlines()
    (source / PARTITION).write_text("\r\n".join(reversed(lines)) + "\r\n\r\n")
    count, header, *rows = (source / ATTRIBUTES).read_text().splitlines()
    (source / ATTRIBUTES).write_text("\n".join([count, header, *rows[7:], *rows[:7]]))
    turned = convert(source, tmp_path / "set", size=32)
    assert np.array_equal(turned.images, faces.images[::-1])
    assert np.array_equal(turned.labels, faces.labels[::-1]) and np.array_equal(turned.split, faces.split[::-1])


def test_another_attribute_and_a_grey_image(source, tmp_path):
    Image.open(source / IMAGES / "000003.jpg").convert("L").save(source / IMAGES / "000003.jpg")
    smiles = convert(source, tmp_path / "set", size=16, attribute="Smiling", classes=("serious", "smiling"))
    table = pandas.read_csv(source / ATTRIBUTES, sep=r"\s+", skiprows=1)
    assert np.array_equal(smiles.labels, table["Smiling"] == 1) and smiles.classes == ["serious", "smiling"]
    assert np.array_equal(smiles.images[2, ..., 0], smiles.images[2, ..., 1])


def replace(path, old, new):
    """Put `new` for the first `old` of a file."""
    before = path.read_bytes()
    assert old in before
    path.write_bytes(before.replace(old, new, 1))


SPOILED = {
    "no attributes": (
        lambda s: (s / ATTRIBUTES).unlink(),
        rf"source: no .*{ATTRIBUTES}; get .*nrcg get celeba",
    ),
    "no partition": (
        lambda s: (s / PARTITION).unlink(),
        rf"source: no .*{PARTITION}; get .*projects/CelebA",
    ),
    "no folder": (shutil.rmtree, "source: no .*celeba; get CelebA from"),
    "no images": (lambda s: shutil.rmtree(s / IMAGES), rf"source: no .*{IMAGES}; get CelebA from"),
    "no image": (
        lambda s: [(s / IMAGES / f"{i:06d}.jpg").unlink() for i in (20, 7)],
        rf"{IMAGES}: lacks 2 of the 24 images of {PARTITION}, e.g. 000007.jpg; delete the folder",
    ),
    "no row": (
        lambda s: replace(s / ATTRIBUTES, b"000009.jpg", b"000099.jpg"),
        rf"{ATTRIBUTES}: no row for 000009.jpg of {PARTITION}",
    ),
    "one name more": (
        lambda s: replace(s / ATTRIBUTES, b"Male ", b"Male Pale "),
        rf"{ATTRIBUTES}: the row of 000001.jpg is not a new image and its 41 value",
    ),
    "cut attributes": (
        lambda s: (s / ATTRIBUTES).write_bytes((s / ATTRIBUTES).read_bytes()[:-40]),
        rf"{ATTRIBUTES}: the row of 000024.jpg is not a new image and its 40 value",
    ),
    "fewer rows": (lambda s: replace(s / ATTRIBUTES, b"24", b"25"), rf"{ATTRIBUTES}: states 25 images, lists 24"),
    "not the list": (
        lambda s: (s / ATTRIBUTES).write_text("<html>\nQuota exceeded"),
        rf"{ATTRIBUTES}: not CelebA's list",
    ),
    "binary": (lambda s: (s / ATTRIBUTES).write_bytes(bytes(range(256))), rf"{ATTRIBUTES}: not UTF-8 text"),
    "empty attributes": (lambda s: (s / ATTRIBUTES).write_text(""), rf"{ATTRIBUTES}: not CelebA's list"),
    "empty partition": (
        lambda s: (s / PARTITION).write_text("\n"),
        rf"{PARTITION}: the row of no image is not a new image",
    ),
    "wrong split": (
        lambda s: replace(s / PARTITION, b"4.jpg 0", b"4.jpg 3"),
        rf"{PARTITION}: the row of 000004.jpg is not .* with 0 or 1 or 2 for split",
    ),
    "no split": (lambda s: replace(s / PARTITION, b"4.jpg 0", b"4.jpg"), rf"{PARTITION}: the row of 000004.jpg is not"),
    "one value more": (
        lambda s: replace(s / PARTITION, b"4.jpg 0", b"4.jpg 0 0"),
        rf"{PARTITION}: a row .*line 4.* is not a new image and its 1 value",
    ),
    "one value more at once": (
        lambda s: replace(s / PARTITION, b"1.jpg 0", b"1.jpg 0 0"),
        rf"{PARTITION}: a row .* is not a new image and its 1 value",
    ),
    "image twice": (
        lambda s: replace(s / PARTITION, b"05.jpg", b"04.jpg"),
        rf"{PARTITION}: the row of 000004.jpg is not a new",
    ),
    "truncated image": (
        lambda s: (s / IMAGES / "000011.jpg").write_bytes((s / IMAGES / "000011.jpg").read_bytes()[:1500]),
        r"000011.jpg: not a readable image \(image file is truncated",
    ),
    "no JPEG": (
        lambda s: (s / IMAGES / "000011.jpg").write_text("?"),
        r"000011.jpg: not a readable image \(cannot iden",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_spoiled_sources_are_named(case, source, tmp_path):
    spoil, message = SPOILED[case]
    spoil(source)
    with pytest.raises(NrcgError, match=message) as caught:
        convert(source, tmp_path / "set", size=16)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_a_value_that_is_not_one_is_named(source, tmp_path):
    count, header, *rows = (source / ATTRIBUTES).read_text().splitlines()
    words = rows[5].split()
    words[1 + header.split().index("Male")] = "0"
    (source / ATTRIBUTES).write_text("\n".join([count, header, *rows[:5], " ".join(words), *rows[6:]]))
    with pytest.raises(NrcgError, match=rf"{ATTRIBUTES}: the row of 000006.jpg is not .* with -1 or 1 for Male"):
        convert(source, tmp_path / "set")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attribute": "male"}, "attribute 'male': not among the 40 of .*nearest are Male, "),
        ({"classes": ["face"]}, r"classes \['face'\]: must be two different names"),
        ({"classes": ["a", "a"]}, "classes .*: must be two different names"),
        ({"classes": ["a", "b", "c"]}, "classes .*: must be two different names"),
        ({"classes": "ab"}, "classes 'ab': must be two different names"),
        ({"source": None}, "source: missing; name a folder in CelebA's layout"),
        ({"source": 3}, "source 3: must be a path, or null"),
        ({"crops": 3}, "images: unknown key crops; nearest are crop"),
        ({"crop": 179}, r"crop 179: larger than .*000001.jpg, 178×218; lower it"),
        ({"crop": 0}, "crop 0: must be"),
        ({"size": 0}, "size 0"),
    ],
)
def test_bad_values_are_named(arguments, message, official, tmp_path):
    with pytest.raises(NrcgError, match=message) as caught:
        convert(**{"source": official, "folder": tmp_path / "set", **arguments})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_a_broken_image_late_in_the_set_leaves_no_half_file(source, tmp_path, monkeypatch):
    monkeypatch.setattr("nrcg.datasets.pictures.BATCH", 5)
    convert(source, tmp_path / "set", size=16)
    before = (tmp_path / "set" / "images.npy").read_bytes()
    (source / IMAGES / "000023.jpg").write_bytes(b"")
    with pytest.raises(NrcgError, match=r"000023\.jpg"):
        convert(source, tmp_path / "set", size=24)
    assert sorted(os.listdir(tmp_path / "set")) == ["images.npy", "labels.npy", "split.npy"]
    assert (tmp_path / "set" / "images.npy").read_bytes() == before


def test_checks_touch_no_image(official):
    assert check_images("celeba", {"source": str(official), "classes": ["f", "m"]}) == ["f", "m"]
    assert check_images("celeba", {}) == ["female", "male"]
    with pytest.raises(NrcgError, match="source: no nowhere; get CelebA"):
        check_images("celeba", {"source": "nowhere"})


def test_verb(official, tmp_path):
    settings = {"source": str(official), "size": 24, "attribute": "Young", "crop": 150, "classes": ["old", "young"]}
    options = ["--settings", json.dumps(settings), "--out", str(tmp_path / "set"), "--threads", "1"]
    result = CliRunner().invoke(app, ["data", "make", "celeba", *options])
    assert result.exit_code == 0, result.output
    made = ImageSet.open(tmp_path / "set")
    assert made.images.shape == (24, 24, 24, 3) and made.classes == ["old", "young"]
    assert made.card["parameters"]["attribute"] == "Young" and made.card["parameters"]["crop"] == 150
    assert (tmp_path / "set" / "contact_sheet.png").is_file()


def test_full_disk_is_one_line_and_leaves_no_half_file(official, tmp_path):
    command = [sys.executable, "-m", "nrcg.cli", "data", "make", "celeba", "--out", tmp_path / "set", "--settings"]

    def run(size):
        limit = 250_000  # bytes a file may have; 24 images of 16×16 need 18 560, of 64×64 need 295 040
        small_disk = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
        settings = json.dumps({"source": str(official), "size": size})
        return subprocess.run([*command, settings], capture_output=True, text=True, preexec_fn=small_disk)

    assert run(16).returncode == 0
    before = (tmp_path / "set" / "images.npy").read_bytes()
    result = run(64)
    assert result.returncode == 2
    assert [line for line in result.stderr.splitlines() if line and "CelebA:" not in line] == [
        f"error: {tmp_path}/set/images.npy: cannot be written (File too large); free some space or choose another "
        "folder, then run again"
    ]
    assert (tmp_path / "set" / "images.npy").read_bytes() == before
    assert not [name for name in os.listdir(tmp_path / "set") if name.startswith(".")]


@pytest.fixture
def drive(official, tmp_path, monkeypatch):
    """Google's drive with our small files on it: what gdown was asked for, in order."""
    shelf, asked = tmp_path / "drive", []
    shutil.copytree(official, shelf, ignore=shutil.ignore_patterns("*.jpg", IMAGES))
    shutil.make_archive(shelf / IMAGES, "zip", official, IMAGES)
    listed = [(f"id of {path.name}", hashlib.md5(path.read_bytes()).hexdigest(), path.name) for path in shelf.iterdir()]
    monkeypatch.setattr(CelebA, "file_list", listed)

    def fetch(*arguments, **options):
        options = inspect.signature(real).bind(*arguments, **options).arguments
        asked.append(options["id"])
        shutil.copy(shelf / options["id"].removeprefix("id of "), options["output"])

    real = gdown.download
    monkeypatch.setattr(gdown, "download", fetch)
    return asked


def test_download(drive, faces, tmp_path):
    out = tmp_path / "below" / "celeba"
    download_celeba(out)
    assert convert(out, tmp_path / "set", size=32).card == faces.card
    assert len(drive) == 6
    download_celeba(out)
    assert len(drive) == 6  # nothing is fetched twice


def test_download_goes_on_where_files_lack(drive, tmp_path):
    out = tmp_path / "celeba"
    download_celeba(out)
    shutil.rmtree(out / IMAGES)
    (out / PARTITION).unlink()
    download_celeba(out)
    assert drive[6:] == [f"id of {PARTITION}"]
    (out / IMAGES / "000002.jpg").unlink()  # as after a kill while unpacking
    with pytest.raises(NrcgError, match=r"lacks 1 of the 24 images .* delete the folder"):
        download_celeba(out)


def test_files_put_by_hand_are_taken(official, monkeypatch):
    monkeypatch.setattr(gdown, "download", lambda **_: 1 / 0)
    download_celeba(official)


@pytest.mark.parametrize(
    ("fetch", "reason"),
    [
        (lambda **_: (_ for _ in ()).throw(gdown.exceptions.FileURLRetrievalError("Quota\n\n\texceeded")), "Quota exc"),
        (lambda output, **_: open(output, "w").close(), "File not found or corrupted"),
        (lambda **_: (_ for _ in ()).throw(ConnectionError()), "ConnectionError"),
    ],
)
def test_failed_download_says_what_to_do_by_hand(fetch, reason, tmp_path, monkeypatch):
    monkeypatch.setattr(gdown, "download", fetch)
    with pytest.raises(NrcgError, match=rf"celeba: CelebA cannot be fetched \({reason}") as caught:
        download_celeba(tmp_path / "celeba")
    message = str(caught.value)
    assert "\n" not in message and "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html" in message
    assert all(name in message for name in (ATTRIBUTES, PARTITION, f"{IMAGES}.zip", str(tmp_path / "celeba")))


def test_failed_download_leaves_no_fragment(tmp_path, monkeypatch):
    def fetch(output, **_):
        (tmp_path / "celeba" / f"{output}abcdefgh.part").write_text("half")
        raise gdown.exceptions.DownloadError("broken off")

    monkeypatch.setattr(gdown, "download", fetch)
    (tmp_path / "celeba").mkdir()
    (tmp_path / "celeba" / "mine.part").write_text("not gdown's")
    with pytest.raises(NrcgError, match="broken off"):
        download_celeba(tmp_path / "celeba")
    assert os.listdir(tmp_path / "celeba") == ["mine.part"]


def test_download_wants_a_folder_called_celeba(tmp_path):
    with pytest.raises(NrcgError, match=r"faces: .* named celeba"):
        download_celeba(tmp_path / "faces")


def test_gdown_takes_what_torchvision_gives():
    inspect.signature(gdown.download).bind(id="x", output="y", quiet=False, user_agent=USER_AGENT)


def test_lists_may_begin_with_a_byte_order_mark(tmp_path):
    make_celeba(tmp_path / "celeba", n=10)
    plain = convert(tmp_path / "celeba", tmp_path / "plain", size=8)
    for name in (ATTRIBUTES, PARTITION):
        path = tmp_path / "celeba" / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    marked = convert(tmp_path / "celeba", tmp_path / "marked", size=8)
    assert np.array_equal(plain.images, marked.images) and np.array_equal(plain.labels, marked.labels)
