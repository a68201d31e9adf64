"""Classifiers of others behind one face: their input, their outputs, what they return, and what is refused."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18
from torchvision.transforms import v2

import nrcg
from nrcg.errors import NrcgError
from nrcg.guidance.gradient import image_gradient
from nrcg.io.images import to_float
from nrcg.models.adapter import adapt


class Returns(nn.Module):
    """Mean of each quarter of each channel, 12 logits, and however they are to be returned."""

    def __init__(self, how=lambda logits: logits):
        super().__init__()
        self.how, self.seen = how, None

    def forward(self, images):
        self.seen = images
        return self.how(nn.functional.adaptive_avg_pool2d(images, 2).flatten(1))


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (3, 48, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize(("size", "interpolation"), [(24, "bilinear"), ((30, 20), "bicubic"), (96, "bilinear")])
def test_input_is_what_pillow_and_torchvision_make_of_it(pictures, size, interpolation):
    network, mean, std = Returns(), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    adapt(network, size, mean, std, interpolation)(to_float(pictures))
    height, width = size if isinstance(size, tuple) else (size, size)
    how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    normalise = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    for row, picture in zip(network.seen, pictures, strict=True):
        expected = normalise(Image.fromarray(picture).resize((width, height), how))
        off = (row - expected).abs() * 255 * 0.3  # grey levels; Pillow rounds after each direction, and clips
        assert off.median() < 0.5 and off.quantile(0.95) < 1.5


def test_without_arguments_the_network_sees_the_very_images(pictures):
    network, images = Returns(), to_float(pictures)
    adapt(network)(images)
    assert torch.equal(network.seen, images)


def test_mean_and_std_are_those_of_timms_own_transform(pictures):
    network = timm.create_model("resnet18", num_classes=5)
    adapted, seen = nrcg.adapt(network), []
    network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    square = pictures[:, :40]
    adapted(to_float(square))
    transform = timm.data.create_transform(**timm.data.resolve_data_config({"crop_pct": 1.0}, model=network))
    expected = torch.stack([transform(Image.fromarray(picture)) for picture in square])
    assert seen[0].shape == expected.shape == (3, 3, 224, 224)
    assert (seen[0] - expected).abs().median() < 0.02  # a grey level is 0.017


def test_outputs_are_summed_as_probabilities(pictures):
    network, images = Returns(), to_float(pictures)
    logits = adapt(network, outputs={"a": 3, "b": [0, 7, 5]})(images)
    probabilities = network(images).double().softmax(1).numpy()
    wanted = np.stack([probabilities[:, 3], probabilities[:, [0, 7, 5]].sum(1)], axis=1)
    np.testing.assert_allclose(logits.softmax(1), wanted / wanted.sum(1, keepdims=True), rtol=1e-5)
    assert torch.equal(logits[:, 0], network(images)[:, 3])  # a single one is taken as it is


class Output(dict):
    """As transformers' own: a dict with attributes."""

    logits = property(lambda self: self["logits"])


RETURNED = {
    "tensor": lambda logits: logits,
    "tuple": lambda logits: (logits, "features"),
    "dict": lambda logits: {"features": 1, "logits": logits},
    "only one in a dict": lambda logits: {"out": logits},
    "transformers": lambda logits: Output(loss=None, logits=logits),
    "named": lambda logits: type("Named", (), {"logits": logits})(),
}


@pytest.mark.parametrize("how", RETURNED.values(), ids=RETURNED)
def test_whatever_holds_the_logits(how, pictures):
    images = to_float(pictures)
    assert torch.equal(adapt(Returns(how))(images), Returns()(images))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda logits: logits.argmax(1), "Returns returns int64, perhaps class indices; it must return logits"),
        (lambda logits: {"a": logits, "b": logits}, "no tensor of logits"),
        (lambda logits: (), "no tensor of logits"),
        (lambda logits: None, "no tensor of logits"),
        (lambda logits: logits[:, :, None], r"returns \(3, 12, 1\); it must return logits N×C"),
    ],
)
def test_what_is_no_logits_is_one_line(how, message, pictures):
    with pytest.raises(NrcgError, match=message):
        adapt(Returns(how))(to_float(pictures))


def no_grad(logits):
    with torch.no_grad():
        return logits.clone()


@pytest.mark.parametrize("how", [no_grad, lambda x: x.detach(), lambda x: nn.functional.one_hot(x.argmax(1)).float()])
def test_a_network_without_a_gradient_is_one_line(how):
    value = nrcg.ClassValue(adapt(Returns(how)), 0, "logit")
    with pytest.raises(NrcgError, match=r"classifier: no gradient passes through Returns.*no_grad, detach"):
        image_gradient(value, torch.zeros(2, 3, 8, 8))


