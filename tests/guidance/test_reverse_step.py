"""One reverse step: its mean, variance and draws; and guidance that saves time."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from pipelines import STEPS, T, draw, generator, make_guidance, make_pipeline

from nrcg import EMA
from nrcg.diffusion.denoise import one_step_denoiser, pred_original_sample
from nrcg.diffusion.draws import drawn_ahead, gaussian_draws
from nrcg.diffusion.steps import DDPMSteps, level_at
from nrcg.errors import NrcgError


@pytest.mark.parametrize("n", [1, 5])
def test_draws_made_ahead_are_diffusers_draws(n):
    shape, cpu = (5, 3, 4, 4), torch.device("cpu")
    kwargs = {"count": 4, "device": cpu, "dtype": torch.float32}
    ours, theirs = ([generator(i) for i in range(n)] for _ in range(2))
    ahead = list(drawn_ahead(shape, ours, **kwargs))
    expected = list(gaussian_draws(shape, theirs if n > 1 else theirs[0], **kwargs))
    assert len(ahead) == 4 and all(map(torch.equal, ahead, expected))
    assert all(torch.equal(a.get_state(), b.get_state()) for a, b in zip(ours, theirs, strict=True))
    assert not torch.equal(ahead[0], ahead[1])


@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"])
@pytest.mark.parametrize("steps", [T, STEPS])
def test_posterior_is_the_formulas(variance_type, steps):
    scheduler = DDPMScheduler(num_train_timesteps=T, variance_type=variance_type, clip_sample=False)
    scheduler.set_timesteps(steps)
    alphas = np.cumprod(1 - np.linspace(1e-4, 0.02, T))  # float64, the scheduler's are float32
    x, output = torch.randn(2, 1, 3, 8, 8, generator=generator())
    ours = DDPMSteps(scheduler, iter(()))
    for t in scheduler.timesteps:
        a, a_prev = alphas[t], alphas[t - T // steps] if t >= T // steps else 1.0
        beta = 1 - a / a_prev
        level = level_at(scheduler, t)
        mean = ours.step(level, x, pred_original_sample(scheduler, output, level, x), output, None, None)
        variance = ours.variance(level, x, output)
        x0 = (x.double() - (1 - a) ** 0.5 * output.double()) / a**0.5
        expected = (a_prev**0.5 * beta * x0 + (a / a_prev) ** 0.5 * (1 - a_prev) * x.double()) / (1 - a)
        torch.testing.assert_close(mean.double(), expected, rtol=0, atol=1e-4)
        expected = beta if "large" in variance_type else (1 - a_prev) / (1 - a) * beta
        assert float(variance) == pytest.approx(expected, rel=2e-3)


def by_hand(pipe, guidance, steps_guided) -> torch.Tensor:
    """Guided sampling by EMA 0.5 whose gradient comes from `steps_guided(step, t)`: new, old or none."""
    pipe.scheduler.set_timesteps(STEPS)
    random, moment, gradient = generator(), torch.zeros(2, 3, 8, 8), None
    x = torch.randn(2, 3, 8, 8, generator=random)
    for step, t in enumerate(pipe.scheduler.timesteps.tolist()):
        leaf, what = x.clone().requires_grad_(), steps_guided(step, t)
        output = pipe.unet(leaf, t).sample
        a = pipe.scheduler.alphas_cumprod[t]
        if what == "new":
            held = output if guidance.jacobian else output.detach()
            x0 = ((leaf - (1 - a) ** 0.5 * held) / a**0.5).clamp(-1, 1)
            (gradient,) = torch.autograd.grad(guidance.classifier(x0).log_softmax(1)[:, 1].sum(), leaf)
        variance = pipe.scheduler._get_variance(t)
        x = pipe.scheduler.step(output.detach(), t, x, generator=random).prev_sample
        if what != "none":
            moment = 0.5 * moment + 0.5 * gradient
            x = x + guidance.scale * variance * moment
    return (x / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize(
    ("saving", "steps_guided"),
    [
        ({"jacobian": False}, lambda step, t: "new"),
        ({"every": 3}, lambda step, t: "old" if step % 3 else "new"),
        ({"interval": (0.25, 0.75)}, lambda step, t: "new" if 10 <= t <= 30 else "none"),
        (
            {"interval": (0.125, 0.75), "every": 4},  # guided steps 1 to 6: new at the first and the fifth of them
            lambda step, t: "none" if not 5 <= t <= 30 else "old" if (step - 1) % 4 else "new",
        ),
    ],
)
def test_cheaper_guidance_is_what_it_says(saving, steps_guided):
    pipe, guidance = make_pipeline(), make_guidance(30.0, stabilizer=EMA(0.5), **saving)
    ours = draw(pipe, guidance).images
    torch.testing.assert_close(ours, by_hand(pipe, guidance, steps_guided), rtol=0, atol=1e-5)
    full = draw(pipe, make_guidance(30.0, stabilizer=EMA(0.5))).images
    assert (ours - full).abs().max() > 1e-3


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_without_the_jacobian_the_slope_is_one_over_the_signal(prediction_type):
    pipe = make_pipeline(prediction_type=prediction_type, clip_sample=False)
    x, weight = torch.randn(2, 2, 3, 8, 8, generator=generator())
    x.requires_grad_()
    level = level_at(pipe.scheduler, 7)
    x0, output = one_step_denoiser(pipe.unet, pipe.scheduler, level, jacobian=False)(x)
    torch.testing.assert_close(x0, pred_original_sample(pipe.scheduler, output, level, x))
    (slope,) = torch.autograd.grad((x0 * weight).sum(), x)
    torch.testing.assert_close(slope, weight / pipe.scheduler.alphas_cumprod[7] ** 0.5)


@pytest.mark.parametrize(
    ("saving", "message"),
    [
        ({"jacobian": False, "on": "xt"}, "jacobian"),
        ({"every": 0}, "every 0"),
        ({"interval": (0.5, 0.2)}, r"interval \(0.5, 0.2\)"),
    ],
)
def test_cheaper_guidance_that_makes_no_sense_is_refused(saving, message):
    with pytest.raises(NrcgError, match=message):
        make_guidance(**saving)
