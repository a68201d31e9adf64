import hashlib
import json
import pickle
import shutil

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from published_layouts import make_mnist
from scipy.io import savemat
from torchvision import transforms
from torchvision.datasets import CIFAR10, EMNIST, SVHN, FashionMNIST, Flowers102
from typer.testing import CliRunner

from nrcg.cli import app
from nrcg.datasets import check_images, make_images
from nrcg.datasets.torchvision_sets import KNOWN, download_torchvision
from nrcg.errors import NrcgError

DIGITS = [str(i) for i in range(10)]


def convert(name, source, folder, *, threads=0, **settings):
    return make_images(
        "torchvision", folder, {"name": name, "source": str(source), "size": 16} | settings, threads=threads
    )


def read(*parts, size=16, before=()):
    """torchvision's own reader: uint8 N×H×W×3 and labels, one part after the other."""
    steps = transforms.Compose([*before, transforms.Resize((size, size)), transforms.PILToTensor()])
    rows = [(steps(image.convert("RGB")), label) for part in parts for image, label in part]
    return np.stack([image.permute(1, 2, 0).numpy() for image, _ in rows]), [label for _, label in rows]


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    return make_mnist(tmp_path_factory.mktemp("fashion") / "root")


@pytest.fixture
def root(fashion, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(fashion, tmp_path / "root")


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def colours(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """CIFAR-10's layout with few images, and the digests that torchvision wants of it."""
    folder = tmp_path / "cifar" / CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, md5(folder / name)]

    def batch(i):
        return {"data": colours(4, i).transpose(0, 3, 1, 2).reshape(4, -1), "labels": [i, 9, 3, 3]}

    monkeypatch.setattr(CIFAR10, "train_list", [write(f"data_batch_{i}", batch(i)) for i in (1, 2)])
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", batch(5))])
    name, digest = write("batches.meta", {"label_names": KNOWN["CIFAR10"]})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": digest})
    return folder.parent


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    """SVHN's layout with few images, and the digests that torchvision wants of it."""
    folder, listed = tmp_path / "svhn", {}
    folder.mkdir()
    for part, n in (("train", 7), ("test", 5), ("extra", 40)):
        path = folder / f"{part}_32x32.mat"
        savemat(path, {"X": colours(n).transpose(1, 2, 3, 0), "y": np.arange(n)[:, None] % 10 + 1})
        listed[part] = ["http://127.0.0.1:1/x", path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", listed)
    return folder


@pytest.mark.parametrize("padding", [0, 3])
def test_pixels_labels_and_order_are_torchvisions(fashion, tmp_path, padding):
    made = convert("FashionMNIST", fashion, tmp_path / "set", padding=padding)
    parts = FashionMNIST(fashion, train=True), FashionMNIST(fashion, train=False)
    images, labels = read(*parts, before=[transforms.Pad(padding)])
    assert np.array_equal(made.images, images) and made.labels.tolist() == labels
    assert made.split.tolist() == [0] * 30 + [1] * 15 and made.classes == FashionMNIST.classes
    assert made.card["seed"] is None and made.card["parameters"]["padding"] == padding


def test_padding_has_its_colour_and_grey_is_rgb(fashion, tmp_path):
    made = convert("FashionMNIST", fashion, tmp_path / "set", padding=2, size=32, background="#102030")
    raw = np.frombuffer((fashion / "FashionMNIST/raw/train-images-idx3-ubyte").read_bytes()[16:], np.uint8)
    assert np.array_equal(made.images[:30, 2:-2, 2:-2], raw.reshape(30, 28, 28)[..., None].repeat(3, -1))
    assert (made.images[:, :2] == [16, 32, 48]).all() and (made.images[:, :, -2:] == [16, 32, 48]).all()


def test_cropped_to_a_rectangle(fashion, tmp_path):
    made = convert("FashionMNIST", fashion, tmp_path / "set", size=[24, 16], fit="crop")
    part = FashionMNIST(fashion, train=True)
    steps = transforms.Compose([transforms.Resize(24), transforms.CenterCrop((24, 16))])
    assert np.array_equal(made.images[:30, ..., 0], [np.asarray(steps(image)) for image, _ in part])


def test_cifar(cifar, tmp_path):
    made = convert("CIFAR10", cifar, tmp_path / "set", size=32)
    assert np.array_equal(made.images, np.concatenate([colours(4, i) for i in (1, 2, 5)]))
    assert made.labels.tolist() == [1, 9, 3, 3, 2, 9, 3, 3, 5, 9, 3, 3] and made.classes[3] == "cat"
    assert made.split.tolist() == [0] * 8 + [1] * 4


@pytest.mark.parametrize("name", ["data_batch_2", "batches.meta"])
def test_a_pickle_of_anothers_is_not_opened(cifar, tmp_path, name):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    (cifar / CIFAR10.base_folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(NrcgError, match=r"source .*cifar: CIFAR10 cannot be read there \(.* not found or corrupted.\)"):
        convert("CIFAR10", cifar, tmp_path / "set")
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(NrcgError, match="name 'LSUN'"):  # opens one that nothing checks
        check_images("torchvision", {"name": "LSUN"})


def test_svhn_has_no_names_and_splits_by_word(svhn, tmp_path):
    with pytest.raises(NrcgError, match="classes: SVHN has no class names; give them"):
        check_images("torchvision", {"name": "SVHN", "source": str(svhn)})
    made = convert("SVHN", svhn, tmp_path / "set", classes=DIGITS)
    images, labels = read(SVHN(svhn, "train"), SVHN(svhn, "test"))
    assert np.array_equal(made.images, images) and made.labels.tolist() == labels == [
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        1,
        2,
        3,
        4,
        5,
    ]
    assert len(made.indices("valid")) == 5


def test_a_split_among_the_arguments_is_split_by_us(svhn, tmp_path):
    extra = {"classes": DIGITS, "arguments": {"split": "extra"}}
    made = convert("SVHN", svhn, tmp_path / "set", **extra, valid_fraction=0.25, seed=4)
    assert [len(made.indices("valid", label)) for label in range(10)] == [1] * 10 and len(made) == 40
    assert made.card["seed"] == 4 and made.card["parameters"]["arguments"] == {"split": "extra"}


def test_emnist_has_both_kinds_of_splits(fashion, tmp_path):
    raw = shutil.copytree(fashion / "FashionMNIST/raw", tmp_path / "root/EMNIST/raw")
    for path in list(raw.iterdir()):
        path.rename(raw / f"emnist-digits-{path.name.replace('t10k', 'test')}")
    made = convert("EMNIST", tmp_path / "root", tmp_path / "set", arguments={"split": "digits"})
    parts = [EMNIST(tmp_path / "root", split="digits", train=train) for train in (True, False)]
    assert np.array_equal(made.images, read(*parts)[0]) and made.classes == DIGITS


class Some(Flowers102):
    """A set of three splits, one of them of validation; of RGBA and without a list of labels."""

    def __init__(self, root, split="train", transform=None, target_transform=None, download=False):
        torchvision.datasets.utils.verify_str_arg(split, "split", ("train", "val", "test"))
        self.part, self.classes = ("train", "val", "test").index(split), [("a", "b"), "c"]

    def __len__(self):
        return 3

    def __getitem__(self, i):
        if i > 2:
            raise IndexError(i)
        return Image.new("RGBA", (20, 10), (200, 100, 50, 51 * self.part)), i % 2


def test_a_validation_split_goes_before_test_and_transparency_is_laid_over(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "Flowers102", Some)
    monkeypatch.setattr(Some, "classes", None)
    made = convert("Flowers102", tmp_path, tmp_path / "set", background="white")
    assert made.split.tolist() == [0] * 3 + [1] * 3 and made.labels.tolist() == [0, 1, 0] * 2
    assert made.classes == ["a, b", "c"]
    assert (made.images[:3] == 255).all() and np.allclose(made.images[3:], [244, 224, 214], atol=1)


@pytest.mark.parametrize(
    "item",
    [
        lambda image: (image, [1, 0]),
        lambda image: (image, "a caption"),
        lambda image: (image, None),
        lambda image: (np.asarray(image), 1),
        lambda image: (image, image, 1),
        lambda image: image,
    ],
)
def test_labels_must_be_classes(tmp_path, monkeypatch, item):
    monkeypatch.setattr(torchvision.datasets, "Flowers102", Some)
    monkeypatch.setattr(Some, "__getitem__", lambda self, i: item(Image.new("L", (9, 9))))
    with pytest.raises(
        NrcgError, match="name Flowers102: the label of image 0 is not an integer; choose a data set of c"
    ):
        convert("Flowers102", tmp_path, tmp_path / "set", classes=["a", "b"])


def test_threads_and_batches_change_nothing(fashion, tmp_path, monkeypatch):
    monkeypatch.setattr("nrcg.datasets.pictures.BATCH", 7)
    one, four = (convert("FashionMNIST", fashion, tmp_path / str(n), threads=n) for n in (1, 4))
    assert one.card == four.card


def test_own_names_in_another_order_are_refused_and_others_said(fashion, tmp_path, caplog):
    with pytest.raises(
        NrcgError, match=r"classes Ankle boot, Bag.*: the order of the labels in FashionMNIST is T-shirt/top, Trouser"
    ):
        convert("FashionMNIST", fashion, tmp_path / "set", classes=FashionMNIST.classes[::-1])
    convert("FashionMNIST", fashion, tmp_path / "set", classes=DIGITS)
    assert "FashionMNIST names its classes T-shirt/top, " in caplog.text


def test_check_needs_no_files():
    assert check_images("torchvision", {"name": "FashionMNIST"}) == FashionMNIST.classes
    assert check_images("torchvision", {"name": "KMNIST"})[:2] == ["o", "ki"]
    assert check_images("torchvision", {"name": "CIFAR10"})[0] == "airplane"
    assert check_images("torchvision", {"name": "EMNIST", "arguments": {"split": "letters"}})[:2] == ["N/A", "a"]
    assert check_images("torchvision", {"name": "SVHN", "classes": DIGITS}) == DIGITS


WRONG = {
    "unknown name": (
        {"name": "FashionMnist"},
        "name 'FashionMnist': no supported data set .*; nearest are FashionMNIST, ",
    ),
    "no root": ({"name": "FakeData"}, "name 'FakeData': no supported data set of torchvision"),
    "no name": ({"name": ""}, "name '': must be a name"),
    "no source": (
        {"source": None},
        "source: missing; name a folder with FashionMNIST, as made by `nrcg get torchvision Fash",
    ),
    "no folder": ({"source": "nowhere"}, "source nowhere: no such folder; fetch FashionMNIST to it with `nrcg get tor"),
    "no files": ({"name": "MNIST"}, r"source .*: MNIST cannot be read there \(Dataset not found.\); fetch it with"),
    "no data set": ({"name": "VisionDataset", "classes": ["a", "b"]}, r"cannot be read there \(NotImplementedError\)"),
    "argument": ({"arguments": {"trian": 1}}, "arguments: FashionMNIST has no trian here; use none"),
    "ours": ({"arguments": {"download": True}}, "arguments: FashionMNIST has no download here"),
    "near": ({"name": "EMNIST", "arguments": {"spilt": "x"}}, "arguments: EMNIST has no spilt here; use split"),
    "lacking": (
        {"name": "EMNIST"},
        "arguments: EMNIST needs split, see https://docs.pytorch.org/.*EMNIST.html",
    ),
    "no object": ({"arguments": ["a"]}, "arguments .*: must be an object"),
    "one class": ({"classes": ["a"]}, "classes .*: must be a list of at least 2"),
    "one name": ({"classes": ["a", "A"]}, "classes: the classes 'a' and 'A' have the same name"),
    "too few names": ({"classes": ["a", "b"]}, "classes: 2 names, but FashionMNIST has a label 9; name all classes"),
    "padding": ({"padding": -1}, "padding -1: must be"),
    "size": ({"size": 7}, "size 7: must be a whole number from 8 to 65536, or two"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_values_are_named(fashion, tmp_path, case):
    settings, message = WRONG[case]
    with pytest.raises(NrcgError, match=message) as caught:
        make_images("torchvision", tmp_path / "set", {"name": "FashionMNIST", "source": str(fashion)} | settings)
    assert "\n" not in str(caught.value) and not (tmp_path / "set").exists()


def test_damaged_files_are_one_line(root, tmp_path):
    path = root / "FashionMNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(NrcgError, match=r"source .*root: FashionMNIST cannot be read there \(.*\); fetch it with"):
        convert("FashionMNIST", root, tmp_path / "set")


def get(*words):
    result = CliRunner().invoke(app, ["get", "torchvision", *map(str, words)])
    return result.exception if result.exception else None


def test_nothing_is_fetched_that_is_there(root, monkeypatch):
    monkeypatch.setattr(FashionMNIST, "download", lambda self: 1 / 0)
    assert get("FashionMNIST", "--out", root) is None
    record = root / "FashionMNIST.json"
    assert json.loads(record.read_text()) == {"name": "FashionMNIST", "arguments": {}, "images": [30, 15]}
    before = record.stat().st_mtime_ns
    assert get("FashionMNIST", "--out", root) is None and record.stat().st_mtime_ns == before


def test_both_parts_are_fetched_and_a_whole_set_is_made(svhn, tmp_path, monkeypatch):
    def download(self):
        shutil.copy(svhn / self.filename, self.root)

    monkeypatch.setattr(SVHN, "download", download)
    assert get("SVHN", "--out", tmp_path / "below/root") is None
    assert sorted(path.name for path in (tmp_path / "below/root").iterdir()) == [
        "SVHN.json", "test_32x32.mat", "train_32x32.mat",
    ]  # fmt: skip
    made = convert("SVHN", tmp_path / "below/root", tmp_path / "set", classes=DIGITS)
    assert len(made) == 12
    assert get("SVHN", "--out", tmp_path / "extra", "--arguments", '{"split": "extra"}') is None
    assert json.loads((tmp_path / "extra/SVHN.json").read_text())["images"] == [40]


def test_without_a_network_it_says_what_to_do_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:1/mirror/"])
    error = get("FashionMNIST", "--out", tmp_path / "root")
    assert isinstance(error, NrcgError) and "\n" not in str(error)
    assert str(error).startswith(f"{tmp_path}/root: FashionMNIST cannot be fetched (Error downloading train-images")
    for part in ("by hand from http://127.0.0.1:1/mirror/", "generated/torchvision.datasets.FashionMNIST.html"):
        assert part in str(error)
    assert not (tmp_path / "root/FashionMNIST.json").exists()


def test_download_knows_the_name_and_its_arguments(tmp_path):
    with pytest.raises(NrcgError, match=r"name 'FashionMist': .*nearest are FashionMNIST"):
        download_torchvision("FashionMist", tmp_path / "root", {})
    assert "EMNIST needs split" in str(get("EMNIST", "--out", tmp_path / "root"))
    assert not (tmp_path / "root").exists()
