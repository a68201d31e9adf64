"""Classifiers from elsewhere, each as a folder that gives the logits of the network it was made of."""

import json
import os

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18
from typer.testing import CliRunner

from nrcg.cli import app
from nrcg.errors import NrcgError
from nrcg.models.classifier import load_classifier
from nrcg.models.sources import check_source, import_classifier, sources

CLASSES = ["cat", "dog", "owl"]
MODULE = """
import torch
from torch import nn

def small(width=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))

class Argmax(nn.Module):
    def forward(self, images):
        return images.flatten(1).argmax(1)

class NoGrad(nn.Module):
    @torch.no_grad()
    def forward(self, images):
        return images.flatten(1)[:, :3].clone()

def nothing():
    return 3

def broken():
    raise RuntimeError("no weights here\\nor there")
"""


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def module(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    return f"{tmp_path}/mine.py"


def perturbed(network):
    """In eval mode, with no two weights alike."""
    torch.manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.02 * torch.rand_like(tensor))
    return network.eval()


def bring(section, out, **arguments):
    import_classifier(section, out, **{"classes": CLASSES, "size": 32, **arguments})
    return load_classifier(out)


def normalised(images, size, mean, std, mode="bilinear"):
    images = nn.functional.interpolate(images, size, mode=mode, antialias=True)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (mean, std))
    return ((images + 1) / 2 - mean) / std


def test_torchvision_brings_its_input_and_its_weights(tmp_path, monkeypatch, images):
    network = perturbed(resnet18())
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(network.state_dict(), tmp_path / "hub/checkpoints" / os.path.basename(ResNet18_Weights.DEFAULT.url))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    outputs = {"owl": 24, "cat": [281, 282, 283], "dog": 151}
    model, card = bring({"torchvision": {"name": "resnet18"}}, tmp_path / "out", outputs=outputs)
    assert card["input"]["size"] == 224 and card["origin"] == {"url": ResNet18_Weights.DEFAULT.url}
    with torch.no_grad():
        logits = network(normalised(images, 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        expected = torch.stack([logits[:, 281:284].logsumexp(1), logits[:, 151], logits[:, 24]], dim=1)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(NrcgError, match="torchvision resnet18: no weights 'V9'; use one of IMAGENET1K_V1"):
        bring({"torchvision": {"name": "resnet18", "weights": "V9"}}, tmp_path / "other")


def test_timm_brings_its_input_and_its_weights(tmp_path, images):
    network = perturbed(timm.create_model("resnet10t", num_classes=3, global_pool="max"))
    network.pretrained_cfg |= {"input_size": (3, 48, 48), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    model_args = {"num_classes": 3, "global_pool": "max"}
    timm.models.save_for_hf(network, tmp_path / "given", {"num_classes": 3, "model_args": model_args})
    model, card = bring({"timm": {"name": f"local-dir:{tmp_path}/given"}}, tmp_path / "out")
    assert card["input"]["size"] == [48, 48] and card["n_logits"] == 3
    mode = network.pretrained_cfg["interpolation"]
    with torch.no_grad():
        expected = network(normalised(images, 48, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], mode))
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(NrcgError, match=r"cannot be loaded .*resnet1"):
        bring({"timm": {"name": "resnet1"}}, tmp_path / "other")


def test_transformers_brings_its_input_and_its_weights(tmp_path, images):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    network = perturbed(ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=4)))
    network.save_pretrained(tmp_path / "given")
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    seen = ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=mean, image_std=std, resample=3)
    seen.save_pretrained(tmp_path / "given")
    outputs = {"cat": 3, "dog": [0, 2], "owl": 1}
    model, card = bring({"transformers": {"name": f"{tmp_path}/given"}}, tmp_path / "out", outputs=outputs)
    assert card["n_logits"] == 4 and card["outputs"] == [3, [0, 2], 1]
    with torch.no_grad():
        logits = network(normalised(images, 16, mean, std, "bicubic")).logits
        expected = torch.stack([logits[:, 3], logits[:, [0, 2]].logsumexp(1), logits[:, 1]], dim=1)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_weights_and_its_architecture(tmp_path, images, suffix):
    network, path = perturbed(timm.create_model("resnet10t", num_classes=3)), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"epoch": 3, "state_dict": network.state_dict()}, path)
    else:
        save_file(network.state_dict(), path)
    section = {"path": str(path), "architecture": {"timm": {"name": "resnet10t"}}, "n_logits": 3}
    model, _ = bring({"file": section}, tmp_path / "out", input={"mean": 0.4, "std": 0.2})
    with torch.no_grad():
        expected = network(normalised(images, 32, [0.4] * 3, [0.2] * 3))
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


