"""Methods of others: each is its paper's equation, as a step of a few lines by itself in float64, with ᾱ by NumPy."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from pipelines import ALPHAS, STEPS, T, generator, grad, make_classifier, make_pipeline, trail
from torch import nn

from nrcg import ClassifierGuidance, GuidedDDPMPipeline, GuidedPipeline
from nrcg.diffusion.draws import Draws
from nrcg.guidance import methods

SHAPE, TIMESTEPS = (2, 3, 8, 8), range(T - T // STEPS, -1, -T // STEPS)
BEFORE = [*ALPHAS[list(TIMESTEPS)][1:], 1.0]
VARIANCES = [(1 - b) / (1 - a) * (1 - a / b) for a, b in zip(ALPHAS[list(TIMESTEPS)], BEFORE, strict=True)]


class Here:
    """A step's x_t, a = ᾱ_t, b = ᾱ_{t−1}, α = a / b, σ², the clipped x̂_0 (a function of x_t) and its ε."""

    def __init__(self, unet, x, i, eta, draws, noise):
        self.x, self.i, self.u, self.eta, self.draws, self.noise = x, i, TIMESTEPS[i] / T, eta, draws, noise
        self.a, self.b, self.var = ALPHAS[TIMESTEPS[i]], BEFORE[i], VARIANCES[i]
        self.output = unet(x, TIMESTEPS[i]).sample
        self.x0 = ((x - (1 - self.a) ** 0.5 * self.output) / self.a**0.5).clamp(-1, 1)
        self.eps = ((x - self.a**0.5 * self.x0) / (1 - self.a) ** 0.5).detach()
        self.alone = self.x0.detach().requires_grad_()

    def step(self, x0=None, eps=None, z=None):
        """DDIM's: √b · x̂_0 + √(1 − b − η²σ²) · ε + ησ · z, which is a DDPM's where η = 1."""
        x0, eps = self.alone if x0 is None else x0, self.eps if eps is None else eps
        z = self.noise() if z is None else z
        spread = self.eta**2 * self.var
        return self.b**0.5 * x0 + (1 - self.b - spread) ** 0.5 * eps + spread**0.5 * z

    def by_epsilon(self, eps):
        """The step with another ε, and the x̂_0 that this one makes of x_t."""
        return self.step((self.x - (1 - self.a) ** 0.5 * eps) / self.a**0.5, eps)


def by_paper(rule, classifier, s, rounds=lambda u: 1, eta=None) -> torch.Tensor:
    """x_{t−1} of every step; without η noise is drawn as diffusers' DDPM does, else as its DDIM."""
    unet, random, draws = make_pipeline(dtype=torch.float64).unet, generator(), Draws(SHAPE, generator(), CPU)
    x, found = torch.randn(SHAPE, generator=random, dtype=torch.float64), []

    def log_p(images):
        return classifier(images).log_softmax(1)[:, 1]

    for i, t in enumerate(TIMESTEPS):
        for left in reversed(range(rounds(t / T))):

            def noise(t=t, left=left):
                if t == 0 if eta is None else eta == 0:
                    return 0.0
                if left and eta is None:
                    return draws.normal(1)[0]
                return torch.randn(SHAPE, generator=random, dtype=torch.float64)

            here = Here(unet, x.detach().requires_grad_(), i, 1.0 if eta is None else eta, draws, noise)
            x = rule(here, log_p, s)
            if left:
                alpha = here.a / here.b
                x = alpha**0.5 * x + (1 - alpha) ** 0.5 * draws.normal(1)[0]
        found.append(x.detach())
    return torch.stack(found)


CPU = torch.device("cpu")


def norm(g):
    return g.flatten(1).norm(dim=1)[:, None, None, None]


def rms(g):
    return norm(g) / math.prod(SHAPE[1:]) ** 0.5


def nrcg():
    m, beta = 0.0, 0.99 ** (400 / STEPS)

    def rule(at, log_p, s):
        nonlocal m
        m = beta * m + (1 - beta) * grad(log_p(at.x0), at.x)
        return at.step() + s * at.var * m

    return rule


def cg(at, log_p, s):
    return at.step() + s * at.var * grad(log_p(at.x), at.x)


def cg_ddim(at, log_p, s):
    return at.by_epsilon(at.eps - (1 - at.a) ** 0.5 * s * grad(log_p(at.x), at.x))