def test_a_quantised_network_is_one_line():
    network = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), {nn.Linear})
    with pytest.raises(NrcgError, match="no gradient passes through Sequential"):
        image_gradient(nrcg.ClassValue(adapt(network), 0), torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outputs": [0, 12]}, "outputs: index 12, but Returns has 12 outputs, from 0; change it"),
        ({"outputs": [0, -1]}, "outputs: class 1 has -1; give an output index"),
        ({"outputs": {"cat": []}}, r"outputs: class cat has \[\]; give an output index"),
        ({"outputs": {"cat": 1, "dog": [2, 1]}}, "outputs: index 1 is given to cat and dog"),
        ({"outputs": []}, "outputs: no class"),
        ({"interpolation": "lanczos"}, "adapt: interpolation 'lanczos': must be one of bilinear, bicubic, nearest"),
        ({"std": 0}, "adapt: std 0: must be a finite number above 0"),
        ({"mean": [0.5, 0.5]}, "adapt: mean holds 2 numbers; give one, or three for R, G and B"),
        ({"mean": "half"}, "adapt: mean"),
        ({"size": 0}, "adapt: size 0: must be"),
        ({"size": [8, 8, 8]}, "adapt: size .*: must be"),
    ],
)
def test_arguments_that_cannot_be_are_one_line(arguments, message, pictures):
    with pytest.raises(NrcgError, match=f"^{message}") as raised:
        adapt(Returns(), **arguments)(to_float(pictures))
    assert "\n" not in str(raised.value)


def test_only_modules_are_adapted():
    with pytest.raises(NrcgError, match="adapt: function is no torch module"):
        adapt(no_grad)


def test_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 2, 3), nn.SiLU(), nn.Flatten(), nn.Linear(2 * 14 * 14, 6)).double()
    network = adapt(inner, 16, 0.4, 0.3, "bicubic", [0, [2, 3], 5])
    x = torch.rand(2, 3, 10, 10, dtype=torch.float64) * 2 - 1
    gradient, logits, *_ = image_gradient(nrcg.ClassValue(network, 1), x)
    assert logits.dtype == gradient.dtype == torch.float64
    direction, h = torch.randn_like(x), 1e-5
    above, below = (nrcg.ClassValue(network, 1)(x + sign * h * direction) for sign in (1, -1))
    slope = (gradient * direction).flatten(1).sum(1)
    torch.testing.assert_close(slope, ((above - below) / (2 * h)).detach(), rtol=1e-4, atol=1e-8)


def test_grey_is_repeated_and_transparent_laid_over_white(pictures):
    network, rgb = Returns(), to_float(pictures)
    grey = rgb[:, :1]
    adapt(network)(grey)
    assert torch.equal(network.seen, torch.cat([grey] * 3, dim=1))
    alpha = np.random.default_rng(1).integers(0, 256, (3, 48, 40, 1), dtype=np.uint8)
    rgba = np.concatenate([pictures, alpha], axis=3)
    adapt(network)(torch.from_numpy(rgba).permute(0, 3, 1, 2).float() / 127.5 - 1)
    for row, picture in zip(network.seen, rgba, strict=True):
        over = Image.alpha_composite(Image.new("RGBA", (40, 48), "white"), Image.fromarray(picture, "RGBA"))
        expected = np.asarray(over.convert("RGB"), float)
        assert np.abs((row.permute(1, 2, 0).numpy() + 1) * 127.5 - expected).max() <= 1


def test_eval_mode_and_half_precision():
    network = resnet18(num_classes=4).train()
    adapted = adapt(network, outputs=[0, [1, 2], 3])
    assert not network.training and adapted.outputs == [[0], [1, 2], [3]]
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    whole = adapted(images)
    half = nrcg.speed.prepare(adapted, precision="bf16")(images)
    assert whole.dtype == half.dtype == torch.float32 and torch.allclose(whole, half, atol=0.1)


def test_preparing_folds_the_batch_norms_of_what_is_adapted():
    from torchvision.models import mobilenet_v3_small

    adapted = adapt(mobilenet_v3_small(num_classes=4), 32, 0.4, 0.3)
    images = torch.rand(2, 3, 20, 20) * 2 - 1
    with torch.no_grad():
        before = adapted(images)
        after = nrcg.speed.prepare(adapted)(images)
    assert isinstance(adapted.network.features[0][1], nn.Identity)
    torch.testing.assert_close(after, before)
