"""Guidance as a config states it: registered names, arguments as JSON, errors that begin with the place."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from pipelines import STEPS, T, draw, generator, make_guidance, make_pipeline
from torch import nn

from nrcg import EMA, Adam, ClassifierGuidance
from nrcg.errors import NrcgError
from nrcg.evaluation.forward import forward_analysis
from nrcg.guidance import guidance_from, objectives, stabilizer_from, stabilizers
from nrcg.guidance.gradient import image_gradient
from nrcg.guidance.stabilizers import for_steps


@pytest.fixture
def registered(monkeypatch):
    """A stabiliser and an objective of a user's own, registered for one test."""
    monkeypatch.delitem(stabilizers, "sign", raising=False)
    monkeypatch.setitem(objectives, "margin", None)  # and so it is taken out in the end
    del objectives["margin"]

    @stabilizers.register("sign")
    @dataclass(frozen=True)
    class Sign:
        gain: float = 1.0

        def init(self, gradient_like):
            return None

        def update(self, gradient, state):
            return self.gain * gradient.sign(), state

    @objectives.register("margin")
    def margin(logits, target, power=1):
        """The target's logit less the largest of the others."""
        others = logits.scatter(1, target[:, None], float("-inf")).amax(1)
        return (logits.gather(1, target[:, None])[:, 0] - others) ** power

    return Sign, margin


def of(section, scale=5.0, **also):
    return guidance_from(section, make_guidance().classifier, 1, scale, "setups.yaml: mine", **also)


def test_a_section_is_what_python_says():
    section = {
        "on": "xt",
        "objective": "logit",
        "stabilizer": {"ema": {"beta": 0.9}},
        "every": 2,
        "interval": [0, 0.75],
    }
    ours = of(section)
    expected = make_guidance(on="xt", objective="logit", stabilizer=EMA(0.9), every=2, interval=(0, 0.75))
    assert ours.stabilizer == EMA(0.9) and (ours.target, ours.scale) == (1, 5.0)
    assert torch.equal(draw(make_pipeline(), ours).images, draw(make_pipeline(), expected).images)
    assert section["stabilizer"] == {"ema": {"beta": 0.9}}  # left as it was
    empty = of({})
    assert (empty.on, empty.objective, empty.stabilizer) == ("x0", "log_prob", None)
    assert of({"stabilizer": "adam"}).stabilizer == Adam() and of({"stabilizer": None}).stabilizer is None


def test_things_of_the_users_own_by_section(registered):
    sign, margin = registered
    ours = of({"objective": {"margin": {"power": 3}}, "stabilizer": {"sign": {"gain": 2.0}}})
    assert ours.stabilizer == sign(2.0)

    def cubed(logits, target):
        return margin(logits, target) ** 3

    expected = make_guidance(objective=cubed, stabilizer=sign(2.0))
    images = draw(make_pipeline(), ours).images
    assert torch.equal(images, draw(make_pipeline(), expected).images)
    assert not torch.equal(images, draw(make_pipeline(), of({"objective": "margin", "stabilizer": "sign"})).images)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"stabiliser": None}, "unknown key stabiliser; nearest are stabilizer"),
        ({"scale": 2.0}, "unknown key scale; nearest are "),
        ({"every": 0}, "every 0: must be a whole number of at least 1"),
        ({"interval": [0.5, 0.2]}, r"interval \[0.5, 0.2\]: must be two numbers"),
        ({"interval": [0, 240]}, r"interval \[0, 240\]: must be two numbers \(low, high\) with 0 <= low <= high <= 1"),
        ({"jacobian": False, "on": "xt"}, "jacobian=False needs"),
        ({"stabilizer": {"emma": {}}}, "stabilizer 'emma': unknown; use one of ema, adam"),
        ({"stabilizer": {"ema": {"bet": 0.9}}}, "stabilizer ema: unknown key bet; nearest are beta"),
        ({"stabilizer": {"ema": {"beta": "0.9"}}}, "EMA: beta '0.9': must be"),
        ({"stabilizer": {"ema": {"steps": 0}}}, "EMA: steps 0: must be"),
        ({"stabilizer": {"ema": {}, "adam": {}}}, "stabilizer .*: write a name"),
        ({"stabilizer": 0.99}, r"stabilizer 0\.99: write a name"),
        ({"objective": "loss"}, "objective 'loss': unknown; use one of log_prob, logit"),
        ({"objective": {"logit": {"tau": 2}}}, "objective logit: unknown key tau"),
        ({"objective": None}, "objective None: write a name"),
        ({1: 2}, "unknown key 1"),
        ("x0", "'x0': give an object"),
        (None, "None: give an object"),
    ],
)
def test_errors_begin_with_the_place_and_name_the_key(section, message):
    with pytest.raises(NrcgError, match=f"^setups.yaml: mine: {message}") as raised:
        of(section)
    assert "\n" not in str(raised.value)


def test_a_stabilizers_section_alone():
    assert stabilizer_from(None, "--setups: raw") is None
    assert stabilizer_from({"ema": {"beta": 0.5, "steps": 400}}, "--setups: smooth") == EMA(0.5, steps=400)
    with pytest.raises(NrcgError, match=r"^--setups: smooth: stabilizer"):
        stabilizer_from({"eta": {}}, "--setups: smooth")


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda logits, target: logits, r"<lambda> returned \(2, 3\) for 2 images"),
        (lambda logits, target: 0.0, "returned float for 2 images"),
        (lambda logits, target: logits[:, 1].detach(), "objective: no gradient passes"),
    ],
)
def test_objectives_that_cannot_guide_are_one_line(objective, message):
    with pytest.raises(NrcgError, match=message):
        image_gradient(make_guidance(objective=objective).value, torch.zeros(2, 3, 8, 8))


