"""Any scheduler: diffusers' own images when unguided, the same guidance for all, refusals before anything is drawn."""

from inspect import signature

import diffusers
import pytest
import torch
from conftest import TINY_UNET
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from pipelines import ALPHAS, STEPS, T, draw, generator, grad, make_guidance, make_pipeline, trail

from nrcg import EMA, GuidedDDPMPipeline, GuidedPipeline
from nrcg.errors import NrcgError
from nrcg.guidance import Recur

SOLVERS = {
    "dpm": (DPMSolverMultistepScheduler, {}),
    "dpm-sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "dpm-first-order": (DPMSolverMultistepScheduler, {"solver_order": 1}),
    "unipc": (UniPCMultistepScheduler, {}),
    "deis": (DEISMultistepScheduler, {}),
    "euler": (EulerDiscreteScheduler, {"timestep_spacing": "leading"}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),
}
SPACINGS = {
    f"{name}-{spacing}": (SOLVERS[name][0], {**SOLVERS[name][1], "timestep_spacing": spacing})
    for name in ("dpm", "dpm-sde", "euler", "unipc", "deis")
    for spacing in ("linspace", "leading", "trailing")
}
UNGUIDED = SPACINGS | {
    "ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpm-thresholding": (DPMSolverMultistepScheduler, {"thresholding": True}),
    "dpm-karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "euler-v": (EulerDiscreteScheduler, {"prediction_type": "v_prediction"}),
}
SMALLEST = TINY_UNET | {
    "block_out_channels": [4],
    "down_block_types": ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"],
    "add_attention": False,
}


def pipeline(name=None, kind=GuidedPipeline, **scheduler):
    by, options = UNGUIDED.get(name) or SOLVERS[name]
    return make_pipeline(kind, by=by, **options | scheduler)


