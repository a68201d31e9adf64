"""Pictures of any kind as RGB of 8 bits, image sets that are not square, and names of classes."""

import io
import subprocess
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageFile
from torchvision import transforms

from nrcg.checks import shown_size, sides
from nrcg.datasets.imageset import ImageSet, write_image_set
from nrcg.datasets.names import distinct, drawn_split
from nrcg.datasets.pictures import COLOUR, batches, fitted, formats, read_picture, suffixes
from nrcg.errors import NrcgError
from nrcg.io.files import read_json, write_json
from nrcg.models.ddpm import takes_images
from nrcg.plots.samples import plot_contact_sheet


def encoded(picture, form="PNG", **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def read(content, background="white"):
    return np.asarray(read_picture(content, "it", "mend it", upright=True, background=background))


rng = np.random.default_rng(0)
COLOURS, ALPHA = rng.integers(0, 256, (6, 5, 3), np.uint8), rng.integers(0, 256, (6, 5, 1), np.uint8)


@pytest.mark.parametrize(("background", "rgb"), [("white", (255, 255, 255)), ("#0a141e", (10, 20, 30))])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_is_laid_over_the_background(background, rgb, form):
    rgba = np.concatenate([COLOURS, ALPHA], axis=2)
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    found = read(encoded(Image.fromarray(rgba), form, **options), background)
    share = ALPHA / 255
    assert np.allclose(found, COLOURS * share + np.array(rgb) * (1 - share), atol=1)


def test_grey_with_alpha():
    grey = COLOURS[..., :1]
    found = read(encoded(Image.fromarray(np.concatenate([grey, ALPHA], axis=2), "LA")), "red")
    share = ALPHA / 255
    assert np.allclose(found, grey * share + np.array([255, 0, 0]) * (1 - share), atol=1)


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_entry(form):
    picture = Image.new("P", (4, 2))
    picture.putpalette([10, 20, 30, 200, 100, 50, 7, 7, 7])
    picture.putdata([0, 1, 2, 1, 0, 0, 2, 2])
    entries = np.array([[10, 20, 30], [0, 0, 255], [7, 7, 7]])  # the second lies over blue
    found = read(encoded(picture, form, transparency=1), "blue")
    assert np.array_equal(found, entries[[[0, 1, 2, 1], [0, 0, 2, 2]]])


def test_a_palette_with_an_alpha_for_each_entry():
    picture = Image.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 0])
    picture.putdata([0, 1, 2])
    found = read(encoded(picture, transparency=bytes([255, 51, 0])))
    assert np.allclose(found[0], [[10, 20, 30], [244, 224, 214], [255, 255, 255]], atol=1)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_colour_that_stands_for_transparency(mode):
    picture = Image.new(mode, (2, 1), 9 if mode == "L" else (9, 9, 9))
    picture.putpixel((1, 0), 80 if mode == "L" else (80, 80, 80))
    found = read(encoded(picture, transparency=9 if mode == "L" else (9, 9, 9)), "lime")
    assert found.tolist() == [[[0, 255, 0], [80, 80, 80]]]


def test_sixteen_bits_are_scaled_and_no_colours_lost():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    for form in ("PNG", "TIFF", "PPM"):
        assert np.allclose(read(encoded(Image.fromarray(values), form))[0, :, 0], [0, 1, 128, 255], atol=0)
    assert read(encoded(Image.new("1", (3, 1), 1))).tolist() == [[[255] * 3] * 3]
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.allclose(read(encoded(cmyk, "JPEG", quality=100)), [255, 0, 0], atol=2)


def test_a_picture_is_turned_as_its_note_says():
    picture = Image.fromarray(COLOURS)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    assert np.array_equal(read(encoded(picture, exif=exif)), np.rot90(COLOURS, -1))