def test_an_objective_of_a_binary_classifier_is_given_its_one_logit_and_the_targets():
    seen = []

    def objective(logits, target):
        seen.append((logits.shape, target.tolist(), target.dtype))
        return logits[:, 0]

    image_gradient(make_guidance(n_logits=1, target=0, objective=objective).value, torch.zeros(2, 3, 8, 8))
    assert "objective=objective)" in repr(make_guidance(objective=objective))
    assert seen == [((2, 1), [0, 0], torch.int64)]


def averages(stabilizer, beta, gradients):
    """Whether the stabiliser is the plain loop with that β."""
    moment, state = torch.zeros_like(gradients[0]), stabilizer.init(gradients[0])
    for gradient in gradients:
        moment = beta * moment + (1 - beta) * gradient
        direction, state = stabilizer.update(gradient, state)
        torch.testing.assert_close(direction, moment, rtol=1e-6, atol=0)


def test_decays_meant_for_other_steps_are_rescaled():
    gradients = list(torch.randn(5, 1, 3, 2, 2, generator=generator(), dtype=torch.float64))
    averages(for_steps(EMA(0.99, steps=400), 50), 0.99**8, gradients)
    averages(for_steps(EMA(0.99), 50), 0.99, gradients)
    adam = for_steps(Adam(0.9, 0.999, steps=400), 100)
    assert (adam.beta1, adam.beta2, adam.eps) == (0.9**4, 0.999**4, 1e-4)
    assert for_steps(adam, 100) == adam  # told twice, it is the same
    for same in EMA(0.99), EMA(0.99, steps=50):
        assert for_steps(same, 50) == same
    assert for_steps(of({"stabilizer": "ema"}).stabilizer, 7) == EMA()


@pytest.mark.parametrize(("interval", "guided"), [(None, STEPS), ((0.125, 0.5), 4)])
def test_the_sampler_tells_the_guided_steps_that_there_are(interval, guided):
    """By a loop of its own: diffusers' step, the gradient by autograd, m = βm + (1 − β)g with β = 0.8^(16/guided)."""
    pipe, guidance = make_pipeline(), make_guidance(30.0, stabilizer=EMA(0.8, steps=16), interval=interval)
    ours = draw(pipe, guidance).images
    pipe.scheduler.set_timesteps(STEPS)
    random, moment, beta = generator(), torch.zeros(2, 3, 8, 8), 0.8 ** (16 / guided)
    x = torch.randn(2, 3, 8, 8, generator=random)
    for t in pipe.scheduler.timesteps.tolist():
        leaf = x.clone().requires_grad_()
        output = pipe.unet(leaf, t).sample
        a = pipe.scheduler.alphas_cumprod[t]
        x0 = ((leaf - (1 - a) ** 0.5 * output) / a**0.5).clamp(-1, 1)
        (gradient,) = torch.autograd.grad(guidance.classifier(x0).log_softmax(1)[:, 1].sum(), leaf)
        x = pipe.scheduler.step(output.detach(), t, x, generator=random).prev_sample
        if interval is None or interval[0] <= t / T <= interval[1]:
            moment = beta * moment + (1 - beta) * gradient
            x = x + guidance.scale * pipe.scheduler._get_variance(t) * moment
    torch.testing.assert_close(ours, (x / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)
    unscaled = draw(pipe, make_guidance(30.0, stabilizer=EMA(0.8), interval=interval)).images
    assert (ours - unscaled).abs().max() > 1e-3


def test_the_forward_analysis_tells_how_many_t_it_visits():
    def curves(stride, stabilizer):
        return forward_analysis(
            np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8), make_guidance().classifier,
            target=1, labels=np.zeros(2, int), unet=None, scheduler=DDPMScheduler(num_train_timesteps=6, beta_end=0.3),
            on="xt", setups={"smooth": stabilizer}, seed=0, batch_size=2, stride=stride,
        )["mean"].to_numpy()  # fmt: skip

    assert np.array_equal(curves(1, EMA(0.7, steps=6)), curves(1, EMA(0.7)))
    assert np.array_equal(curves(2, EMA(0.7, steps=6)), curves(2, EMA(0.7**2)))
    assert not np.array_equal(curves(2, EMA(0.7, steps=6)), curves(2, EMA(0.7)))


def test_a_stabilizer_of_ones_own_is_told_once_before_it_begins(registered):
    sign, _ = registered
    told = []

    class Told(sign):
        def for_steps(self, n):
            told.append(n)
            return sign(3.0)

    guidance = ClassifierGuidance(make_guidance().classifier, 1, 5.0, stabilizer=Told())
    images = draw(make_pipeline(), guidance).images
    assert told == [STEPS]
    assert torch.equal(images, draw(make_pipeline(), make_guidance(stabilizer=sign(3.0))).images)


def test_a_classifier_is_not_taken_from_a_section():
    with pytest.raises(NrcgError, match="unknown key classifier"):
        of({"classifier": nn.Identity()})
