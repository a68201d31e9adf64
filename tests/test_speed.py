"""Networks made ready to be fast give what they gave before."""

import copy
from functools import partial

import pytest
import torch
from conftest import TINY_UNET
from diffusers import UNet2DModel
from pipelines import draw, make_guidance, make_pipeline
from torch import nn

from nrcg import EMA, ClassifierGuidance
from nrcg.errors import NrcgError
from nrcg.models.classifier import build_classifier
from nrcg.speed import COMPILING_PAYS, prepare, worth_compiling

ATTENTION = {
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 4,
}


def with_attention():
    pipe = make_pipeline()
    torch.manual_seed(0)
    pipe.unet = UNet2DModel(**{**TINY_UNET, **ATTENTION}).eval()
    return pipe


@pytest.mark.parametrize("on", ["xt", "x0"])
@pytest.mark.parametrize("compile", [False, True])
def test_prepared_networks_draw_the_same_images(on, compile, monkeypatch):
    # Traced and differentiated as when compiled, but not turned into machine code, which takes minutes.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    pipe, guidance = with_attention(), make_guidance(30.0, on=on, stabilizer=EMA(0.5))
    expected = draw(pipe, guidance).images
    pipe.unet = prepare(copy.deepcopy(pipe.unet), compile=compile)
    classifier = prepare(copy.deepcopy(guidance.classifier), compile=compile)
    fast = ClassifierGuidance(classifier, 1, 30.0, on=on, stabilizer=EMA(0.5))
    torch.testing.assert_close(draw(pipe, fast).images, expected, rtol=0, atol=1e-4)
    assert (expected - draw(pipe).images).abs().max() > 0.01


def test_networks_in_bfloat16_stay_close_and_the_state_float32():
    pipe, guidance = with_attention(), make_guidance(5.0, stabilizer=EMA(0.5))
    expected = draw(pipe, guidance).images
    pipe.unet = prepare(pipe.unet, precision="bf16")
    assert pipe.unet.dtype == torch.bfloat16
    images = draw(pipe, guidance).images
    assert images.dtype == torch.float32 and 0 < (images - expected).abs().max() < 0.1


def test_checkpointing_keeps_fewer_bytes_and_draws_the_same_images():
    pipe, guidance = with_attention(), make_guidance(30.0, stabilizer=EMA(0.5))
    kept = []

    def keep(tensor):
        kept[-1] += tensor.nbytes
        return tensor

    images = []
    for checkpointed in (False, True):
        if checkpointed:
            pipe.unet.enable_gradient_checkpointing()
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            images.append(draw(pipe, guidance, num_inference_steps=1).images)
    torch.testing.assert_close(*images, rtol=0, atol=1e-6)
    assert kept[1] < kept[0] / 2


def test_another_precision_is_refused():
    with pytest.raises(NrcgError, match="precision 'fp16'"):
        prepare(make_pipeline().unet, precision="fp16")


def test_compiling_is_for_long_work_on_cuda():
    assert worth_compiling(COMPILING_PAYS, torch.device("cuda"))
    assert not worth_compiling(COMPILING_PAYS - 1, torch.device("cuda:1"))
    assert not worth_compiling(10 * COMPILING_PAYS, torch.device("cpu"))


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "resnet18_judge", "resnet14_judge"])
def test_channels_last_changes_no_logit(architecture):
    torch.manual_seed(0)
    model, images = build_classifier(architecture, 3).eval(), torch.randn(2, 3, 32, 32)
    assert model(images).std() > 0
    expected = copy.deepcopy(model).to(memory_format=torch.contiguous_format)(images)
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("architecture", "left"), [("mobilenet_v3_small", 0), ("resnet18_judge", 17)])
def test_batch_norms_that_no_longer_learn_are_folded_where_a_convolution_surely_precedes(architecture, left):
    torch.manual_seed(0)
    model, images = build_classifier(architecture, 3), torch.randn(8, 3, 32, 32)
    for norm in batch_norms(model):
        norm.momentum = 1.0
    model(images)  # averages of its own, so that a norm left out would show
    norms = len(batch_norms(model))
    assert len(batch_norms(prepare(copy.deepcopy(model)))) == norms  # in training they learn
    expected = model.eval()(images)
    ready = prepare(copy.deepcopy(model))
    assert norms > len(batch_norms(ready)) == left
    torch.testing.assert_close(ready(images), expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-3


class Backwards(nn.Sequential):
    def forward(self, images):
        return self[0](self[1](images))


@pytest.mark.parametrize(
    "layers",
    [
        lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)),
        lambda: Backwards(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)),
    ],
    ids=["batch's own statistics", "another order"],
)
def test_batch_norms_that_cannot_be_folded_stay(layers):
    torch.manual_seed(0)
    model, images = layers(), 2 + torch.randn(4, 3, 8, 8)
    model(images)
    expected = model.eval()(images)
    torch.testing.assert_close(prepare(copy.deepcopy(model))(images), expected, rtol=0, atol=1e-6)
    assert len(batch_norms(prepare(model))) == 1


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