def dps(at, log_p, s):
    value = log_p(at.x0)
    return at.step() + s * grad(value, at.x) / value.detach().abs()[:, None, None, None]


def smoothed(at, log_p, n, sigma):
    """f(x) = log (1/n) Σ_k exp ℓ(x + σ̄ √(1 − a) ξ_k)."""
    noise = sigma * (1 - at.a) ** 0.5 * at.draws.normal(n).double()
    return lambda images: sum(log_p(images + each).exp() for each in noise).div(n).log()


def lgd(n):
    def rule(at, log_p, s):
        f = smoothed(at, log_p, n, 1.0)
        return at.step() + s * grad(f(at.x0), at.x)

    return rule


def freedom(at, log_p, s):
    return at.step() + s * at.a**0.5 * grad(log_p(at.x0), at.x)


def ascent(at, value, steps, scale):
    """Δ of so many steps on x̂_0."""
    x0 = at.alone
    for _ in range(steps):
        x0 = x0 + scale * grad(value(x0), x0)
    return (x0 - at.alone).detach()


def ugd(inner, scale):
    def rule(at, log_p, s):
        eps = at.eps - (1 - at.a) ** 0.5 * s * grad(log_p(at.x0), at.x)
        return at.by_epsilon(eps - (at.a / (1 - at.a)) ** 0.5 * ascent(at, log_p, inner, scale))

    return rule


def mpgd(at, log_p, s):
    g = grad(log_p(at.alone), at.alone)
    return at.step(at.alone + s / at.b**0.5 * g / rms(g))


def tfg(n, sigma, inner, scale):
    def rule(at, log_p, s):
        f = smoothed(at, log_p, n, sigma)
        shift = s / (at.a / at.b) ** 0.5 * grad(f(at.x0), at.x) + at.b**0.5 * ascent(at, f, inner, scale)
        return at.step() + shift

    return rule


def elucd(tau2, beta, gamma):
    first, _, *rest = make_classifier(activation=nn.ReLU, dtype=torch.float64)
    soft = nn.Sequential(first, nn.Softplus(beta), *rest)

    def rule(at, log_p, s):
        f = soft(at.alone)
        g = grad((f[:, 1].exp() / (tau2 * f).exp().sum(1)).log(), at.alone)
        return at.step() + s * (at.var + gamma * max(VARIANCES) * math.sin(math.pi * at.u)) * g

    return rule


def dsg(at, log_p, s):
    if at.u == 0:
        return at.step()
    own, radius, g = at.var**0.5 * at.noise(), math.prod(SHAPE[1:]) ** 0.5 * at.var**0.5, grad(log_p(at.x0), at.x)
    mixed = own + s * (radius * g / norm(g) - own)
    return at.step(z=0.0) + radius * mixed / norm(mixed)


class Adam:
    def __init__(self):
        self.k, self.m, self.v = 0, 0.0, 0.0

    def __call__(self, g):
        self.k, self.m, self.v = self.k + 1, 0.9 * self.m + 0.1 * g, 0.995 * self.v + 0.005 * g**2
        return self.m / (1 - 0.9**self.k) / ((self.v / (1 - 0.995**self.k)) ** 0.5 + 1e-8)


def adam_dps():
    adam = Adam()
    return lambda at, log_p, s: at.step() + s / (at.a / at.b) ** 0.5 * adam(grad(log_p(at.x0), at.x))


def adam_cg():
    adam = Adam()
    return lambda at, log_p, s: at.by_epsilon(at.eps - (1 - at.a) ** 0.5 * s * adam(grad(log_p(at.x), at.x)))


def adam_mpgd():
    adam = Adam()
    return lambda at, log_p, s: at.step(at.alone + s * adam(grad(log_p(at.alone), at.alone)))


def moved(images, size, shift, flip):
    """Squares of `size` of the side, moved by `shift` of it (across, down): bilinear, as two matrices by sample."""
    side = images.shape[-1]
    centres = (np.arange(side) + 0.5) / side - 0.5
    matrices = []
    for mirrored, move in (flip, shift[0]), (np.zeros_like(flip), shift[1]):
        turned = np.where(mirrored, -1, 1) * size
        places = ((turned[:, None] * centres + move[:, None] + 0.5) * side - 0.5).clip(0, side - 1)
        matrices.append(torch.tensor((1 - np.abs(places[..., None] - np.arange(side))).clip(0)))
    across, down = matrices
    return torch.einsum("nix,nyj,ncji->ncyx", across.mT, down, images)


