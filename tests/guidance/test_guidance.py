"""Stabilisers, objectives, x̂_0 and the gradient, each against an independent implementation."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

import nrcg.guidance
from nrcg import EMA, Adam, ClassifierGuidance
from nrcg.diffusion.denoise import one_step_denoiser, pred_original_sample
from nrcg.diffusion.steps import level_at
from nrcg.errors import NrcgError
from nrcg.guidance.gradient import frozen, image_gradient
from nrcg.guidance.objectives import ClassValue


def make_classifier(n_logits: int = 3, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(36, n_logits)
    return nn.Sequential(*layers).to(dtype).eval()


def make_unet(dtype: torch.dtype = torch.float64) -> UNet2DModel:
    torch.manual_seed(2)
    return UNet2DModel(**TINY_UNET).to(dtype).eval()


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: EMA(1.0), "beta"),
        (lambda: EMA(math.nan), "beta"),
        (lambda: Adam(beta1=-0.1), "beta1"),
        (lambda: Adam(beta2=1.0), "beta2"),
        (lambda: Adam(eps=0.0), "eps"),
        (lambda: ClassifierGuidance(None, 0, 1.0), "classifier"),
        (lambda: ClassifierGuidance(nn.Identity(), 1.5, 1.0), "target"),
        (lambda: ClassifierGuidance(nn.Identity(), torch.zeros(2), 1.0), "target"),
        (lambda: ClassifierGuidance(nn.Identity(), 0, -1.0), "scale"),
        (lambda: ClassifierGuidance(nn.Identity(), 0, math.inf), "scale"),
        (lambda: ClassifierGuidance(nn.Identity(), 0, 1.0, on="x1"), "on"),
        (lambda: ClassifierGuidance(nn.Identity(), 0, 1.0, objective="prob"), "objective"),
        (lambda: ClassifierGuidance(nn.Identity(), 0, 1.0, stabilizer=0.99), "stabilizer"),
        (lambda: EMA("x"), "beta"),
        (lambda: EMA(True), "beta"),
        (lambda: EMA(None), "beta"),
        (lambda: EMA(0.5, bias_correction="no"), "bias_correction"),
        (lambda: Adam(beta1="0.9"), "beta1"),
        (lambda: Adam(eps="1e-4"), "eps"),
        (lambda: Adam(eps=math.nan), "eps"),
        (lambda: Adam(eps=True), "eps"),
        (lambda: Adam(bias_correction=1), "bias_correction"),
    ],
)
def test_bad_values_are_refused_by_name(make, key):
    with pytest.raises(NrcgError, match=key):
        make()


WRONG = {
    "classifier": [None, nn.Identity, len],
    "target": [True, "1", None, 1.0, [0.5], [[0, 1]], {"a": 1}, 2**70, torch.tensor([True])],
    "scale": ["5", None, math.nan, True, [1.0], torch.ones(2)],
    "on": [None, 0],
    "stabilizer": [EMA, Adam, "emma"],
    "jacobian": ["no", 0, None],
    "every": [2.5, "2", True, None, 0, -1],
    "interval": [5, (5,), (0, 10, 20), "05", (5, 2), (-1, 5), (0.0, 5.0), (0, True), (0, math.nan), [0, "9"]],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_values_of_another_type_are_refused_by_name(key, value):
    with pytest.raises(NrcgError, match=key) as raised:
        ClassifierGuidance(**{"classifier": nn.Identity(), "target": 0, "scale": 1.0, key: value})
    assert isinstance(raised.value, ValueError) and "\n" not in str(raised.value)


def objective_values(logits, target, objective):
    """The values of logits that a classifier gives."""
    return ClassValue(nn.Identity(), target, objective)(logits)


@pytest.mark.parametrize(
    ("target", "same"),
    [
        (np.int64(1), 1),
        (np.uint8(1), 1),
        (torch.tensor(1, dtype=torch.int32), 1),
        (np.array([1, 0]), torch.tensor([1, 0])),
        (np.array([1, 0], dtype=np.uint16), torch.tensor([1, 0])),
        ([1, 0], torch.tensor([1, 0])),
        ((np.int64(1), 0), torch.tensor([1, 0])),
    ],
)
def test_targets_are_integers_of_any_kind(target, same):
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    ClassifierGuidance(nn.Identity(), target, 1.0)
    assert torch.equal(objective_values(logits, target, "logit"), objective_values(logits, same, "logit"))


def test_numbers_of_numpy_are_numbers():
    options = {"stabilizer": EMA(np.float32(0.5)), "every": np.int64(2), "interval": [np.int32(0), np.float64(0.5)]}
    assert ClassifierGuidance(nn.Identity(), 0, np.float32(2.5), **options).plan([0.6, 0.5])[1].renew


def test_guidance_is_shown_in_one_line():
    guidance = ClassifierGuidance(make_unet(), 1, 5.0, stabilizer=EMA(0.9))
    assert repr(guidance) == (
        "ClassifierGuidance(classifier=UNet2DModel, target=1, scale=5.0, "
        "stabilizer=EMA(steps=None, beta=0.9, bias_correction=False))"
    )
    many = repr(ClassifierGuidance(make_unet(), torch.arange(256), 5.0))
    assert len(many) < 300 and "\n" not in many


def test_defaults_are_the_issues():
    guidance = ClassifierGuidance(make_classifier(), target=0, scale=15.0)
    assert (guidance.on, guidance.objective, guidance.stabilizer) == ("x0", "log_prob", None)
    assert not EMA().bias_correction and not Adam().bias_correction


def test_objectives_of_many_classes():
    logits = torch.tensor([[1.0, 2.0, -1.0], [0.0, -3.0, 5.0]], dtype=torch.float64)
    for target, picks in (2, (2, 2)), (torch.tensor([0, 2]), (0, 2)):
        expected = [
            math.log(math.exp(row[y]) / sum(map(math.exp, row))) for row, y in zip(logits.tolist(), picks, strict=True)
        ]
        assert objective_values(logits, target, "log_prob").tolist() == pytest.approx(expected)
        assert objective_values(logits, target, "logit").tolist() == [logits[i, y].item() for i, y in enumerate(picks)]


def test_objectives_of_a_binary_classifier():
    logits = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    positive = [1 / (1 + math.exp(-2.0)), 1 / (1 + math.exp(1.0))]
    assert objective_values(logits, 1, "log_prob").tolist() == pytest.approx([math.log(p) for p in positive])
    assert objective_values(logits, 0, "log_prob").tolist() == pytest.approx([math.log(1 - p) for p in positive])
    assert objective_values(logits, 1, "logit").tolist() == [2.0, -1.0]
    assert objective_values(logits, torch.tensor([0, 1]), "logit").tolist() == [-2.0, -1.0]


def test_log_prob_does_not_overflow():
    assert objective_values(torch.tensor([[200.0]]), 0, "log_prob").item() == -200.0
    assert objective_values(torch.tensor([[0.0, 500.0]]), 0, "log_prob").item() == -500.0


@pytest.mark.parametrize(("n_logits", "target"), [(3, 3), (3, -1), (1, 2), (3, torch.tensor([0, 1, 2]))])
def test_targets_that_do_not_fit_the_logits_are_refused(n_logits, target):
    with pytest.raises(NrcgError, match="target"):
        objective_values(torch.zeros(2, n_logits), target, "log_prob")


def test_logits_of_another_shape_are_refused():
    with pytest.raises(NrcgError, match="N×C"):
        image_gradient(ClassValue(nn.Flatten(0), 0), torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "limits",
    [{"clip_sample": False}, {"clip_sample": True}, {"clip_sample_range": 0.7}, {"thresholding": True}],
    ids=["free", "clip", "clip_range", "threshold"],
)
def test_pred_original_sample_is_the_schedulers_own(prediction_type, limits):
    scheduler = DDPMScheduler(num_train_timesteps=40, prediction_type=prediction_type, **limits)
    torch.manual_seed(0)
    output, sample = torch.randn(2, 2, 3, 8, 8)
    for t in 0, 13, 39:
        expected = scheduler.step(output, t, sample).pred_original_sample
        torch.testing.assert_close(
            pred_original_sample(scheduler, output, level_at(scheduler, t), sample), expected, rtol=0, atol=1e-6
        )


def test_pred_original_sample_inverts_the_forward_process():
    scheduler = DDPMScheduler(num_train_timesteps=40)
    image, noise = torch.rand(2, 1, 3, 8, 8, dtype=torch.float64)
    noisy = scheduler.add_noise(image, noise, torch.tensor([20]))
    torch.testing.assert_close(
        pred_original_sample(scheduler, noise, level_at(scheduler, 20), noisy), image, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("n_logits", [1, 3])
@pytest.mark.parametrize("on", ["xt", "x0"])
def test_gradient_equals_finite_differences(on, n_logits):
    classifier, unet, t = make_classifier(n_logits), make_unet(), 25
    scheduler = DDPMScheduler(num_train_timesteps=40)
    torch.manual_seed(0)
    x, direction = torch.randn(2, 1, 3, 8, 8, dtype=torch.float64)

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        if on == "x0":
            alpha = scheduler.alphas_cumprod[t].double()
            x = ((x - (1 - alpha).sqrt() * unet(x, t).sample) / alpha.sqrt()).clamp(-1, 1)
        logits = classifier(x)
        return logits.sigmoid().log().sum() if n_logits == 1 else logits.softmax(1)[0, 1].log()

    step = 1e-5 * direction
    with torch.no_grad():
        expected = (log_prob(x + step) - log_prob(x - step)) / 2e-5
    denoise = one_step_denoiser(unet, scheduler, level_at(scheduler, t)) if on == "x0" else None
    gradient, _, output, _ = image_gradient(ClassValue(classifier, 1), x, denoise=denoise)
    assert (gradient * direction).sum().item() == pytest.approx(expected.item(), rel=1e-4)
    assert output is None or torch.equal(output, unet(x, t).sample)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_in_any_grad_mode(mode):
    classifier, unet, scheduler = make_classifier(), make_unet(), DDPMScheduler(num_train_timesteps=40)
    x = torch.ones(2, 3, 8, 8, dtype=torch.float64)
    expected, *_ = image_gradient(
        ClassValue(classifier, 1), x, denoise=one_step_denoiser(unet, scheduler, level_at(scheduler, 20))
    )
    with mode(), frozen(classifier, unet):
        noisy, target = x + 0, torch.tensor([1, 1])  # made in that mode too
        gradient, *_ = image_gradient(
            ClassValue(classifier, target), noisy, denoise=one_step_denoiser(unet, scheduler, level_at(scheduler, 20))
        )
    torch.testing.assert_close(gradient, expected)
    assert expected.abs().max() > 0
    assert all(weight.grad is None for weight in [*classifier.parameters(), *unet.parameters()])


class InPlace(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images.add_(1).mul_(0.5))


@pytest.mark.parametrize("on", ["xt", "x0"])
def test_a_classifier_may_change_its_input_in_place(on):
    classifier, unet, scheduler = make_classifier(), make_unet(), DDPMScheduler(num_train_timesteps=40)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given, denoise = x.clone(), one_step_denoiser(unet, scheduler, level_at(scheduler, 20)) if on == "x0" else None
    gradient, *_ = image_gradient(ClassValue(InPlace(classifier), 1), given, denoise=denoise)
    assert torch.equal(given, x)

    def prepared(images):
        seen, aside = denoise(images) if denoise else (images, None)
        return (seen + 1) * 0.5, aside

    expected, *_ = image_gradient(ClassValue(classifier, 1), x, denoise=prepared)
    torch.testing.assert_close(gradient, expected)


class NoGradient(nn.Module):
    def __init__(self, decide) -> None:
        super().__init__()
        self.inner, self.decide = make_classifier(), decide

    def forward(self, images):
        return self.decide(self.inner, images)


class Opaque(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits):
        return logits.clone()


@pytest.mark.parametrize(
    "decide",
    [
        torch.no_grad()(lambda inner, images: inner(images)),
        torch.inference_mode()(lambda inner, images: inner(images)),
        lambda inner, images: inner(images).detach(),
        lambda inner, images: inner(images.detach()),
        lambda inner, images: nn.functional.one_hot(inner(images).argmax(1), 3).double(),
        lambda inner, images: inner(images).argmax(1, keepdim=True).expand(-1, 3),
        lambda inner, images: torch.from_numpy(inner(images).detach().numpy()),
        lambda inner, images: Opaque.apply(inner(images)),
    ],
    ids=["no_grad", "inference_mode", "detached", "detached input", "one hot", "index", "numpy", "no backward"],
)
@pytest.mark.parametrize("on", ["xt", "x0"])
@pytest.mark.parametrize("freeze", [True, False])
def test_a_classifier_without_a_gradient_is_one_line(decide, on, freeze):
    classifier, unet, scheduler = NoGradient(decide), make_unet(), DDPMScheduler(num_train_timesteps=40)
    denoise = one_step_denoiser(unet, scheduler, level_at(scheduler, 20)) if on == "x0" else None
    x = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    with pytest.raises(NrcgError, match="passes through NoGradient"), frozen(*[classifier, unet][: 2 * freeze]):
        image_gradient(ClassValue(classifier, 1), x, denoise=denoise)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("frozen_script", [True, False])
@pytest.mark.parametrize("on", ["xt", "x0"])
def test_torchscript_guides_like_the_module_it_was_made_of(on, frozen_script):
    classifier, unet, scheduler = make_classifier(), make_unet(), DDPMScheduler(num_train_timesteps=40)
    script = torch.jit.script(classifier)
    script = torch.jit.freeze(script) if frozen_script else script
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoise = one_step_denoiser(unet, scheduler, level_at(scheduler, 20)) if on == "x0" else None
    with frozen(script, unet):
        gradient, *_ = image_gradient(ClassValue(script, 1), x, denoise=denoise)
    torch.testing.assert_close(gradient, image_gradient(ClassValue(classifier, 1), x, denoise=denoise)[0])


def test_frozen_restores_every_flag_even_on_an_error():
    network = make_classifier().train()
    network[1].eval()
    network[0].bias.requires_grad_(False)

    def flags():
        return [m.training for m in network.modules()], [p.requires_grad for p in network.parameters()]

    before = flags()
    with pytest.raises(RuntimeError, match="inside"), frozen(network):
        assert not any(flags()[0]) and not any(flags()[1])
        raise RuntimeError("inside")
    assert flags() == before


def test_a_bfloat16_classifier_gives_a_float32_gradient():
    x = torch.full((2, 3, 8, 8), 0.3)
    expected, *_ = image_gradient(ClassValue(make_classifier(dtype=torch.float32), 1), x)
    gradient, logits, *_ = image_gradient(ClassValue(make_classifier(dtype=torch.bfloat16), 1), x)
    assert gradient.dtype == logits.dtype == torch.float32
    assert 0 < (gradient - expected).norm() < 0.05 * expected.norm()


def test_guidance_and_diffusion_import_little_of_the_project():
    names = ("diffusion", "guidance", "methods", "errors", "checks", "registry", "rng")
    allowed = tuple(f"nrcg.{name}" for name in names)
    folder = Path(nrcg.guidance.__file__).parent
    for path in [*folder.glob("*.py"), *(folder.parent / "diffusion").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])]
            assert all(name.startswith(allowed) for name in names if name.startswith("nrcg")), f"{path}: {names}"
