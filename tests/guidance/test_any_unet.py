"""U-Nets of other channels, sizes and classes, and such that predict their variance."""

import numpy as np
import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from pipelines import STEPS, T, draw, generator, make_guidance
from torch import nn

from nrcg import EMA, ClassifierGuidance, GuidedDDPMPipeline, adapt
from nrcg.diffusion.steps import DDPMSteps, level_at
from nrcg.errors import NrcgError


def make(kind=GuidedDDPMPipeline, scheduler=None, **unet):
    torch.manual_seed(0)
    network = UNet2DModel(**{**TINY_UNET, **unet}).eval()
    pipe = kind(unet=network, scheduler=DDPMScheduler(num_train_timesteps=T, **(scheduler or {})))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def by_hand(pipe, guidance, **told):
    """Algorithm 1 in a few lines, the unguided step by the scheduler itself."""
    rng, scheduler = generator(), pipe.scheduler
    scheduler.set_timesteps(STEPS)
    size = pipe.unet.config.sample_size
    x = torch.randn(
        (2, pipe.unet.config.in_channels, *(size if isinstance(size, tuple | list) else (size, size))), generator=rng
    )
    momentum = torch.zeros_like(x)
    for t in scheduler.timesteps:
        x = x.detach().requires_grad_()
        output = pipe.unet(x, t, **told).sample
        state = rng.get_state()
        out = scheduler.step(output, t, x, generator=rng)
        logits = guidance.classifier(out.pred_original_sample)
        (g,) = torch.autograd.grad(logits.log_softmax(1)[:, guidance.target].sum(), x)
        momentum = 0.9 * momentum + 0.1 * g
        variance = variance_of(scheduler, output, x, t)
        x = (out.prev_sample + guidance.scale * variance * momentum).detach()
        assert t == 0 or not torch.equal(state, rng.get_state())
    return (x / 2 + 0.5).clamp(0, 1)


def variance_of(scheduler, output, x, t):
    """σ_t² from diffusers' own private function, whose meaning depends on the type."""
    if t == 0 and scheduler.config.variance_type == "fixed_small":
        return 0.0
    second = output[:, x.shape[1] :].detach() if output.shape[1] > x.shape[1] else None
    found = scheduler._get_variance(t, predicted_variance=second)
    return found.exp() if scheduler.config.variance_type == "learned_range" else found


