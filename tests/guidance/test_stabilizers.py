"""Stabilisers, each against an optimiser of torch or timm, or the plain formula."""

import pytest
import torch
from timm.optim import AdaBelief as TimmAdaBelief
from timm.optim import Lion as TimmLion
from torch import nn

from nrcg.errors import NrcgError
from nrcg.guidance import (
    EMA,
    AdaBelief,
    Adam,
    Chain,
    Clip,
    Lion,
    Momentum,
    Nesterov,
    RMSProp,
    Sign,
    Unit,
    stabilizer_from,
    stabilizers,
)
from nrcg.guidance.stabilizers import for_steps

AVERAGES = [EMA, Adam, RMSProp, AdaBelief, Lion, Nesterov, Momentum]
ALL = [*(kind() for kind in AVERAGES), EMA(bias_correction=True), Sign(), Unit(), Clip(), Chain([Clip(), Adam()])]
SHAPE = 2, 3, 4, 4


def gradients(steps: int = 7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) * 10.0**-i for i in range(steps)]


def run(stabilizer, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    state, directions = stabilizer.init(inputs[0]), []
    for gradient in inputs:
        direction, state = stabilizer.update(gradient, state)
        directions.append(direction)
    return directions


def close(ours, expected):
    torch.testing.assert_close(torch.stack(ours), torch.stack(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bias_correction", [False, True])
def test_ema_is_the_weighted_sum_of_eq_7(bias_correction):
    beta, inputs = 0.9, gradients()
    for k, direction in enumerate(run(EMA(beta, bias_correction=bias_correction), inputs), start=1):
        weights = [(1 - beta) * beta ** (k - 1 - i) for i in range(k)]
        expected = sum(w * g for w, g in zip(weights, inputs, strict=False))
        torch.testing.assert_close(direction, expected / sum(weights) if bias_correction else expected)


def test_adam_without_bias_correction_is_eq_8():
    inputs, m, v = gradients(), 0.0, 0.0
    for gradient, direction in zip(inputs, run(Adam(), inputs), strict=True):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        torch.testing.assert_close(direction, m / (v**0.5 + 1e-4))


OPTIMIZERS = {
    "adam": (Adam(0.8, 0.95, 1e-3, bias_correction=True), torch.optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-3}, 1),
    "rmsprop": (RMSProp(0.8, 1e-3), torch.optim.RMSprop, {"alpha": 0.8, "eps": 1e-3}, 1),
    "nesterov": (Nesterov(0.8), torch.optim.SGD, {"momentum": 0.8, "nesterov": True}, 1 - 0.8),
    "adabelief": (AdaBelief(0.8, 0.95, 1e-3), TimmAdaBelief, {"betas": (0.8, 0.95), "eps": 1e-3, "rectify": False}, 1),
    "lion": (Lion(0.8, 0.95), TimmLion, {"betas": (0.8, 0.95)}, 1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_direction_is_the_step_of_the_optimiser(name):
    stabilizer, kind, options, factor = OPTIMIZERS[name]
    inputs, expected = gradients(), []
    for number in range(1, len(inputs) + 1):
        weight = nn.Parameter(torch.zeros(SHAPE, dtype=torch.float64))
        optimizer = kind([weight], lr=1.0, **options)
        for gradient in inputs[:number]:
            nn.init.zeros_(weight)  # so that the last step is all that the weight holds
            weight.grad = gradient.clone()
            optimizer.step()
        expected.append(-factor * weight.detach())
    close(run(stabilizer, inputs), expected)
    assert type(stabilizer) is stabilizers[name]


def test_momentum_looks_at_the_average_before_the_gradient():
    """d_k = g_k + α (g_k − m_k), m_{k+1} = β m_k + (1 − β) g_k, m_1 = g_1: the first direction is the gradient."""
    inputs, expected, m = gradients(), [], gradients()[0]
    for g in inputs:
        expected.append(g + 0.7 * (g - m))
        m = 0.4 * m + 0.6 * g
    close(run(Momentum(0.7, 0.4), inputs), expected)
    close(run(Momentum(), inputs)[:1], inputs[:1])


def test_momentum_of_minus_beta_is_ema_but_for_the_start():
    inputs, m, expected = gradients(), gradients()[0], []
    for g in inputs:
        m = 0.6 * m + 0.4 * g
        expected.append(m)
    close(run(Momentum(-0.6, 0.6), inputs), expected)


def test_sign_unit_and_clip_look_at_one_gradient_alone():
    inputs = gradients()
    close(run(Sign(), inputs), [torch.where(g > 0, 1.0, -1.0).double() for g in inputs])
    by_sample = [[sample.square().mean().item() ** 0.5 for sample in g] for g in inputs]
    close(
        run(Unit(), inputs),
        [g / torch.tensor(s, dtype=g.dtype)[:, None, None, None] for g, s in zip(inputs, by_sample, strict=True)],
    )
    clipped = [
        torch.stack([x * min(1.0, 0.5 / (48**0.5 * s)) for x, s in zip(g, scales, strict=True)])
        for g, scales in zip(inputs, by_sample, strict=True)
    ]
    close(run(Clip(0.5), inputs), clipped)
    assert not torch.equal(clipped[0], inputs[0]) and torch.equal(clipped[-1], inputs[-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_no_gradient_is_no_direction(dtype):
    nothing = torch.zeros(SHAPE, dtype=dtype)
    for stabilizer in ALL:
        assert all((direction == 0).all() for direction in run(stabilizer, [nothing] * 3)), stabilizer


def test_a_chain_is_one_after_the_other():
    inputs = gradients()
    close(run(Chain([Clip(0.5), EMA(0.8)]), inputs), run(EMA(0.8), run(Clip(0.5), inputs)))
    close(run(Chain([EMA(0.8), Clip(0.5)]), inputs), run(Clip(0.5), run(EMA(0.8), inputs)))
    assert not torch.allclose(run(Chain([EMA(0.8), Unit()]), inputs)[1], run(Chain([Unit(), EMA(0.8)]), inputs)[1])
    close(run(Chain(), inputs), inputs)
    assert stabilizer_from([{"clip": {"radius": 0.5}}, "sign"], "here") == Chain([Clip(0.5), Sign()])


@pytest.mark.parametrize("kind", AVERAGES)
def test_decays_are_rescaled_to_the_steps_at_hand(kind):
    plain = kind()
    betas = {name: beta for name, beta in vars(plain).items() if name.startswith("beta")}
    others = {name: value for name, value in vars(plain).items() if name not in betas and name != "steps"}
    meant = kind(steps=40)
    for n in 10, 40, 400:
        rescaled = for_steps(meant, n)
        assert {name: getattr(rescaled, name) for name in betas} == {name: b ** (40 / n) for name, b in betas.items()}
        assert {name: getattr(rescaled, name) for name in others} == others
        assert for_steps(Chain([Sign(), meant, Chain([meant])]), n) == Chain([Sign(), rescaled, Chain([rescaled])])
    assert for_steps(plain, 10) == plain and betas


def test_a_rescaled_average_forgets_as_fast_by_share_of_the_way():
    """Of a gradient that came first and then zeros, half of the way on the same share is left."""
    one, zero = torch.ones(SHAPE, dtype=torch.float64), torch.zeros(SHAPE, dtype=torch.float64)
    left = {}
    for n in 10, 100:
        directions = run(for_steps(EMA(0.9, steps=50), n), [one] + [zero] * (n // 2))
        left[n] = (directions[-1] / directions[0]).mean().item()
    assert left[10] == pytest.approx(left[100]) == pytest.approx(0.9**25)


@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_state_of_half_precision_gradients_is_float32(kind, dtype):
    inputs = [(1e-6 * torch.ones(SHAPE)).to(dtype)] * 3  # squares are 0 in half precision
    stabilizer, state = kind(), kind().init(inputs[0])
    for gradient in inputs:
        direction, state = stabilizer.update(gradient, state)
    assert direction.dtype == state.m.dtype == state.v.dtype == torch.float32
    close([direction], [run(stabilizer, [gradient.float() for gradient in inputs])[-1]])


@pytest.mark.parametrize("stabilizer", ALL, ids=repr)
def test_no_sample_touches_another_and_the_old_state_stays(stabilizer):
    inputs = gradients()
    together = run(stabilizer, inputs)
    alone = [run(stabilizer, [g[i : i + 1] for g in inputs]) for i in range(2)]
    close(together, [torch.cat(each) for each in zip(*alone, strict=True)])
    inputs[1][0] = float("nan")
    assert all(direction[1].isfinite().all() for direction in run(stabilizer, inputs))
    state = stabilizer.init(inputs[0])
    first, again = stabilizer.update(inputs[0], state)[0], stabilizer.update(inputs[0], state)[0]
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        *(({name: {"beta": 1.0}}, f"{name}: beta 1.0") for name in ("EMA", "RMSProp", "Nesterov", "Momentum")),
        *(({name: {"beta1": -0.1}}, f"{name}: beta1 -0.1") for name in ("Adam", "AdaBelief", "Lion")),
        *(({name: {"beta2": True}}, f"{name}: beta2 True") for name in ("Adam", "AdaBelief", "Lion")),
        *(({name: {"eps": 0}}, f"{name}: eps 0") for name in ("Adam", "AdaBelief", "RMSProp")),
        *(({kind.__name__: {"steps": 2.5}}, f"{kind.__name__}: steps 2.5") for kind in AVERAGES),
        ({"Momentum": {"alpha": -1.5}}, "Momentum: alpha -1.5"),
        ({"Clip": {"radius": 0}}, "Clip: radius 0"),
        ({"sign": {"gain": 2}}, "stabilizer sign: unknown key gain"),
        (["sign", {"emma": {}}], "stabilizer 'emma': unknown"),
    ],
)
def test_bad_values_are_one_line_that_names_the_key(section, message):
    section = {name.lower(): value for name, value in section.items()} if isinstance(section, dict) else section
    with pytest.raises(NrcgError, match=f"^here: {message}") as raised:
        stabilizer_from(section, "here")
    assert "\n" not in str(raised.value)