def polyak(n):
    def rule(at, log_p, s):
        value = 0.0
        for size, across, down, mirror in at.draws.uniform(n, 4).double().numpy().transpose(0, 2, 1):
            shift = 0.1 * (2 * across - 1), 0.1 * (2 * down - 1)
            value = value + log_p(moved(at.x0, 0.8 + 0.2 * size, shift, mirror < 0.5)) / n
        g = grad(value, at.x)
        return at.step() + s * norm(at.output.detach()) / norm(g) ** 2 * g

    return rule


def compress(share, power):
    guided = sorted({math.floor(STEPS * (i / (share * STEPS)) ** power) for i in range(int(share * STEPS))})

    def rule(at, log_p, s):
        following = [*guided, STEPS][guided.index(at.i) + 1] if at.i in guided else at.i
        return at.step() + s * (following - at.i) * at.var * grad(log_p(at.x), at.x)

    return rule


MIDDLE = {True: 3, False: 1}
CASES = {
    "nrcg": ({}, 60.0, nrcg),
    "cg": ({}, 60.0, lambda: cg),
    "cg_ddim": ({}, 8.0, lambda: cg_ddim),
    "dps": ({}, 2.0, lambda: dps),
    "lgd": ({"n": 3}, 2.0, lambda: lgd(3)),
    "freedom": ({"times": 3}, 2.0, lambda: freedom),
    "ugd": ({"inner": 3, "inner_scale": 0.5, "times": 2}, 8.0, lambda: ugd(3, 0.5)),
    "mpgd": ({}, 0.1, lambda: mpgd),
    "tfg": ({"n": 3, "sigma": 0.5, "inner": 2, "inner_scale": 0.2, "times": 2}, 1.0, lambda: tfg(3, 0.5, 2, 0.2)),
    "elucd": ({"tau2": 0.6, "softplus": 2.0, "gamma": 0.4}, 20.0, lambda: elucd(0.6, 2.0, 0.4)),
    "dsg": ({}, 0.2, lambda: dsg),
    "adam_dps": ({}, 0.1, adam_dps),
    "adam_cg": ({}, 0.2, adam_cg),
    "adam_mpgd": ({}, 0.1, adam_mpgd),
    "polyak": ({"n": 3}, 1e-3, lambda: polyak(3)),
    "compress": ({"share": 0.5, "power": 2.0}, 60.0, lambda: compress(0.5, 2.0)),
}
ROUNDS = {"freedom": lambda u: 3 if 0.5 <= u <= 0.8 else 1, "ugd": lambda u: 2, "tfg": lambda u: 2}


def by_nrcg(name, kind=GuidedDDPMPipeline, eta=0.0, **scheduler) -> torch.Tensor:
    pipe, (arguments, s, _) = make_pipeline(kind, torch.float64, **scheduler), CASES[name]
    pipe.scheduler.alphas_cumprod = torch.tensor(ALPHAS)
    classifier = make_classifier(activation=nn.ReLU if name == "elucd" else nn.SiLU, dtype=torch.float64)
    return trail(pipe, ClassifierGuidance(classifier, 1, s, **methods[name](**arguments)), eta=eta)


def expected(name, eta=None) -> torch.Tensor:
    _, s, rule = CASES[name]
    return by_paper(rule(), make_classifier(dtype=torch.float64), s, ROUNDS.get(name, lambda u: 1), eta)


def test_every_method_has_its_oracle():
    assert CASES.keys() == methods.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_guided_ddpm_is_the_papers_equation(name):
    ours = by_nrcg(name)
    torch.testing.assert_close(ours, expected(name), rtol=0, atol=1e-7)
    unguided = by_paper(lambda at, log_p, s: at.step(), None, 0.0)
    assert 0.02 < (ours - unguided)[-1].abs().max() < 10


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["cg_ddim", "ugd", "adam_cg"])
def test_a_guided_ddim_is_the_papers_equation(name, eta):
    ours = by_nrcg(name, GuidedPipeline, eta, by=DDIMScheduler)
    torch.testing.assert_close(ours, expected(name, eta), rtol=0, atol=1e-7)