def classifier_for(channels, size=(8, 8)):
    torch.manual_seed(1)
    inner = nn.Sequential(nn.Conv2d(channels, 4, 3, stride=2), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(inner, nn.Linear(16, 3)).eval()


@pytest.mark.parametrize("channels", [1, 4])
def test_one_and_four_channels(channels):
    kwargs = {"in_channels": channels, "out_channels": channels}
    assert torch.equal(draw(make(**kwargs)).images, draw(make(DDPMPipeline, **kwargs)).images)
    guidance = ClassifierGuidance(classifier_for(channels), 1, 8.0, stabilizer=EMA(0.9))
    found = draw(make(**kwargs), guidance).images
    assert found.shape == (2, channels, 8, 8)
    torch.testing.assert_close(found, by_hand(make(**kwargs), guidance), rtol=0, atol=2e-5)
    assert not torch.equal(found, draw(make(**kwargs)).images)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_classifier_of_rgb_images_guides_others_by_its_adapter(channels):
    pipe, plain = make(in_channels=channels, out_channels=channels), make_guidance(scale=20.0)
    guided = draw(pipe, ClassifierGuidance(adapt(plain.classifier), 1, 20.0)).images
    assert (guided - draw(pipe).images).abs().max() > 1e-3


def test_pictures_of_one_and_four_channels():
    for channels, mode in ((1, "L"), (4, "RGBA")):
        pipe = make(in_channels=channels, out_channels=channels)
        assert [picture.mode for picture in draw(pipe, output_type="pil").images] == [mode, mode]
        assert draw(pipe, output_type="np").images.shape == (2, 8, 8, channels)


def test_sizes_that_are_not_square():
    kwargs = {"sample_size": [8, 12]}
    assert torch.equal(draw(make(**kwargs)).images, draw(make(DDPMPipeline, **kwargs)).images)
    guidance = ClassifierGuidance(classifier_for(3), 1, 8.0, stabilizer=EMA(0.9))
    found = draw(make(**kwargs), guidance).images
    assert found.shape == (2, 3, 8, 12)
    torch.testing.assert_close(found, by_hand(make(**kwargs), guidance), rtol=0, atol=2e-5)


@pytest.mark.parametrize("labels", [2, [0, 2]], ids=str)
def test_class_conditional_unets_are_told_their_classes(labels):
    pipe = make(num_class_embeds=3)
    told = torch.tensor([labels, labels] if isinstance(labels, int) else labels)
    guidance = ClassifierGuidance(classifier_for(3), 1, 8.0, stabilizer=EMA(0.9))
    found = draw(pipe, guidance, class_labels=labels).images
    torch.testing.assert_close(found, by_hand(pipe, guidance, class_labels=told), rtol=0, atol=2e-5)
    assert not torch.allclose(found, draw(pipe, guidance, class_labels=1).images)


@pytest.mark.parametrize(
    ("unet", "labels", "message"),
    [
        ({"num_class_embeds": 3}, None, "unet: class-conditional; give it class_labels"),
        ({}, 1, "unet: not class-conditional; leave class_labels out"),
        ({"num_class_embeds": 3}, 3, "class_labels 3: the classes of the U-Net are 0 to 2"),
        ({"num_class_embeds": 3}, [0, 1, 2], "class_labels holds 3 for 2 samples"),
        ({"num_class_embeds": 3}, "cat", "must be a class index"),
    ],
)
def test_classes_that_a_unet_cannot_be_told(unet, labels, message):
    with pytest.raises(NrcgError, match=message):
        draw(make(**unet), class_labels=labels)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_learned_variance_is_the_steps_own_and_weighs_the_gradient(prediction_type):
    scheduler = {"variance_type": "learned_range", "prediction_type": prediction_type}
    kwargs = {"out_channels": 6, "scheduler": scheduler}
    torch.testing.assert_close(
        draw(make(**kwargs)).images, draw(make(DDPMPipeline, **kwargs)).images, rtol=0, atol=2e-6
    )
    guidance = ClassifierGuidance(classifier_for(3), 1, 8.0, stabilizer=EMA(0.9))
    found = draw(make(**kwargs), guidance).images
    torch.testing.assert_close(found, by_hand(make(**kwargs), guidance), rtol=0, atol=2e-5)


def test_a_second_half_that_the_scheduler_does_not_ask_for_is_left_out():
    torch.manual_seed(0)
    pipe, shorter = make(out_channels=6), make()
    shorter.unet.load_state_dict(
        {name: tensor[:3] if name.startswith("conv_out") else tensor for name, tensor in pipe.unet.state_dict().items()}
    )
    guidance = ClassifierGuidance(classifier_for(3), 1, 8.0)
    torch.testing.assert_close(draw(pipe, guidance).images, draw(shorter, guidance).images, rtol=0, atol=1e-6)


def test_learned_variance_is_between_its_two_limits_in_float64():
    scheduler = DDPMScheduler(num_train_timesteps=T, variance_type="learned_range")
    scheduler.set_timesteps(STEPS)
    rng = np.random.default_rng(0)
    x, v = (torch.from_numpy(rng.normal(size=(2, 3, 4, 4))) for _ in range(2))
    t = int(scheduler.timesteps[2])
    variance = DDPMSteps(scheduler, iter(())).variance(level_at(scheduler, t), x, torch.cat([x, v], dim=1))
    betas = np.linspace(1e-4, 0.02, T)
    bars = np.cumprod(1 - betas)
    before = bars[t - T // STEPS]
    beta = 1 - bars[t] / before
    small = (1 - before) / (1 - bars[t]) * beta
    share = (v.numpy() + 1) / 2
    np.testing.assert_allclose(variance, np.exp(share * np.log(beta) + (1 - share) * np.log(small)), rtol=1e-5)