def test_a_function_of_the_users_own(tmp_path, images, module):
    section = {"module": {"function": f"{module}:small", "arguments": {"width": 5, "seed": 3}}}
    model, card = bring(section, tmp_path / "out", input={"size": [20, 24]})
    weights = model.network[0].weight.detach().clone()
    assert card["architecture"] == section and weights.shape == (5, 3, 3, 3)
    (tmp_path / "mine.py").write_text(MODULE.replace("manual_seed(seed)", "manual_seed(7)"))
    assert torch.equal(load_classifier(tmp_path / "out")[0].network[0].weight, weights)  # those on disk count


def test_two_classes_may_have_one_output(tmp_path, module):
    text = MODULE.replace("nn.Linear(width, 3)", "nn.Linear(width, 1)")
    (tmp_path / "binary.py").write_text(text)
    model, card = bring(
        {"module": {"function": f"{tmp_path}/binary.py:small"}}, tmp_path / "out", classes=["no", "yes"]
    )
    assert card["n_logits"] == 1 and model(torch.zeros(2, 3, 32, 32)).shape == (2, 1)


REFUSED = {
    "unknown source": ({"tim": {}}, {}, "source of classifiers 'tim': unknown; use one of torchvision, timm"),
    "unknown key": ({"timm": {"nam": "x", "name": "y"}, "x": 1}, {}, "source of classifiers"),
    "no name": ({"transformers": {}}, {}, "source of classifiers transformers: no key name; add it"),
    "a class lacks": ({"timm": {"name": "resnet10t"}}, {"outputs": {"cat": 1, "dog": 2}}, "outputs: no class 'owl'"),
    "a class too many": (
        {"timm": {"name": "resnet10t"}},
        {"outputs": {"cat": 1, "dog": 2, "owl": 3, "cow": 4}},
        "outputs: 'cow' is no class; the classes are cat, dog, owl",
    ),
    "outputs in a list": ({"timm": {"name": "resnet10t"}}, {"outputs": [1, 2, 3]}, "outputs: .*for each class name"),
    "index beyond": (":small", {"outputs": {"cat": 0, "dog": 1, "owl": 3}}, "outputs: index 3, but Sequential has 3"),
    "other classes": (":small", {"classes": ["a", "b"]}, "3 outputs for the classes a, b; assign them with `outputs`"),
    "argmax": (":Argmax", {}, "Argmax returns int64"),
    "no gradient": (":NoGrad", {}, "classifier: no gradient passes through NoGrad"),
    "no module": (":nothing", {}, "mine.py:nothing: returns int; it must return a torch module"),
    "raises": (":broken", {}, r"cannot be loaded \(RuntimeError: no weights here\)"),
    "no function": (":smal", {}, "has no function 'smal'"),
    "no colon": ("", {}, "function .*: write package.module:function"),
    "unknown input": (":small", {"input": {"sice": 3}}, "input: unknown key sice; nearest are size"),
    "input too small": (":small", {"input": {"size": 2}}, r"cannot classify an image of 32×32 pixels .*with `input`"),
    "no file": ({"file": {"path": "nowhere", "architecture": "x", "n_logits": 3}}, {}, "nowhere: no such file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_classify_here_is_one_line(tmp_path, module, case):
    section, arguments, message = REFUSED[case]
    section = (
        {"module": {"function": f"{module}{section}" if section else "mine"}} if isinstance(section, str) else section
    )
    with pytest.raises(NrcgError, match=message) as raised:
        bring(section, tmp_path / "out", **arguments)
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_a_config_is_checked_without_any_network():
    check_source({"timm": {"name": "resnet10t"}}, CLASSES, {"owl": 1, "cat": 2, "dog": [3, 4]})
    with pytest.raises(NrcgError, match="outputs: no class 'cat'"):
        check_source({"timm": {"name": "resnet10t"}}, CLASSES, {"owl": 1})
    assert list(sources) == ["torchvision", "timm", "transformers", "file", "module"]


class Evil:
    def __reduce__(self):
        return print, ("opened",)


def test_no_pickle_of_more_than_tensors_is_opened(tmp_path, capsys):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    section = {"path": f"{tmp_path}/evil.pth", "architecture": "mobilenet_v3_small", "n_logits": 3}
    with pytest.raises(NrcgError, match=r"evil\.pth: holds more than tensors; refused"):
        bring({"file": section}, tmp_path / "out")
    assert "opened" not in capsys.readouterr().out


def test_the_verb(tmp_path, module):
    source = json.dumps({"module": {"function": f"{module}:small"}})
    words = ["get", "classifier", "--source", source, "--input", '{"mean": 0.4}', "--size", "32", "--size", "24"]
    words += ["--outputs", '{"cat": 2, "owl": [0, 1]}', "--classes", "cat", "--classes", "owl"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert load_classifier(tmp_path / "out")[1]["outputs"] == [2, [0, 1]]
