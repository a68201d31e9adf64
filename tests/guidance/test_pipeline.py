"""The guided pipeline: diffusers' own images when unguided, Algorithm 1 when guided, and no traces left behind."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, DiffusionPipeline
from pipelines import STEPS, T, draw, generator, make_guidance, make_pipeline
from torch import nn

from nrcg import EMA, Adam, ClassifierGuidance, GuidedDDPMPipeline
from nrcg.diffusion.steps import DDPMSteps
from nrcg.errors import NrcgError
from nrcg.guidance.loop import guided_loop


@pytest.mark.parametrize("kwargs", [{}, {"clip_sample": False}, {"clip_sample_range": 0.5}, {"thresholding": True}])
@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_unguided_is_bitwise_diffusers(variance_type, prediction_type, kwargs):
    kwargs = {"variance_type": variance_type, "prediction_type": prediction_type, **kwargs}
    theirs = draw(make_pipeline(DDPMPipeline, **kwargs)).images
    ours = draw(make_pipeline(**kwargs))
    assert torch.equal(ours.images, theirs) and not ours.diverged.any()
    assert theirs.std() > 0.05


SCHEDULES = [
    {"timestep_spacing": spacing, "steps_offset": offset, "steps": steps}
    for spacing in ("leading", "trailing", "linspace")
    for offset in (0, 1, 3)
    for steps in (1, 2, 3, 5, 10, 13, 20, 39)
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: "-".join(map(str, schedule.values())))
@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large"])
def test_unguided_is_diffusers_on_every_schedule(schedule, variance_type):
    kwargs = {"variance_type": variance_type, **schedule}
    steps, ours, theirs = kwargs.pop("steps"), generator(), generator()
    pipes = make_pipeline(**kwargs), make_pipeline(DDPMPipeline, **kwargs)
    try:
        expected = draw(pipes[1], num_inference_steps=steps, generator=theirs).images
    except IndexError:  # timesteps of T and above
        with pytest.raises(NrcgError, match=f"steps_offset={schedule['steps_offset']}"):
            draw(pipes[0], num_inference_steps=steps)
        return
    images = draw(pipes[0], num_inference_steps=steps, generator=ours).images
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
    assert torch.equal(ours.get_state(), theirs.get_state())  # not a draw more or less


@pytest.mark.parametrize("on", ["xt", "x0"])
def test_guided_draws_where_the_last_timestep_is_above_0(on):
    pipe, guidance = make_pipeline(timestep_spacing="linspace", steps_offset=1), make_guidance(on=on)
    assert draw(pipe, guidance, num_inference_steps=1).images.isfinite().all()


def test_steps_are_the_schedules_own_by_default():
    pipe, seen = make_pipeline(), []
    pipe(callback_on_step_end=lambda _pipe, step, t, _tensors: seen.append((step, int(t))))
    assert seen == [(step, T - 1 - step) for step in range(T)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_inference_steps": T + 1}, f"num_inference_steps is {T + 1}; .* from 1 to {T}"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": 2.5}, r"num_inference_steps is 2\.5"),
        ({"num_inference_steps": True}, "num_inference_steps is True"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"generator": 0}, "generator 0"),
        ({"generator": [None, None]}, r"generator \[None, None\]"),
        ({"batch_size": "2"}, "batch_size '2'"),
        ({"guidance": {"scale": 1.0}}, r"guidance \{'scale'"),
        ({"guidance": make_guidance(interval=(0.9, 1))}, r"interval \(0.9, 1\) contains none.*0.875 to 0 of T"),
        ({"guidance": make_guidance(interval=(0.01, 0.1))}, "interval"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_anything_is_drawn(arguments, message):
    pipe, random = make_pipeline(), generator()
    start = random.get_state()
    with pytest.raises(NrcgError, match=message):
        pipe(**{"batch_size": 2, "num_inference_steps": STEPS, "generator": random} | arguments)
    assert torch.equal(random.get_state(), start)


def test_a_misspelt_spacing_is_one_line():
    with pytest.raises(NrcgError, match="scheduler: trailling"):
        draw(make_pipeline(timestep_spacing="trailling"))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_unguided_without_signal_at_t_is_diffusers(kind):
    kwargs = {"rescale_betas_zero_snr": True, "prediction_type": kind}
    ours = draw(make_pipeline(**kwargs), num_inference_steps=T)
    assert torch.equal(ours.images, draw(make_pipeline(DDPMPipeline, **kwargs), num_inference_steps=T).images)
    assert not ours.diverged.any()


@pytest.mark.parametrize("jacobian", [True, False])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_guidance_without_signal_at_t_draws_or_is_refused(kind, jacobian):
    pipe = make_pipeline(rescale_betas_zero_snr=True, prediction_type=kind)
    guidance = make_guidance(jacobian=jacobian)
    if jacobian and kind != "epsilon":
        assert not draw(pipe, guidance, num_inference_steps=T).diverged.any()
    else:
        with pytest.raises(NrcgError, match=r"ᾱ_t is 0 at timestep 39.*interval=\(0, 0.95\)"):
            draw(pipe, guidance, num_inference_steps=T)
        guidance = make_guidance(jacobian=jacobian, interval=(0, 0.95))
        assert not draw(pipe, guidance, num_inference_steps=T).diverged.any()
    assert not draw(pipe, make_guidance(on="xt"), num_inference_steps=T).diverged.any()


def test_callbacks_get_the_step_and_what_was_computed_in_it():
    pipe, guidance, seen = make_pipeline(), make_guidance(30.0, interval=(0.25, 0.75)), []
    scheduler = DDPMScheduler(num_train_timesteps=T)
    scheduler.set_timesteps(STEPS)

    def callback(*arguments):
        seen.append(arguments)

    images = draw(pipe, guidance, callback_on_step_end=callback).images
    assert [(who, step, int(t)) for who, step, t, _ in seen] == [(pipe, i, 35 - 5 * i) for i in range(STEPS)]
    assert all(tensors.keys() == {"latents", "pred_original_sample", "gradient"} for *_, tensors in seen)
    random, latents = generator(), None
    for _, _, t, tensors in seen:
        before = torch.randn(2, 3, 8, 8, generator=random) if latents is None else latents
        latents, x0, gradient = tensors["latents"], tensors["pred_original_sample"], tensors["gradient"]
        with torch.no_grad():
            step = scheduler.step(pipe.unet(before, t).sample, t, before, generator=random)
        torch.testing.assert_close(x0, step.pred_original_sample)
        assert (gradient is None) == (t < 10 or t > 30)
        shift = 0.0 if gradient is None else 30.0 * scheduler._get_variance(t) * gradient
        torch.testing.assert_close(latents, step.prev_sample + shift, rtol=0, atol=1e-5)
    assert torch.equal(images, (latents / 2 + 0.5).clamp(0, 1))


def test_unguided_with_the_variance_by_its_logarithm_is_diffusers():
    theirs = draw(make_pipeline(DDPMPipeline, variance_type="fixed_small_log")).images
    ours = draw(make_pipeline(variance_type="fixed_small_log")).images
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_output_types_are_diffusers():
    ours, theirs = make_pipeline(), make_pipeline(DDPMPipeline)
    array, expected = (draw(pipe, output_type="np").images for pipe in (ours, theirs))
    assert array.shape == (2, 8, 8, 3) and array.dtype == expected.dtype and np.array_equal(array, expected)
    pictures, expected = (draw(pipe, output_type="pil").images for pipe in (ours, theirs))
    assert all(a.tobytes() == b.tobytes() and a.size == b.size for a, b in zip(pictures, expected, strict=True))
    tensor = draw(ours).images
    assert tensor.shape == (2, 3, 8, 8) and 0 <= tensor.min() < tensor.max() <= 1
    assert np.array_equal(draw(ours, output_type="numpy").images, array)
    start = generator().get_state()
    with pytest.raises(NrcgError, match="output_type"):
        draw(ours, output_type="jpg", generator=(unused := generator()))
    assert torch.equal(unused.get_state(), start)


def test_arguments_in_diffusers_order_and_tuple():
    images, diverged = make_pipeline()(2, generator(), STEPS, "pt", False)
    (expected,) = make_pipeline(DDPMPipeline)(2, generator(), STEPS, "pt", False)
    assert torch.equal(images, expected)
    assert diverged.dtype == torch.bool and diverged.shape == (2,)


@pytest.mark.parametrize("on", ["xt", "x0"])
def test_scale_zero_is_no_guidance_even_by_a_broken_classifier(on):
    pipe, inner = make_pipeline(), make_guidance().classifier
    guidance = ClassifierGuidance(BadFor(inner, 1, float("nan")), 1, 0.0, on=on, stabilizer=EMA())
    out = draw(pipe, guidance)
    assert torch.equal(out.images, draw(pipe).images) and not out.diverged.any()


def test_guidance_takes_no_random_draws():
    ours, theirs = generator(), generator()
    global_state = torch.get_rng_state()
    pipe, guidance = make_pipeline(), make_guidance()
    torch.set_rng_state(global_state)
    draw(pipe, guidance, generator=ours)
    draw(pipe, generator=theirs)
    assert torch.equal(ours.get_state(), theirs.get_state())
    assert torch.equal(torch.get_rng_state(), global_state)


def algorithm_1(pipe, guidance, stabilise) -> torch.Tensor:
    """Algorithm 1 as the paper writes it, by itself: mean, variance and x̂_0 from ᾱ in float64; x_0 in [0, 1]."""
    pipe.scheduler.set_timesteps(STEPS)
    steps, random = pipe.scheduler.timesteps.tolist(), generator()
    alphas = np.cumprod(1 - np.linspace(1e-4, 0.02, T))
    x = torch.randn(2, 3, 8, 8, generator=random).double()
    for i, t in enumerate(steps):
        a, a_prev = alphas[t], alphas[steps[i + 1]] if i + 1 < len(steps) else 1.0
        beta = 1 - a / a_prev
        variance = (1 - a_prev) / (1 - a) * beta
        leaf = x.clone().requires_grad_()
        noise = pipe.unet(leaf.float(), t).sample.double()
        x0 = ((leaf - (1 - a) ** 0.5 * noise) / a**0.5).clamp(-1, 1)
        seen = x0 if guidance.on == "x0" else leaf
        scores = guidance.classifier(seen.float())[:, 1] if guidance.objective == "logit" else None
        if scores is None:
            scores = guidance.classifier(seen.float()).softmax(1)[:, 1].log()
        (gradient,) = torch.autograd.grad(scores.sum(), leaf)
        mean = (a_prev**0.5 * beta * x0 + (a / a_prev) ** 0.5 * (1 - a_prev) * x) / (1 - a)
        x = mean.detach() + guidance.scale * variance * stabilise(gradient)
        if t > 0:
            x = x + variance**0.5 * torch.randn(2, 3, 8, 8, generator=random).double()
    return (x / 2 + 0.5).clamp(0, 1).float()


@pytest.mark.parametrize("objective", ["log_prob", "logit"])
@pytest.mark.parametrize("on", ["xt", "x0"])
def test_guided_is_algorithm_1(on, objective):
    pipe = make_pipeline()
    moment = torch.zeros(2, 3, 8, 8, dtype=torch.float64)

    def ema(gradient):
        moment.mul_(0.6).add_(0.4 * gradient)
        return moment

    guidance = make_guidance(30.0, on=on, objective=objective, stabilizer=EMA(0.6))
    expected = algorithm_1(pipe, guidance, ema)
    torch.testing.assert_close(draw(pipe, guidance).images, expected, rtol=0, atol=1e-4)
    assert (expected - draw(pipe).images).abs().max() > 0.01  # guidance did something


def test_state_starts_at_zero_in_every_call():
    pipe, guidance = make_pipeline(), make_guidance(stabilizer=Adam())
    assert torch.equal(draw(pipe, guidance).images, draw(pipe, guidance).images)


@pytest.mark.parametrize("on", ["xt", "x0"])
def test_one_unet_pass_a_step_and_backward_through_it_for_x0_only(on):
    pipe, passes = make_pipeline(), []
    pipe.unet.register_forward_hook(lambda _module, _inputs, output: passes.append(output.sample.requires_grad))
    draw(pipe, make_guidance(on=on))
    assert passes == [on == "x0"] * STEPS


@pytest.mark.parametrize("stabilizer", [None, EMA(0.9)])
def test_a_sample_is_the_same_in_any_batch(stabilizer):
    pipe = make_pipeline()
    targets = torch.tensor([1, 0, 2])
    together = draw(
        pipe,
        make_guidance(target=targets, stabilizer=stabilizer),
        batch_size=3,
        generator=[generator(i) for i in range(3)],
    ).images
    for i in range(3):
        guidance = make_guidance(target=int(targets[i]), stabilizer=stabilizer)
        alone = draw(pipe, guidance, batch_size=1, generator=[generator(i)]).images
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)


def test_generators_must_match_the_batch():
    with pytest.raises(NrcgError, match="generator"):
        draw(make_pipeline(), generator=[generator()] * 3)


def test_binary_targets_steer_in_opposite_directions():
    pipe = make_pipeline()

    def logit(target):
        guidance = make_guidance(50.0, n_logits=1, target=target)
        return guidance.classifier(draw(pipe, guidance).images * 2 - 1).mean()

    assert logit(1) > logit(0) + 0.1


class BadFor(nn.Module):
    """A classifier whose logits turn bad for one sample, from the third call on."""

    def __init__(self, inner: nn.Module, sample: int, value: float) -> None:
        super().__init__()
        self.inner, self.sample, self.value, self.calls = inner, sample, value, 0

    def forward(self, images):
        self.calls += 1
        factor = torch.ones(len(images), 1)
        if self.calls == 3:
            factor[self.sample] = self.value
        return self.inner(images) * factor


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("stabilizer", [None, EMA(0.5), Adam()])
def test_a_diverged_sample_is_grey_and_disturbs_no_other(value, stabilizer):
    pipe, good = make_pipeline(), make_guidance(stabilizer=stabilizer)
    bad = ClassifierGuidance(BadFor(good.classifier, 1, value), 1, good.scale, stabilizer=stabilizer)
    expected = draw(pipe, good, batch_size=3).images
    out = draw(pipe, bad, batch_size=3)
    assert out.diverged.tolist() == [False, True, False]
    assert (out.images[1] == 0.5).all()
    assert torch.equal(out.images[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize(("output_type", "grey"), [("np", 0.5), ("pil", 128)])
def test_mid_grey_in_every_output_type(output_type, grey):
    guidance = make_guidance()
    bad = ClassifierGuidance(BadFor(guidance.classifier, 1, float("nan")), 1, guidance.scale)
    out = draw(make_pipeline(), bad, output_type=output_type)
    assert (np.asarray(out.images[1]) == grey).all() and out.diverged.tolist() == [False, True]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_any_grad_mode_of_the_caller(mode):
    pipe, guidance = make_pipeline(), make_guidance()
    expected = draw(pipe, guidance).images
    with mode():
        target = torch.tensor([1, 1])
        inside = draw(pipe, ClassifierGuidance(guidance.classifier, target, guidance.scale)).images
    assert torch.equal(inside, expected)
    assert not inside.requires_grad and not inside.is_inference()  # so that it can be trained on later


def test_networks_made_under_inference_mode_are_refused():
    with torch.inference_mode():
        pipe = make_pipeline()
        draw(pipe)
        with pytest.raises(NrcgError, match=r"UNet2DModel.*inference_mode"):
            draw(pipe, make_guidance())


def test_algorithm_1_by_itself_keeps_no_graph():
    pipe = make_pipeline()
    pipe.scheduler.set_timesteps(STEPS)
    noise = (torch.randn(1, 3, 8, 8) for _ in range(STEPS))
    x, _ = guided_loop(pipe.unet, DDPMSteps(pipe.scheduler, noise))
    assert not x.requires_grad


@pytest.mark.parametrize("on", ["xt", "x0"])
def test_the_networks_are_frozen_while_drawing(on):
    pipe, guidance, seen = make_pipeline(), make_guidance(on=on), []
    for network in pipe.unet.train(), guidance.classifier.train():
        network.register_forward_pre_hook(
            lambda module, _inputs: seen.append(module.training or any(p.requires_grad for p in module.parameters()))
        )
    draw(pipe, guidance)
    assert seen == [False] * 2 * STEPS


@pytest.mark.parametrize("on", ["xt", "x0"])
def test_the_networks_are_left_as_they_were(on):
    pipe, guidance = make_pipeline(), make_guidance(on=on)
    networks = [pipe.unet, guidance.classifier]
    pipe.unet.train()
    pipe.unet.mid_block.eval()
    guidance.classifier[0].weight.requires_grad_(False)

    def flags():
        modules = [module.training for network in networks for module in network.modules()]
        return modules, [weight.requires_grad for network in networks for weight in network.parameters()]

    before = flags()
    draw(pipe, guidance)
    with pytest.raises(NrcgError):
        draw(pipe, ClassifierGuidance(guidance.classifier, 7, 1.0, on=on))
    assert flags() == before
    assert all(weight.grad is None for network in networks for weight in network.parameters())


def test_state_is_float32_though_the_unet_is_bfloat16(monkeypatch):
    pipe, seen = make_pipeline(dtype=torch.bfloat16), []

    def spy(self, level, x, x0, output, spread, shift, step=DDPMSteps.step):
        seen.extend(tensor.dtype for tensor in (x, x0, output, spread, shift) if tensor is not None)
        return step(self, level, x, x0, output, spread, shift)

    monkeypatch.setattr(DDPMSteps, "step", spy)
    out = draw(pipe, make_guidance(stabilizer=EMA(0.9)))
    assert set(seen) == {torch.float32} and out.images.dtype == torch.float32
    assert draw(pipe, output_type="np").images.dtype == np.float32
    reference = draw(make_pipeline(), make_guidance(stabilizer=EMA(0.9))).images
    assert 0 < (out.images - reference).abs().max() < 0.1


def test_schedulers_without_a_variance_that_the_unet_knows_are_refused():
    pipe = make_pipeline(variance_type="learned_range")
    with pytest.raises(NrcgError, match=r"learned_range needs a U-Net .* with 6 output channels; this one has 3"):
        draw(pipe, make_guidance())
    pipe.scheduler = DDIMScheduler(num_train_timesteps=T)
    with pytest.raises(NrcgError, match="DDIMScheduler"):
        draw(pipe, make_guidance())


def test_folders_open_in_both_pipelines(tmp_path):
    theirs = make_pipeline(DDPMPipeline)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = GuidedDDPMPipeline.from_pretrained(tmp_path / "theirs")
    assert isinstance(ours, GuidedDDPMPipeline)
    assert torch.equal(draw(ours).images, draw(theirs).images)
    ours.save_pretrained(tmp_path / "ours")
    for opened in (DDPMPipeline, DiffusionPipeline, GuidedDDPMPipeline):
        pipe = opened.from_pretrained(tmp_path / "ours")
        pipe.set_progress_bar_config(disable=True)
        assert torch.equal(draw(pipe).images, draw(theirs).images)


def test_pickled_weights_are_not_opened_by_default(tmp_path):
    make_pipeline(DDPMPipeline).save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(NrcgError, match=r"nrcg get ddpm.*use_safetensors=False"):
        GuidedDDPMPipeline.from_pretrained(tmp_path)
    GuidedDDPMPipeline.from_pretrained(tmp_path, use_safetensors=False)


@pytest.mark.parametrize("name", ["/no/such/folder", "./here", "no/such"])
def test_what_is_no_ddpm_is_one_line(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NrcgError, match=r"model_index\.json, or a hub id") as raised:
        GuidedDDPMPipeline.from_pretrained(name)
    assert str(raised.value).startswith(f"{name}: ") and "\n" not in str(raised.value)


def test_progress_bar_is_diffusers(capsys):
    pipe = make_pipeline()
    draw(pipe)
    assert capsys.readouterr().err == ""
    pipe.set_progress_bar_config(disable=False, desc="drawing")
    draw(pipe, make_guidance())
    assert f"{STEPS}/{STEPS}" in (shown := capsys.readouterr().err) and "drawing" in shown