def their_loop(pipe, scheduler, steps=STEPS, timesteps=None) -> torch.Tensor:
    """Images by diffusers' scheduler, called as its pipelines do."""
    random = generator()
    scheduler.set_timesteps(**({"num_inference_steps": steps} if timesteps is None else {"timesteps": timesteps}))
    options = {"generator": random} if "generator" in signature(scheduler.step).parameters else {}
    x = torch.randn(2, 3, 8, 8, generator=random) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        with torch.no_grad():
            x = scheduler.step(pipe.unet(scheduler.scale_model_input(x, t), t).sample, t, x, **options).prev_sample
    return (x / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("name", UNGUIDED)
def test_unguided_is_bitwise_diffusers(name):
    pipe = pipeline(name)
    images = draw(pipe).images
    assert torch.equal(images, their_loop(pipe, type(pipe.scheduler).from_config(pipe.scheduler.config)))
    assert images.std() > 0.05


CHOSEN = [17, 16, 11, 3, 1, 0]


@pytest.mark.parametrize("name", ["ddpm", "dpm", "euler"])
def test_chosen_timesteps_are_those_of_diffusers(name):
    pipe = make_pipeline(GuidedPipeline) if name == "ddpm" else pipeline(name)
    theirs = type(pipe.scheduler).from_config(pipe.scheduler.config)
    images = draw(pipe, num_inference_steps=None, timesteps=CHOSEN).images
    assert torch.equal(images, their_loop(pipe, theirs, timesteps=CHOSEN))
    assert not torch.equal(images, draw(pipe, num_inference_steps=len(CHOSEN)).images)  # and are forgotten again


@pytest.mark.parametrize(
    ("by", "chosen", "message"),
    [
        (DDPMScheduler, [3, 5], "timesteps are \\[3, 5\\]; they must be integers from 39 to 0 in descending order"),
        (DDPMScheduler, [3, 3], "in descending order"),
        (DDPMScheduler, [40, 3], "in descending order"),
        (DDPMScheduler, [], "in descending order"),
        (DDPMScheduler, [3.5], "in descending order"),
        (DDIMScheduler, [5, 3], "DDIMScheduler cannot be used \\(it has no custom timesteps"),
    ],
)
def test_timesteps_that_cannot_be_are_one_line(by, chosen, message):
    with pytest.raises(NrcgError, match=message):
        draw(make_pipeline(GuidedPipeline, by=by), num_inference_steps=None, timesteps=chosen)


@pytest.mark.parametrize("kind", [DDPMScheduler, DPMSolverMultistepScheduler])
def test_a_leaked_signal_moves_the_start_alone(kind):
    """x_T as diffusers' `add_noise` makes it of an image of that value, with the sampler's own noise."""
    pipe, given = make_pipeline(GuidedPipeline, by=kind), {"callback_on_step_end_tensor_inputs": ("sample",)}
    starts = []
    for leak in (None, 0.75):

        def keep(pipeline, number, t, tensors):
            starts.extend([tensors["sample"]] if number == 0 else [])

        draw(pipe, signal_leak=leak, callback_on_step_end=keep, **given)
    first = pipe.scheduler.timesteps[:1]
    expected = DDPMScheduler.from_config(pipe.scheduler.config).add_noise(
        torch.full_like(starts[0], 0.75), starts[0], first
    )
    torch.testing.assert_close(starts[1], expected)
    assert (starts[1] - starts[0]).abs().max() > 0.01


def test_a_leak_is_refused_where_samples_are_scaled():
    with pytest.raises(NrcgError, match="signal_leak: not with EulerDiscreteScheduler"):
        draw(pipeline("euler"), signal_leak=0.5)
    with pytest.raises(NrcgError, match="signal_leak 2: must be"):
        draw(pipeline("ddim"), signal_leak=2)


@pytest.mark.parametrize("clip_sample", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_unguided_is_bitwise_diffusers_ddim(eta, clip_sample):
    pipe, random = pipeline("ddim", clip_sample=clip_sample), generator()
    theirs = DDIMPipeline(pipe.unet, pipe.scheduler)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(2, random, eta, STEPS, output_type="np").images
    assert (draw(pipe, eta=eta, output_type="np").images == expected).all()


@pytest.mark.parametrize(("steps", "clip_sample"), [(400, True), (50, True), (50, False)])
def test_guided_ddim_with_eta_1_is_the_guided_ddpm(steps, clip_sample):
    """On the paper's schedule: β from 1e-4 to 0.02 in T = 400 steps."""
    options = {"dtype": torch.float64, "unet": SMALLEST, "steps": 400, "clip_sample": clip_sample}
    pipes = make_pipeline(**options), make_pipeline(GuidedPipeline, by=DDIMScheduler, **options)
    guidance = make_guidance(30.0, stabilizer=EMA(0.9), jacobian="identity")
    given = {"batch_size": 1, "num_inference_steps": steps}
    for pipe in pipes:
        pipe.scheduler.alphas_cumprod = pipe.scheduler.alphas_cumprod.double()
    ddpm, ddim = trail(pipes[0], guidance, **given), trail(pipes[1], guidance, eta=1.0, **given)
    torch.testing.assert_close(ddim, ddpm, rtol=0, atol=1e-9)
    assert (ddpm[-1] - trail(pipes[0], **given)[-1]).abs().max() > 0.01


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_guided_solver_is_given_the_epsilon_of_the_shifted_x0(name, prediction_type):
    """x̂_0' = x̂_0 + s · d · (1 − a') / √a', as ε' = (x_t − √a · x̂_0') / √(1 − a) or v' = √a · ε' − √(1 − a) · x̂_0'."""
    s = 10.0
    pipe = pipeline(name, prediction_type=prediction_type)
    ours = trail(pipe, make_guidance(s, stabilizer=EMA(0.6)))
    scheduler, random = type(pipe.scheduler).from_config(pipe.scheduler.config), generator()
    scheduler.set_timesteps(STEPS)
    noisy = {"generator": random} if "generator" in signature(scheduler.step).parameters else {}
    x, classifier, m = torch.randn(2, 3, 8, 8, generator=random), make_guidance().classifier, 0.0
    x = (x * scheduler.init_noise_sigma).double()
    for i, t in enumerate(scheduler.timesteps):
        a, before = (ALPHAS[int(k)] if k is not None else 1.0 for k in [*scheduler.timesteps, None][i : i + 2])
        unit = a**0.5 if name == "euler" else 1.0  # Euler's sample is x_t / √a
        leaf = (unit * x).requires_grad_()
        output = pipe.unet(leaf.float(), t).sample.double()
        if prediction_type == "epsilon":
            x0 = (leaf - (1 - a) ** 0.5 * output) / a**0.5
        else:
            x0 = a**0.5 * leaf - (1 - a) ** 0.5 * output
        m = 0.6 * m + 0.4 * grad(classifier(x0.float()).log_softmax(1)[:, 1], leaf)
        shifted = x0.detach() + s * m * (1 - before) / before**0.5
        told = (leaf.detach() - a**0.5 * shifted) / (1 - a) ** 0.5
        if prediction_type == "v_prediction":
            told = a**0.5 * told - (1 - a) ** 0.5 * shifted
        x = scheduler.step(told, t, x, **noisy).prev_sample
        torch.testing.assert_close(ours[i].double(), x, rtol=1e-4, atol=1e-4)
    assert (ours[-1] - trail(pipe)[-1]).abs().max() > 0.01


@pytest.mark.parametrize("name", SOLVERS)
def test_a_scale_towards_zero_is_no_guidance(name):
    pipe = pipeline(name)
    torch.testing.assert_close(draw(pipe, make_guidance(1e-9)).images, draw(pipe).images, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", SPACINGS)
def test_every_timestep_spacing_guides(name):
    pipe, guidance = pipeline(name), make_guidance(30.0)
    out = draw(pipe, guidance, batch_size=1)
    assert not out.diverged.any() and out.images.isfinite().all()
    confidence = [guidance.value(images * 2 - 1).mean() for images in (out.images, draw(pipe, batch_size=1).images)]
    assert confidence[0] > confidence[1]


@pytest.mark.parametrize(
    ("by", "options"),
    [
        (DDIMScheduler, {"set_alpha_to_one": False}),  # a' = a in the last step: β is 0
        (
            DDIMScheduler,
            {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
        ),
        (EulerDiscreteScheduler, {"final_sigmas_type": "sigma_min"}),
        (DPMSolverMultistepScheduler, {"final_sigmas_type": "sigma_min", "timestep_spacing": "trailing"}),
    ],
)
def test_guidance_is_finite_where_a_step_has_no_noise_or_no_signal(by, options):
    pipe, guidance = make_pipeline(GuidedPipeline, by=by, **options), make_guidance(step_size="constant")
    many = {"batch_size": 1, "num_inference_steps": T}
    assert not draw(pipe, guidance).diverged.any() and not draw(pipe, guidance, **many).diverged.any()


@pytest.mark.parametrize("name", SOLVERS)
def test_guidance_leaves_the_pipelines_scheduler_and_torchs_generator_as_they_were(name):
    pipe = pipeline(name)
    expected, config = their_loop(pipe, pipe.scheduler), dict(pipe.scheduler.config)
    pipe.scheduler.set_timesteps(STEPS)
    state, guidance = {key: repr(value) for key, value in vars(pipe.scheduler).items()}, make_guidance()
    random = torch.get_rng_state()
    images = draw(pipe, guidance).images
    assert torch.equal(torch.get_rng_state(), random)
    assert dict(pipe.scheduler.config) == config
    assert {key: repr(value) for key, value in vars(pipe.scheduler).items()} == state
    assert torch.equal(draw(pipe, guidance).images, images)
    assert torch.equal(their_loop(pipe, pipe.scheduler), expected)


@pytest.mark.parametrize(
    ("name", "options", "guidance", "message"),
    [
        ("HeunDiscreteScheduler", {}, {}, "HeunDiscreteScheduler cannot be used .*U-Net 2 times per step"),
        ("FlowMatchEulerDiscreteScheduler", {}, {}, "FlowMatchEulerDiscreteScheduler cannot .*no discrete timesteps"),
        ("EDMEulerScheduler", {}, {}, "EDMEulerScheduler cannot .*no discrete timesteps"),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, {}, "EulerDiscreteScheduler cannot .*no discrete"),
        ("PNDMScheduler", {}, {}, "PNDMScheduler cannot be used .it cannot use a given x̂_0"),
        ("PNDMScheduler", {"skip_prk_steps": True}, {}, "PNDMScheduler cannot be used .it cannot use a given x̂_0"),
        ("EulerAncestralDiscreteScheduler", {}, {}, "EulerAncestralDiscreteScheduler .*it cannot use a given x̂_0"),
        *(
            (by, {}, {"apply": "sphere"}, f"guidance: apply sphere needs the noise of each step, which {by}")
            for by in ("DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler")
        ),
        *(
            (by, {}, {"recur": Recur()}, f"guidance: recur needs .*, unlike {by};")
            for by in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler")
        ),
    ],
)
def test_what_has_no_meaning_is_refused_before_anything_is_drawn(name, options, guidance, message):
    options = {"kind": GuidedPipeline, "by": getattr(diffusers, name), **options}
    pipe, random = make_pipeline(**options), generator()
    with pytest.raises(NrcgError, match=message) as raised:
        draw(pipe, make_guidance(**guidance), generator=random)
    assert "\n" not in str(raised.value) and torch.equal(random.get_state(), generator().get_state())


def test_a_learned_variance_is_for_a_ddpm_alone():
    pipe, random = make_pipeline(GuidedPipeline, by=DDIMScheduler), generator()
    pipe.register_modules(unet=UNet2DModel(**TINY_UNET | {"out_channels": 6}))
    with pytest.raises(NrcgError, match="DDIMScheduler cannot use the variance that this U-Net predicts"):
        draw(pipe, make_guidance(), generator=random)
    assert torch.equal(random.get_state(), generator().get_state())


def test_a_ddpm_pipeline_refuses_other_schedulers_and_the_general_one_opens_its_folders(tmp_path):
    theirs = make_pipeline(DDPMPipeline)
    theirs.save_pretrained(tmp_path)
    ddim = DDIMScheduler.from_config(theirs.scheduler.config)
    with pytest.raises(NrcgError, match=r"DDIMScheduler cannot be used; take a DDPMScheduler, or .*GuidedPipeline"):
        draw(make_pipeline(GuidedDDPMPipeline, by=DDIMScheduler))
    ours = GuidedPipeline.from_pretrained(tmp_path, scheduler=ddim)
    ours.set_progress_bar_config(disable=True)
    assert isinstance(ours.scheduler, DDIMScheduler)
    expected = pipeline("ddim", clip_sample=True)
    assert torch.equal(draw(ours, make_guidance()).images, draw(expected, make_guidance()).images)
    plain = GuidedPipeline.from_pretrained(tmp_path)
    assert isinstance(plain.scheduler, DDPMScheduler)


@pytest.mark.parametrize("name", ["ddim", "dpm", None])
def test_what_a_callback_returns_takes_the_place_of_the_sample(name):
    """Halving x at the third step, in the idiom of diffusers: the dict that was given, changed."""
    pipe, seen = make_pipeline() if name is None else pipeline(name), []

    def halve(_pipe, step, _t, tensors):
        seen.append(tensors)
        if step == 2:
            return tensors | {"latents": tensors["latents"] / 2}

    names = ["latents", "sample", "direction"]
    images = draw(pipe, make_guidance(), callback_on_step_end=halve, callback_on_step_end_tensor_inputs=names).images
    assert all(list(tensors) == names for tensors in seen)
    kept = [tensors["latents"] / (2 if step == 2 else 1) for step, tensors in enumerate(seen)]
    assert all(map(torch.equal, kept, [tensors["sample"] for tensors in seen[1:]]))
    assert torch.equal(images, (kept[-1] / 2 + 0.5).clamp(0, 1))
    assert not torch.equal(images, draw(pipe, make_guidance()).images)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"latent": torch.zeros(2, 3, 8, 8)}, "callback_on_step_end: unknown key latent; nearest are latents"),
        (
            {"latents": torch.zeros(2, 3, 2, 2)},
            r"callback_on_step_end: latents tensor.*must be a tensor \(2, 3, 8, 8\)",
        ),
        ({"latents": None}, r"latents None: must be a tensor \(2, 3, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8), "callback_on_step_end: tensor.*; give an object"),
    ],
)
def test_what_a_callback_cannot_return_is_one_line(returned, message):
    with pytest.raises(NrcgError, match=message) as raised:
        draw(make_pipeline(), callback_on_step_end=lambda *_: returned)
    assert "\n" not in str(raised.value)


def test_tensors_that_there_are_not_are_one_line():
    with pytest.raises(NrcgError, match=r"callback_on_step_end_tensor_inputs.*one of latents, sample"):
        draw(make_pipeline(), callback_on_step_end=print, callback_on_step_end_tensor_inputs=["latent"])
