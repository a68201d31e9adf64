"""Each choice of each slot against its formula, and refusals of what a slot cannot take."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from pipelines import ALPHAS, T, draw, generator, make_classifier, make_guidance, make_pipeline, trail

from nrcg import ValueGuidance
from nrcg.diffusion.steps import Level
from nrcg.errors import NrcgError
from nrcg.guidance import Compress, Inner, Recur, guidance_from, schedules, step_sizes
from nrcg.guidance.sizes import Step

SHAPE = 2, 3, 8, 8


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def by_sample(values):
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None]


def lengths(batch):
    return by_sample([math.sqrt(sum(x * x for x in sample.flatten().tolist())) for sample in batch])


SIZES = {  # of a = ᾱ_t, b = ᾱ_{t−1}, t / T = 0.3, the direction d, ε, and ℓ = (−2, 0.5)
    "variance": lambda a, b, d, eps: (1 - b) / (1 - a) * (1 - a / b),
    "constant": lambda a, b, d, eps: 1.0,
    "inverse_signal": lambda a, b, d, eps: (b / a) ** 0.5,
    "signal": lambda a, b, d, eps: a**0.5,
    "signal_before": lambda a, b, d, eps: b**0.5,
    "unit": lambda a, b, d, eps: 192**0.5 / lengths(d),
    "inverse_value": lambda a, b, d, eps: by_sample([1 / 2, 1 / 0.5]),
    "polyak": lambda a, b, d, eps: lengths(eps) / lengths(d) ** 2,
    "variance_and_sine": lambda a, b, d, eps: (1 - b) / (1 - a) * (1 - a / b) + 0.3 * 0.7 * math.sin(math.pi * 0.3),
}


@pytest.mark.parametrize("name", step_sizes)
def test_a_step_size_is_its_formula(name):
    a, b, d, eps = 0.6, 0.7, normal(*SHAPE), normal(*SHAPE, seed=1)
    level = Level(12, torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))
    values = torch.tensor([-2.0, 0.5], dtype=torch.float64)
    step = Step(level, 0.3, level.small_variance, 0.7, torch.zeros(SHAPE), eps, values, None)
    found = torch.as_tensor(step_sizes[name](step, d), dtype=torch.float64)
    torch.testing.assert_close(found, torch.as_tensor(SIZES[name](a, b, d, eps), dtype=torch.float64))
    if name == "variance_and_sine":
        expected = step_sizes["variance"](step, d) + 2 * (float(found) - step_sizes["variance"](step, d))
        assert step_sizes.choose({name: {"gamma": 0.6}}, given=2)(step, d) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("section", "formula"),
    [
        ("constant", lambda u: 1.0),
        ("linear", lambda u: u),
        ({"linear": {"start": 0.5, "end": 2.5}}, lambda u: 2.5 - 2 * u),
        ("sine", lambda u: math.sin(math.pi * u)),
        (
            {"knots": {"points": [[0.2, 1], [0.6, 3], [0.8, 0]]}},
            lambda u: 1 if u < 0.2 else 1 + (u - 0.2) / 0.4 * 2 if u < 0.6 else 3 - 15 * (u - 0.6) if u < 0.8 else 0,
        ),
        (lambda u: u**3, lambda u: u**3),
    ],
)
def test_a_schedule_is_its_formula_and_weighs_the_shift(section, formula):
    us = np.linspace(0, 1, 21)
    plan = make_guidance(schedule=section).plan(us)
    assert [0 if each is None else each.weight for each in plan] == pytest.approx([formula(u) for u in us])
    shift, plain = (shifts(make_guidance(**slots)) for slots in ({"schedule": section}, {}))
    weights = torch.tensor([formula(t / T) for t in range(T - 5, -1, -5)])[:, None, None, None, None]
    torch.testing.assert_close(shift[0], (weights * plain)[0], rtol=0, atol=1e-5)  # later x_t differ
    assert set(schedules) == {"constant", "linear", "sine", "knots"}


def shifts(guidance) -> torch.Tensor:
    """x_{t−1} less what DDPM makes of the same x_t unguided, of every step."""
    pipe, found, random = make_pipeline(), [], generator()
    names = ["latents", "sample", "pred_original_sample", "direction"]
    draw(pipe, guidance, callback_on_step_end=lambda *a: found.append(a[-1]), callback_on_step_end_tensor_inputs=names)
    torch.randn(SHAPE, generator=random)
    shifts.found = found
    out = []
    for t, given in zip(range(T - 5, -1, -5), found, strict=True):
        a, b = ALPHAS[t], ALPHAS[t - 5] if t else 1.0
        z = torch.randn(SHAPE, generator=random) if t else 0.0
        mean = b**0.5 * (1 - a / b) / (1 - a) * given["pred_original_sample"]
        mean = mean + (a / b) ** 0.5 * (1 - b) / (1 - a) * given["sample"]
        out.append(given["latents"] - mean - ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5 * z)
    return torch.stack(out)


APPLIED = {  # what is added to x_{t−1} for one unit of the direction
    "sample": lambda a, b: 1.0,
    "x0": lambda a, b: b**0.5 * (1 - a / b) / (1 - a),
    "epsilon": lambda a, b: (1 - a / b) / (a / b) ** 0.5,
}


@pytest.mark.parametrize("name", APPLIED)
def test_what_is_applied_shifts_the_next_sample_by_its_formula(name):
    found = shifts(make_guidance(3.0, apply=name, step_size="constant"))
    for shift, given, t in zip(found, shifts.found, range(T - 5, -1, -5), strict=True):
        factor = APPLIED[name](ALPHAS[t], ALPHAS[t - 5] if t else 1.0)
        torch.testing.assert_close(shift, 3.0 * factor * given["direction"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_on_the_sphere_the_noise_keeps_its_radius_and_turns_towards_the_direction(share):
    found = shifts(make_guidance(max(share, 1e-9), apply="sphere", step_size="constant"))
    random = generator()
    torch.randn(SHAPE, generator=random)
    for shift, given, t in zip(found[:-1], shifts.found, range(T - 5, 0, -5), strict=False):
        a, b = ALPHAS[t], ALPHAS[t - 5]
        sigma = ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
        own = sigma * torch.randn(SHAPE, generator=random).double()
        noise = own + shift.double()
        torch.testing.assert_close(lengths(noise), by_sample([192**0.5 * sigma] * 2), rtol=1e-3, atol=0)
        d = given["direction"].double()
        turned = own + share * (192**0.5 * sigma * d / lengths(d) - own)
        torch.testing.assert_close(noise / lengths(noise), turned / lengths(turned), rtol=0, atol=1e-3)
    assert found[-1].abs().max() < 1e-5  # at t = 0 there is no noise to turn


@pytest.mark.parametrize("apply", ["sample", "x0"])
def test_inner_steps_climb_a_slope_of_w_by_k_times_mu_times_w(apply):
    w = normal(*SHAPE[1:]).float()
    slots = {"inner": Inner(3, 0.02, apply), "schedule": "linear", "jacobian": "identity"}
    found = shifts(ValueGuidance(lambda x: (x * w).sum((1, 2, 3)), 1e-12, **slots))
    for shift, t in zip(found, range(T - 5, -1, -5), strict=True):
        a, b = ALPHAS[t], ALPHAS[t - 5] if t else 1.0
        factor = b**0.5 * ((1 - a / b) / (1 - a) if apply == "x0" else 1.0)
        torch.testing.assert_close(shift, (factor * 3 * 0.02 * t / T * w).expand(SHAPE), rtol=0, atol=1e-5)


US = [k / 8 for k in range(8, -1, -1)]


@pytest.mark.parametrize(
    ("slots", "weights", "renewed", "times"),
    [
        ({}, [1] * 9, [1] * 9, [1] * 9),
        ({"interval": (0.25, 0.75)}, [0, 0, 1, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1, 0, 0], [0, 0, *[1] * 5, 0, 0]),
        ({"every": 3}, [1] * 9, [1, 0, 0, 1, 0, 0, 1, 0, 0], [1] * 9),
        ({"every": 3, "interval": (0, 0.75)}, [0, 0, *[1] * 7], [0, 0, 1, 0, 0, 1, 0, 0, 1], [0, 0, *[1] * 7]),
        ({"recur": Recur(4)}, [1] * 9, [1] * 9, [4] * 9),
        ({"recur": {"times": 4, "interval": [0.5, 0.75]}}, [1] * 9, [1] * 9, [1, 1, 4, 4, 4, 1, 1, 1, 1]),
        ({"every": Compress(0.5, 1)}, [2, 0, 2, 0, 2, 0, 3, 0, 0], [1, 0, 1, 0, 1, 0, 1, 0, 0], None),
        # of the 5 steps in the interval those numbered ⌊5 · (i / 5)²⌋ = 0, 0, 0, 1, 3
        ({"every": {"share": 1}, "interval": (0.5, 1)}, [1, 2, 0, 2, *[0] * 5], [1, 1, 0, 1, *[0] * 5], None),
    ],
)
def test_a_plan_guides_where_it_says(slots, weights, renewed, times):
    plan = make_guidance(**slots).plan(US)
    assert [each.weight if each else 0 for each in plan] == weights
    assert [int(each.renew) if each else 0 for each in plan] == renewed
    assert times is None or [each.times if each else 0 for each in plan] == times


@pytest.mark.parametrize(("share", "power"), [(0.2, 2), (0.2, 1), (0.29, 3), (1, 5), (0.01, 2), (1, 1), (0.3, 4)])
def test_compressed_weights_are_the_papers_gaps(share, power):
    """Guided are the steps ⌊N · iᵏ / Gᵏ⌋, in exact arithmetic; each weighs the steps until the next."""
    for n in (1, 2, 7, 50, 100, 250, 400):
        weights, count = Compress(share, power).weights(n), max(1, math.floor(Fraction(str(share)) * n))
        places = [p for p, weight in enumerate(weights) if weight]
        assert places == sorted({math.floor(Fraction(n * i**power, count**power)) for i in range(count)})
        assert sum(weights) == len(weights) == n
        assert [weights[p] for p in places] == np.diff([*places, n]).tolist()


@pytest.mark.parametrize("apply", ["sample", "x0", "sphere"])
@pytest.mark.parametrize("step_size", ["unit", "polyak", "inverse_value"])
@pytest.mark.parametrize("slope", [0.0, 1e-30, 1e-22])
def test_a_vanishing_gradient_leads_nowhere(step_size, apply, slope):
    """As where a classifier is certain: 1 / ‖g‖ is infinite, and squares of g are 0 in float32."""
    scale = 1.0 if apply == "sphere" else 100.0
    guidance = ValueGuidance(lambda x: slope * x.sum((1, 2, 3)), scale, step_size=step_size, apply=apply)
    assert trail(make_pipeline(), guidance, num_inference_steps=3).abs().max() < 10


def of(section):
    return guidance_from(section, make_classifier(), 1, 5.0, "here")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"step_size": "large"}, "step_size 'large': unknown; use one of variance, constant"),
        ({"step_size": {"unit": {"eps": 1}}}, "step_size unit: unknown key eps"),
        ({"step_size": 3}, "step_size 3: write a name"),
        ({"schedule": "knots"}, "schedule knots: no key points; add it"),
        ({"apply": "mean"}, "apply 'mean': unknown; use one of sample, x0, epsilon, sphere"),
        ({"inner": {"steps": 0}}, "inner: steps 0: must be"),
        ({"inner": {"scale": -1}}, "inner: scale -1: must be"),
        ({"inner": {"apply": "epsilon"}}, "inner: apply 'epsilon': must be one of sample, x0"),
        ({"inner": {"k": 3}}, "inner: unknown key k"),
        ({"inner": 3}, "inner 3: must be Inner"),
        ({"recur": {"times": 0}}, "recur: times 0: must be"),
        ({"recur": {"interval": [0.8, 0.5]}}, r"recur: interval \[0.8, 0.5\]: must be two numbers"),
        ({"recur": 2}, "recur 2: must be Recur"),
        ({"every": {"share": 0}}, "every: compress: share 0: must be"),
        ({"every": {"power": 0.5}}, "every: compress: power 0.5: must be"),
        ({"every": {"share": 1.5}}, "every: compress: share 1.5: must be"),
        ({"copies": "crops"}, "copies 'crops': unknown; use one of noise, augment"),
        ({"copies": {"noise": {"n": 0}}}, "copies noise: n 0: must be"),
        ({"copies": {"noise": {"sigma": -1}}}, "copies noise: sigma -1: must be"),
        ({"copies": {"noise": {"mean": "max"}}}, "copies noise: mean 'max': must be one of probability, value"),
        ({"copies": {"augment": {"crop": 0}}}, "copies augment: crop 0: must be"),
        ({"copies": {"augment": {"shift": 2}}}, "copies augment: shift 2: must be"),
        ({"copies": {"augment": {"flip": 1}}}, "copies augment: flip 1: must be true or false"),
        ({"softplus": 0}, "softplus 0: must be"),
        ({"softplus": 3.0}, "softplus: Sequential has no module among ReLU, "),
        ({"jacobian": "one"}, 'jacobian .one.: must be true or false, or "identity"'),
        ({"method": "dpss"}, "method 'dpss': unknown; use one of nrcg, cg"),
        ({"method": {"lgd": {"k": 3}}}, "method lgd: unknown key k"),
        ({"method": {"lgd": {"n": 0}}}, "copies noise: n 0: must be"),
    ],
)
def test_bad_values_are_one_line_that_names_the_key_when_the_guidance_is_made(section, message):
    with pytest.raises(NrcgError, match=f"^here: {message}") as raised:
        of(section)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"step_size": {"variance_and_sine": {"gamma": -1}}}, "step_size variance_and_sine: gamma -1: must be"),
        ({"schedule": {"linear": {"start": "1"}}}, "schedule linear: start '1': must be a finite number"),
        ({"schedule": {"knots": {"points": [[0.5, 1]]}}}, "schedule knots: points .*two or more pairs"),
        ({"schedule": {"knots": {"points": [[0.5, 1], [0.5, 2]]}}}, "schedule knots: points .*two or more pairs"),
        ({"schedule": {"knots": {"points": [[0, 1], [1.5, 2]]}}}, "schedule knots: points .*two or more pairs"),
        ({"objective": {"tempered": {"tau1": -1}}}, "objective tempered: tau1 -1: must be"),
    ],
)
def test_bad_values_of_functions_are_one_line_that_names_the_place(section, message):
    with pytest.raises(NrcgError, match=f"{message}") as raised:
        of(section)
    assert "\n" not in str(raised.value)
