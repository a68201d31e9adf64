import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image, ImageDraw

from nrcg.datasets import check_images, kinds, make_images
from nrcg.datasets.imageset import ImageSet, write_image_set
from nrcg.datasets.sportballs import ICONS, SportBalls
from nrcg.errors import NrcgError
from nrcg.io.arrays import write_array
from nrcg.io.files import sha256, write_json
from nrcg.plots.samples import plot_contact_sheet


def generate(folder, **settings):
    return make_images("sportballs", folder, settings)


def icons_of(folder):
    """The icons of a folder as SportBalls takes them: RGBA by name."""
    return SportBalls(icons=folder)._icons


def box(image: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, width and height of what is not nearly white."""
    rows, columns = (np.flatnonzero((image < 240).any(axis=axis)) for axis in [(1, 2), (0, 2)])
    return columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1


BALLS = ("baseball", "basketball", "soccer", "volleyball")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("small") / "set", n=150, seed=3)


def test_same_seed_same_bytes(small, tmp_path):
    again, other = generate(tmp_path / "again", n=150, seed=3), generate(tmp_path / "other", n=150, seed=4)
    assert again.card == small.card
    assert np.array_equal(again.images, small.images)
    assert other.card["digest"] != small.card["digest"]


def test_written_in_batches_like_in_one_piece(small, tmp_path, monkeypatch):
    monkeypatch.setattr("nrcg.datasets.pictures.BATCH", 40)
    assert generate(tmp_path / "set", n=150, seed=3).card == small.card


def test_image_depends_on_seed_and_index_alone(small, tmp_path):
    fresh = SportBalls(seed=3)
    for i in (149, 7, 0):  # another order, without the images in between
        assert np.array_equal(fresh.image(i), small.images[i])
    assert np.array_equal(generate(tmp_path / "fewer", n=20, seed=3).images, small.images[:20])
    assert not np.array_equal(small.images[0], small.images[3])


def philox4x64(key: tuple[int, int], counter: int) -> list[int]:
    """Philox 4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), written from the paper."""
    mask, words, (k0, k1) = 2**64 - 1, [counter, 0, 0, 0], key
    for _ in range(10):
        a, b = words[0] * 0xD2E7470EE14C6C93, words[2] * 0xCA5A826395121157
        words = [(b >> 64) ^ words[1] ^ k0, b & mask, (a >> 64) ^ words[3] ^ k1, a & mask]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return words


@pytest.mark.parametrize("i", [0, 1, 2**40])
def test_placement_is_the_philox_stream(i):
    """A published set must be possible to make again, whatever numpy, platform or rewrite."""
    scale, _, left, top = philox4x64((3, i), counter=1)  # numpy counts up before it draws
    diameter = int(32 * (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)[scale * 6 >> 64])
    painter = SportBalls(ball=["soccer"], seed=3)
    assert box(painter.image(i)) == (left * 32 >> 64, top * 32 >> 64, diameter, diameter)


def test_classes_balanced_and_split(small):
    assert small.classes == ["baseball", "basketball", "soccer"]
    assert np.bincount(small.labels).tolist() == [50, 50, 50]
    assert small.indices("train").tolist() == list(range(120))
    assert small.indices("valid").tolist() == list(range(120, 150))
    assert small.indices("valid", target=1).tolist() == list(range(121, 150, 3))
    assert len(small.indices("test")) == 0


def test_ball_whole_on_white(small):
    boxes = np.array([box(image) for image in small.images])
    assert set(boxes[:, 2]) == set(boxes[:, 3]) == {9, 12, 16, 19, 22, 25}  # int(32 s); nothing is cut off
    assert boxes[:, :2].min() >= 0 and 28 <= boxes[:, :2].max() <= 31
    for image, (left, top, width, height) in zip(small.images, boxes, strict=True):
        rest = image.copy()
        rest[top : top + height, left : left + width] = 255
        assert rest.min() >= 250
    far = small.images.copy()
    far[:, : 31 + 25, : 31 + 25] = 255
    assert far.min() == 255  # and untouched canvas is pure white


def test_balls_differ_in_colour():
    def share(name, test):
        pixels = np.asarray(Image.open(ICONS / f"{name}.png").resize((64, 64), Image.Resampling.BOX)).astype(int)
        red, green, blue = pixels[pixels[..., 3] == 255][:, :3].T
        return test(red, green, blue).mean()

    def reddish(r, g, b):
        return (r > 150) & (g < 60) & (b < 80)

    def orange(r, g, b):
        return (r > 180) & (g > 80) & (g < 140) & (b < 60)

    def blueish(r, g, b):
        return (b > 120) & (r < 60)

    def black(r, g, b):
        return np.maximum(np.maximum(r, g), b) < 40

    assert share("baseball", reddish) > 0.1 and share("baseball", black) == 0
    assert share("basketball", orange) > 0.5
    assert 0.15 < share("soccer", black) < 0.5
    assert share("volleyball", blueish) > 0.1
    assert [path.name for path in sorted(ICONS.iterdir())] == [f"{name}.png" for name in BALLS]
    for name in BALLS:
        alpha = np.asarray(Image.open(ICONS / f"{name}.png"))[..., 3]
        assert alpha[0, 0] == 0 and abs((alpha / 255).mean() - np.pi / 4) < 0.01


@pytest.fixture
def icons(tmp_path):
    """A disc, left half red and right half blue, and a wide green bar."""
    folder = tmp_path / "icons"
    folder.mkdir()
    disc = Image.new("RGBA", (100, 100))
    ImageDraw.Draw(disc).pieslice((0, 0, 99, 99), 90, 270, fill=(255, 0, 0))
    ImageDraw.Draw(disc).pieslice((0, 0, 99, 99), -90, 90, fill=(0, 0, 255))
    disc.save(folder / "disc.png")
    Image.new("RGB", (60, 20), (0, 128, 0)).save(folder / "bar.png")
    return folder


def test_icons_from_a_folder(icons, tmp_path):
    loaded = icons_of(icons)
    assert list(loaded) == ["bar", "disc"]
    assert loaded["bar"].size == (60, 60) and loaded["bar"].getpixel((30, 5))[3] == 0
    both = generate(tmp_path / "both", n=4, icons=icons)
    assert both.classes == ["bar", "disc"]
    assert generate(tmp_path / "disc", n=4, ball=["disc"], icons=icons).classes == ["disc"]


def test_rotation_is_uniform(icons):
    painter = SportBalls(ball=["disc"], icons=icons, scale=[0.8])
    angles = []
    for i in range(600):
        image = painter.image(i).astype(float)
        red, blue = 255 - image[..., 2], 255 - image[..., 0]
        y, x = np.indices(red.shape)
        up = (y * blue).sum() / blue.sum() - (y * red).sum() / red.sum()
        right = (x * red).sum() / red.sum() - (x * blue).sum() / blue.sum()
        angles.append(np.degrees(np.arctan2(up, right)) % 360)
    counts = np.histogram(angles, bins=6, range=(0, 360))[0]
    assert ((counts - 100) ** 2 / 100).sum() < 20.5  # chi-square, 5 degrees of freedom, p = 0.001


def test_contact_sheet(small, tmp_path):
    fig = plot_contact_sheet(small, tmp_path / "sheet.png", n=6, columns=3)
    assert Image.open(tmp_path / "sheet.png").width > 3 * 64
    texts = [text.get_text() for text in fig.findobj(Text)]
    assert [text for text in texts if text in small.classes] == [small.classes[label] for label in small.labels[:6]]


def test_card(small):
    card = json.loads((small.folder / "card.json").read_text())
    assert (card["n"], card["size"], card["seed"]) == (150, 64, 3)
    assert card["digest"] == sha256(*(small.folder / f"{part}.npy" for part in ("images", "labels", "split")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positions": 41}, "positions 41"),
        ({"positions": 0}, "positions 0"),
        ({"scale": []}, "scale"),
        ({"scale": [0.01]}, "scale"),
        ({"scales": [0.5]}, "images: unknown key scales; nearest are scale"),
        ({"n": 0}, "n 0"),
        ({"valid_fraction": 1.0}, "valid_fraction 1.0"),
        ({"seed": -1}, "seed -1"),
        ({"ball": ["tennis"]}, "'tennis' is not among baseball"),
        ({"ball": ["soccer", "soccer"]}, "ball: the classes 'soccer' and 'soccer' have the same name; rename one"),
        ({"icons": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_bad_parameters_are_named(arguments, message, tmp_path):
    with pytest.raises(NrcgError, match=message):
        check_images("sportballs", {"n": 3, **arguments})
    with pytest.raises(NrcgError, match=message):
        generate(tmp_path / "set", **{"n": 3, **arguments})
    assert not (tmp_path / "set").exists()


def test_bad_icons_are_named(tmp_path):
    with pytest.raises(NrcgError, match="holds no PNG"):
        icons_of(tmp_path)
    (tmp_path / "ball.png").write_text("no image")
    with pytest.raises(NrcgError, match=r"ball\.png: not a readable image"):
        icons_of(tmp_path)


def tiny(folder, **changes):
    arrays = {"images": np.zeros((4, 8, 8, 3), np.uint8), "labels": [0, 1, 0, 1], "split": [0, 0, 1, 2], **changes}
    return write_image_set(folder, **arrays, name="tiny", classes=["a", "b"], seed=None, parameters={})


def test_image_set_round_trip(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    written = tiny(tmp_path, images=images)
    opened = ImageSet.open(tmp_path)
    assert len(opened) == 4 and np.array_equal(opened.images, images) and isinstance(opened.images, np.memmap)
    assert opened.indices("train", 1).tolist() == [1] and opened.indices("test").dtype == np.int64
    assert written.card == opened.card
    with pytest.raises(NrcgError, match="split 'val'"):
        opened.indices("val")
    with pytest.raises(NrcgError, match="target 2"):
        opened.indices("train", 2)


def test_broken_image_sets_are_refused(tmp_path):
    with pytest.raises(NrcgError, match=r"labels\.npy: labels outside 0 to 1"):
        tiny(tmp_path, labels=[0, 1, 2, 0])
    with pytest.raises(NrcgError, match=r"images\.npy: holds"):
        tiny(tmp_path, images=np.zeros((4, 8, 8, 4), np.uint8))
    card = tiny(tmp_path).card
    write_array(tmp_path / "split.npy", np.zeros(3, np.uint8))
    with pytest.raises(NrcgError, match=r"split\.npy: holds uint8 \(3,\)"):
        ImageSet.open(tmp_path)
    write_json(tmp_path / "card.json", {key: card[key] for key in card if key != "digest"})
    with pytest.raises(NrcgError, match="no key 'digest'"):
        ImageSet.open(tmp_path)
    (tmp_path / "card.json").unlink()
    with pytest.raises(NrcgError, match="not a complete image set"):
        ImageSet.open(tmp_path)


def test_interrupted_rewrite_leaves_no_card(tmp_path, monkeypatch):
    tiny(tmp_path)
    monkeypatch.setattr("nrcg.datasets.imageset.write_array", lambda path, array: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tiny(tmp_path, images=np.ones((4, 8, 8, 3), np.uint8))
    with pytest.raises(NrcgError, match="not a complete image set"):
        ImageSet.open(tmp_path)


def test_batches_make_the_file_that_numpy_makes(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)
    rest = {"labels": np.arange(11) % 2, "split": np.zeros(11)}
    tiny(tmp_path / "parts", images=(part for part in np.split(images, [1, 1, 5])), **rest)
    np.save(tmp_path / "numpy.npy", images)
    assert (tmp_path / "parts" / "images.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    write_array(tmp_path / "mine.npy", images.astype(np.float32).T)
    assert np.array_equal(np.load(tmp_path / "mine.npy"), images.astype(np.float32).T)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([(3, 8, 8, 3)], r"hold 3 rows; they must hold 4"),
        ([(3, 8, 8, 3), (2, 8, 8, 3)], r"hold 5 rows"),
        ([(3, 8, 8, 3), (1, 4, 4, 3)], r"a part holds uint8 \(1, 4, 4, 3\)"),
        ([], r"hold 0 rows"),
    ],
)
def test_batches_that_do_not_fit_leave_the_old_file(parts, message, tmp_path):
    tiny(tmp_path)
    before = (tmp_path / "images.npy").read_bytes()
    with pytest.raises(NrcgError, match=message):
        tiny(tmp_path, images=iter([np.ones(shape, np.uint8) for shape in parts]))
    assert (tmp_path / "images.npy").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["images.npy", "labels.npy", "split.npy"]


def test_an_image_set_where_a_file_is_in_the_way(tmp_path):
    (tmp_path / "set").write_text("in the way")
    with pytest.raises(NrcgError, match=r"card\.json: cannot be written \(Not a directory\)"):
        tiny(tmp_path / "set")


RAMP = np.linspace(0, 255, 32).astype(np.uint8)[None].repeat(32, 0)


@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        (RAMP.astype(np.uint16) * 257, "png"),
        (RAMP.astype(np.uint16) * 257, "tiff"),
        (RAMP.astype(">u2") * 257, "tiff"),
        (RAMP.astype(np.int32) * 257, "tiff"),
        (RAMP.astype(np.int32), "tiff"),
        (RAMP.astype(np.float32), "tiff"),
        (RAMP.astype(np.float32) / 255, "tiff"),
        (RAMP.astype(np.float32) * 257, "tiff"),
    ],
)
def test_grey_of_more_than_eight_bits_keeps_its_greys(tmp_path, values, suffix):
    Image.fromarray(RAMP).save(tmp_path / "eight.png")
    Image.fromarray(values).save(tmp_path / "deep", format=suffix)
    (tmp_path / "deep").rename(tmp_path / "deep.png")
    icons = icons_of(tmp_path)
    eight, deep = (np.asarray(icons[name]).astype(int) for name in ("eight", "deep"))
    assert np.abs(eight - deep).max() <= 1


@pytest.mark.parametrize("values", [np.full((4, 4), -1.0), np.full((4, 4), np.nan), np.full((4, 4), 1e6)])
def test_grey_without_a_meaning_is_refused(tmp_path, values):
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "deep", format="tiff")
    (tmp_path / "deep").rename(tmp_path / "deep.png")
    with pytest.raises(NrcgError, match=r"deep\.png: not a readable image \(grey values of mode F"):
        icons_of(tmp_path)


def test_a_picture_of_too_many_pixels_is_one_line(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 6, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(NrcgError, match=r"^[^\n]*a\.png: not a readable image[^\n]*$"):
        icons_of(tmp_path)


def test_kinds_are_light_to_import_and_unknown_ones_are_named():
    heavy = "'torch', 'scipy', 'pandas', 'pyarrow', 'huggingface_hub', 'matplotlib'"
    code = f"import sys, nrcg.datasets; print([name for name in ({heavy}) if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert list(kinds) == ["celeba", "folder", "hub", "sportballs", "torchvision"]
    with pytest.raises(
        NrcgError, match="kind of data set 'mnist': unknown; use one of celeba, folder, hub, sportballs, torchv"
    ):
        check_images("mnist", {})
    with pytest.raises(NrcgError, match="images: 3: give an object"):
        check_images("sportballs", 3)


def test_the_verb_makes_what_a_module_registers(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "import numpy as np\n"
        "from nrcg.datasets import kinds\n"
        "from nrcg.datasets.imageset import write_image_set\n"
        "@kinds.register('mine')\n"
        "@dataclass(frozen=True)\n"
        "class Mine:\n"
        "    grey: int\n"
        "    def check(self):\n"
        "        return ['a', 'b']\n"
        "    def make(self, folder, threads):\n"
        "        images, labels = np.full((4, 8, 8, 3), self.grey, np.uint8), [0, 1, 0, 1]\n"
        "        rest = dict(name='mine', classes=self.check(), seed=None, parameters={})\n"
        "        return write_image_set(folder, images, labels, [0, 0, 1, 1], **rest)\n"
    )
    command = [sys.executable, "-m", "nrcg.cli", "data", "make", "mine", "--settings", '{"grey": 7}', "--module"]
    subprocess.run([*command, tmp_path / "mine.py", "--out", tmp_path / "set"], check=True)
    assert np.all(ImageSet.open(tmp_path / "set").images == 7) and (tmp_path / "set/contact_sheet.png").is_file()
