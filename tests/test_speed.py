"""Networks made ready to be fast give what they gave before."""

import copy

import pytest
import torch
import torch._dynamo
from conftest import TINY_UNET
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from pipelines import draw, generator, grad, make_guidance, make_pipeline
from torch import nn
from torch._dynamo import lookup_backend
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from nrcg import EMA, ClassifierGuidance
from nrcg.errors import NrcgError
from nrcg.models.architectures import build_classifier
from nrcg.speed import COMPILING_PAYS, SmallAttention, _warn, native_precision, prepare, worth_compiling

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
    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda _: lookup_backend("aot_eager"))
    torch._dynamo.reset()
    pipe, guidance = with_attention(), make_guidance(30.0, on=on, stabilizer=EMA(0.5))
    expected = draw(pipe, guidance).images
    pipe.unet = prepare(copy.deepcopy(pipe.unet), compile=compile)
    classifier = prepare(copy.deepcopy(guidance.classifier), compile=compile)
    fast = ClassifierGuidance(classifier, 1, 30.0, on=on, stabilizer=EMA(0.5))
    torch.testing.assert_close(draw(pipe, fast).images, expected, rtol=0, atol=1e-4)
    assert (expected - draw(pipe).images).abs().max() > 0.01


def test_where_no_compiler_works_one_line_says_so_and_the_network_runs_as_it_is(monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("No working C++ compiler found\nSet CXX.")

    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda _: fail)
    torch._dynamo.reset(), _warn.cache_clear()
    unet, x = make_pipeline().unet, torch.randn(2, 3, 8, 8, generator=generator(), requires_grad=True)
    expected = grad(unet(x, 3).sample, x)
    compiled = prepare(copy.deepcopy(unet), compile=True)
    torch.testing.assert_close(grad(compiled(x, 3).sample, x), expected, rtol=0, atol=1e-6)
    prepare(build_classifier("mobilenet_v3_small", 3).eval(), compile=True)(x)
    said = [record.getMessage() for record in caplog.records if record.name == "nrcg"]  # torch says more
    assert said == ["torch.compile fails (No working C++ compiler found); continuing without it"]


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


@pytest.mark.parametrize(("able", "precision"), [("amx_bf16", "bf16"), ("avx512_bf16", "bf16"), ("avx2", "fp32")])
def test_the_native_precision_is_bfloat16_where_the_processor_multiplies_it(monkeypatch, able, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False, able: True})
    assert native_precision(torch.device("cpu")) == precision


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


class Tapped(nn.Module):
    """Uses what comes out of the layers inside its Sequential."""

    def __init__(self, stem: nn.Sequential) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, images):
        raw = self.stem[0](images)
        return torch.cat([raw.mean((2, 3)), self.stem[2](self.stem[1](raw)).mean((2, 3))], 1)


class Reads(Tapped):
    """Uses a number of a layer."""

    def forward(self, images):
        return self.stem(images) * self.stem[1].running_var.sum() + self.stem[0].weight.norm()


class Scaled(nn.Conv2d):
    def forward(self, images):
        return 2 * super().forward(images)


class Shifted(nn.BatchNorm2d):
    def forward(self, images):
        return super().forward(images) + 1


def stem(convolution=nn.Conv2d, norm=nn.BatchNorm2d) -> nn.Sequential:
    return nn.Sequential(convolution(3, 6, 3), norm(6), nn.ReLU())


def hooked(layer: int, register: str) -> nn.Sequential:
    network = stem()
    if register == "register_forward_pre_hook":
        network[layer].register_forward_pre_hook(lambda _module, inputs: 2 * inputs[0])
    else:
        network[layer].register_forward_hook(lambda _module, _inputs, output: 2 * output)
    return network


def with_forward_of_its_own() -> nn.Sequential:
    network = stem()
    network.forward = lambda images: network[1](2 * network[0](images))
    return network


def in_mobilenet(convolution) -> nn.Module:
    network = build_classifier("mobilenet_v3_small", 3)
    network.features[0][0] = convolution(3, 16, 3, stride=2, padding=1, bias=False)
    return network