@pytest.mark.parametrize("form", ["AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "TGA", "WEBP"])
def test_formats_that_pillow_reads(form):
    picture = Image.new("RGB", (16, 16), (200, 100, 50))
    assert np.allclose(read(encoded(picture, form)), [200, 100, 50], atol=6)
    assert {f".{word}" for word in ("jpg", "jpeg", "png", "webp", "tif", "bmp", "gif", "avif", "mpo")} <= suffixes()


def test_formats_that_start_programs_or_are_known_by_name_alone_are_refused(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(NrcgError, match=r"^it: not a readable image \(cannot identify .*\); mend it$"):
        read(encoded(Image.new("RGB", (9, 9)), "EPS"))
    Image.init()
    refused = set(Image.OPEN) - set(formats())
    assert {"EPS", "WMF", "HDF5", "GRIB", "BUFR", "MPEG"} == refused
    assert not suffixes() & {".eps", ".ps", ".pdf", ".wmf", ".emf", ".h5", ".mpg", ".txt"}
    assert all(issubclass(Image.OPEN[name][0], ImageFile.ImageFile) for name in refused)


def test_colours():
    assert all(map(COLOUR.holds, ("White", "#A0b1c2", "rebeccapurple")))
    assert not any(map(COLOUR.holds, ("#abc", "#11223344", "#12345g", "rgb(1,2,3)", "", None, "whitish", 3)))


@pytest.mark.parametrize("size", [8, [8, 13], [13, 8], (30, 9)])
@pytest.mark.parametrize("shape", [(8, 8), (100, 9), (9, 100), (37, 53)])
def test_a_crop_is_torchvisions(size, shape):
    picture = Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8))
    scale = max(Fraction(side, own) for side, own in zip(sides(size), shape, strict=True))  # so that both are covered
    steps = transforms.Resize([int(side * scale) for side in shape]), transforms.CenterCrop(sides(size))
    assert np.array_equal(fitted(picture, size, "crop"), transforms.Compose(steps)(picture))


def test_batches_are_of_any_shape():
    made = list(batches(lambda i: np.full((3, 5, 3), i, np.uint8), range(4), n=4, size=[3, 5], title="", threads=2))
    assert np.concatenate(made)[:, 0, 0, 0].tolist() == [0, 1, 2, 3] and made[0].shape == (4, 3, 5, 3)


def test_an_image_set_need_not_be_square(tmp_path):
    images = rng.integers(0, 256, (12, 8, 20, 3), np.uint8)
    given = {"name": "wide", "classes": ["a", "b"], "seed": None, "parameters": {}}
    write_image_set(tmp_path, images, np.arange(12) % 2, np.zeros(12), **given)
    made = ImageSet.open(tmp_path)
    assert np.array_equal(made.images, images) and made.card["size"] == [8, 20]
    plot_contact_sheet(made, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 2.5 * sheet.height  # ten of 20×8 a row
    for size in (8, [20, 8], [8], [8, 20, 3], "8", [8, None], -1):
        write_json(tmp_path / "card.json", {**made.card, "size": size})
        with pytest.raises(NrcgError, match=r"card.json|images.npy: holds uint8 \(12, 8, 20, 3\)"):
            ImageSet.open(tmp_path)
    square = write_image_set(tmp_path / "square", images[:, :, :8], np.arange(12) % 2, np.zeros(12), **given)
    assert square.card["size"] == 8 and read_json(tmp_path / "square/card.json")["size"] == 8


def test_sizes_are_one_number_or_two():
    assert sides(8) == sides([8, 8]) == (8, 8) and sides((8, 20)) == (8, 20)
    assert shown_size(8) == "8×8" and shown_size([8, 20]) == "8×20"
    for sample_size, size in ((8, 8), (8, [8, 8]), ([8, 8], 8), ((8, 20), [8, 20])):
        assert takes_images(sample_size, size)
    for sample_size, size in ((8, 9), (8, [8, 20]), ([20, 8], [8, 20]), (None, 8), ("8", 8), ([8], 8)):
        assert not takes_images(sample_size, size)


@pytest.mark.parametrize("names", [("a", "a"), ("Straße", "STRASSE"), ("e\u0301", "\u00e9"), ("a", "b", " B")])
def test_two_classes_are_not_one(names):
    with pytest.raises(NrcgError, match=r"^here: the classes .* and .* have the same name; rename one"):
        distinct(names, "here")
    assert distinct(["a", "b", "ä"], "here") == ["a", "b", "ä"]


def test_a_drawn_split_depends_on_class_and_seed_alone():
    labels = np.array([0] * 50 + [1] * 10 + [2] * 3)
    split = drawn_split(labels, ["a", "b", "c"], 0.2, 7)
    assert [int(split[labels == label].sum()) for label in range(3)] == [10, 2, 1]
    less = drawn_split(labels[:60], ["a", "b"], 0.2, 7)
    assert np.array_equal(less, split[:60])
    picked = [np.flatnonzero(drawn_split(labels[:50], ["a"], 0.2, seed)) for seed in range(400)]
    counts = np.bincount(np.concatenate(picked), minlength=50)
    assert counts.sum() == 4000 and abs(counts - 80).max() < 40  # each image as often as any other: 80 ± 8