AS_IT_IS = {
    "layers tapped": lambda: Tapped(stem()),
    "numbers read": lambda: Reads(stem()),
    "convolution of a subclass": lambda: stem(Scaled),
    "norm of a subclass": lambda: stem(norm=Shifted),
    "hook on the convolution": lambda: hooked(0, "register_forward_hook"),
    "hook on the norm": lambda: hooked(1, "register_forward_pre_hook"),
    "hook on the activation": lambda: hooked(2, "register_forward_pre_hook"),
    "forward of its own": with_forward_of_its_own,
    "subclass in MobileNet": lambda: in_mobilenet(Scaled),
    "weight norm": lambda: stem(lambda *size: parametrizations.weight_norm(nn.Conv2d(*size))),
    "weight norm, old": lambda: stem(lambda *size: weight_norm(nn.Conv2d(*size))),
    "spectral norm": lambda: stem(lambda *size: parametrizations.spectral_norm(nn.Conv2d(*size))),
    "spectral norm, old": lambda: stem(lambda *size: spectral_norm(nn.Conv2d(*size))),
    "pruned": lambda: stem(lambda *size: prune.l1_unstructured(nn.Conv2d(*size), "weight", 9)),
    "TorchScript": lambda: torch.jit.script(stem()),
    "frozen TorchScript": lambda: torch.jit.freeze(torch.jit.script(stem().eval())),
}


@pytest.mark.filterwarnings("ignore")  # of torch, about its own old ways
@pytest.mark.parametrize("make", AS_IT_IS.values(), ids=AS_IT_IS)
def test_a_network_that_is_more_than_its_layers_in_order_stays_as_it_is(make):
    torch.manual_seed(0)
    network, images = make().eval(), torch.randn(4, 3, 8, 8)
    for norm in batch_norms(network):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 3)
    norms = len(batch_norms(network))
    with torch.no_grad():
        expected = network(images)
        assert torch.equal(prepare(network)(images), expected)
    assert len(batch_norms(network)) == norms


def test_layers_in_two_places_are_folded_in_each():
    torch.manual_seed(0)
    shared, images = nn.Conv2d(3, 3, 3, padding=1), torch.randn(4, 3, 8, 8)
    block = nn.Sequential(shared, nn.BatchNorm2d(3))
    network = nn.Sequential(block, shared, nn.BatchNorm2d(3), nn.ReLU(), block).eval()
    for norm in batch_norms(network):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 3)
    expected = network(images)
    torch.testing.assert_close(prepare(network)(images), expected, rtol=0, atol=1e-5)
    assert not batch_norms(network) and expected.std() > 1e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_without_weights_is_ready(precision):
    class Means(nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(prepare(Means(), precision=precision)(images), images.mean((2, 3)))


class Doubled(AttnProcessor2_0):
    def __call__(self, *arguments, **options):
        return 2 * super().__call__(*arguments, **options)


@pytest.mark.parametrize("processor", [Doubled(), AttnProcessor()])
def test_attention_of_ones_own_stays(processor):
    unet = with_attention().unet
    attentions = [module for module in unet.modules() if isinstance(module, Attention)]
    for attention in attentions:
        attention.set_processor(processor)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = unet(images, 3).sample
        assert torch.equal(prepare(unet)(images, 3).sample, expected)
    assert attentions and all(attention.processor is processor for attention in attentions)


@pytest.mark.parametrize("options", [{"scale_qk": False}, {"qk_norm": "layer_norm"}])
def test_attention_by_another_formula_stays(options):
    torch.manual_seed(0)
    attention = Attention(8, heads=2, dim_head=4, **options).eval()
    if "scale_qk" in options:
        attention.set_processor(AttnProcessor2_0())
    tokens = torch.randn(2, 5, 8)
    with torch.no_grad():
        expected = attention(tokens)
        torch.testing.assert_close(prepare(nn.ModuleList([attention]))[0](tokens), expected, rtol=0, atol=1e-6)


def test_attention_over_many_tokens_is_fused(monkeypatch):
    attention, used = prepare(nn.ModuleList([Attention(8, heads=2, dim_head=4)]))[0], []
    for name in ("plain", "fused"):
        monkeypatch.setattr(SmallAttention, name, lambda *_, name=name, **__: used.append(name))
    for tokens in (torch.zeros(1, 64, 8), torch.zeros(1, 65, 8), torch.zeros(1, 8, 8, 8), torch.zeros(1, 8, 9, 8)):
        attention.processor(attention, tokens)
    assert used == ["plain", "fused"] * 2


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
