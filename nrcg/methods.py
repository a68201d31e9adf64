"""Methods of others as choices of slots: `ClassifierGuidance(classifier, target, scale, **methods["dps"]())`.

Notation: a = ᾱ_t, a' = ᾱ_{t−1}, α = a / a', S the unguided step, ℓ what is maximised, g = ∇_{x_t} ℓ(x̂_0) through the
U-Net, g0 = ∇_{x̂_0} ℓ, s the scale. Here x̂_0 is clipped as the scheduler says; some of the authors' code does not.
"""

from collections.abc import Mapping
from typing import Any

from nrcg.registry import Registry

methods = Registry("method")
ADAM = {"adam": {"beta1": 0.9, "beta2": 0.995, "eps": 1e-8, "bias_correction": True}}


def expanded(section: Any) -> Any:
    """A section whose `method`, if it has one, is spelled out; what the section says besides wins."""
    if not (isinstance(section, Mapping) and "method" in section):
        return section
    return {**methods.build(section["method"]), **{key: section[key] for key in section if key != "method"}}


@methods.register("nrcg")
def nrcg() -> dict[str, Any]:
    """x_{t−1} = S + s · σ_t² · EMA(g): Vaeth et al. 2025, arXiv 2507.00687, with β = 0.99 over 400 steps."""
    return {"stabilizer": {"ema": {"beta": 0.99, "steps": 400}}}


@methods.register("cg")
def cg() -> dict[str, Any]:
    """x_{t−1} = S + s · σ_t² · ∇_{x_t} log p(y | x_t): Dhariwal and Nichol 2021, arXiv 2105.05233, Algorithm 1."""
    return {"on": "xt"}


@methods.register("cg_ddim")
def cg_ddim() -> dict[str, Any]:
    """ε − √(1 − a) · s · ∇_{x_t} log p(y | x_t): the same, Algorithm 2, made for DDIM."""
    return {"on": "xt", "step_size": "constant", "apply": "epsilon"}


@methods.register("dps")
def dps() -> dict[str, Any]:
    """x_{t−1} = S + s · g / |ℓ|: Chung et al. 2023, arXiv 2209.14687, as TFG's code has it.

    The authors' code divides ∇‖y − A x̂_0‖² by ‖y − A x̂_0‖, one power less. With ℓ = log p the step grows as p nears 1.
    """
    return {"step_size": "inverse_value"}


@methods.register("lgd")
def lgd(n: int = 10) -> dict[str, Any]:
    """x_{t−1} = S + s · ∇ log (1/n) Σ_k exp ℓ(x̂_0 + √(1 − a) · ξ_k): Song et al. 2023, ICML, loss-guided diffusion.

    TFG's code divides the gradient by n once more: its s is n times this one.
    """
    return {"copies": {"noise": {"n": n}}, "step_size": "constant"}


@methods.register("freedom")
def freedom(times: int = 2) -> dict[str, Any]:
    """x_{t−1} = S + s · √a · g, repeated in the middle of the way: Yu et al. 2023, arXiv 2303.09833.

    √a is that of the authors' code for faces, which does not repeat; their code for ImageNet repeats where
    0.5 ≤ t / T ≤ 0.8, ten times, with a step by RMS(ε) / RMS(g). TFG's repeats everywhere, with a constant one.
    """
    return {"step_size": "signal", "recur": {"times": times, "interval": [0.5, 0.8]}}


@methods.register("ugd")
def ugd(inner: int = 2, inner_scale: float = 1.0, times: int = 1) -> dict[str, Any]:
    """ε − √(1 − a) · s · g − √(a / (1 − a)) · Δ: Bansal et al. 2023, arXiv 2302.07121, Δ by `inner` steps on x̂_0.

    The authors' code starts these at the x̂_0 guided already, by Adam, and clips it again after them.
    """
    ascent = {"steps": inner, "scale": inner_scale, "apply": "x0"}
    return {"step_size": "constant", "apply": "epsilon", "inner": ascent, "recur": {"times": times}}


@methods.register("mpgd")
def mpgd() -> dict[str, Any]:
    """x̂_0 + s / √a' · g0 / RMS(g0), with ε kept: He et al. 2023, arXiv 2311.16424, without projection.

    So x_{t−1} = S + s · g0 / RMS(g0): the authors' code for faces. For CLIP it lets ε follow x̂_0, by a step of
    RMS(ε); TFG's leaves out RMS and √a'.
    """
    return {"jacobian": "identity", "step_size": "unit"}


@methods.register("tfg")
def tfg(n: int = 4, sigma: float = 0.01, inner: int = 1, inner_scale: float = 1.0, times: int = 1) -> dict[str, Any]:
    """x_{t−1} = S + s / √α · ∇f(x̂_0) + √a' · Δ, f(x) = log (1/n) Σ_k exp ℓ(x + σ̄ √(1 − a) ξ_k): arXiv 2409.15761.

    Δ are `inner` steps of `inner_scale` on f, from x̂_0. Ye et al. 2024, with their code's "constant" scales; by default
    these are weighted by α over its mean there.
    """
    slots = {"copies": {"noise": {"n": n, "sigma": sigma}}, "step_size": "inverse_signal"}
    return slots | {"inner": {"steps": inner, "scale": inner_scale}, "recur": {"times": times}}


@methods.register("elucd")
def elucd(tau2: float = 0.5, softplus: float = 3.0, gamma: float = 0.3) -> dict[str, Any]:
    """x_{t−1} = S + s · (σ_t² + γ · max σ² · sin(π t / T)) · ∇_{x̂_0} log(e^{f_y} / Σ_i e^{τ2 f_i}): ICLR 2024.

    Ma et al.; with softplus for ReLU in the guiding classifier. The authors' U-Net is always class-conditional.
    """
    slots = {"objective": {"tempered": {"tau2": tau2}}, "softplus": softplus, "jacobian": "identity"}
    return slots | {"step_size": {"variance_and_sine": {"gamma": gamma}}}


@methods.register("dsg")
def dsg() -> dict[str, Any]:
    """The step's noise turned towards g on its sphere: Yang et al. 2024, arXiv 2402.03201, 0 ≤ s ≤ 1."""
    return {"step_size": "constant", "apply": "sphere"}


@methods.register("adam_dps")
def adam_dps() -> dict[str, Any]:
    """x_{t−1} = S + s / √α · Adam(g), bias-corrected: Belardi et al. 2026, arXiv 2603.16797.

    Their fourth form, for inverse problems, is this one with x̂_0 clipped, as it is here where the scheduler clips.
    """
    return {"stabilizer": ADAM, "step_size": "inverse_signal"}


@methods.register("adam_cg")
def adam_cg() -> dict[str, Any]:
    """ε − √(1 − a) · s · Adam(∇_{x_t} ℓ(x_t)): the same."""
    return {"on": "xt", "stabilizer": ADAM, "step_size": "constant", "apply": "epsilon"}


@methods.register("adam_mpgd")
def adam_mpgd() -> dict[str, Any]:
    """x̂_0 + s · Adam(g0), with ε kept: the same; so x_{t−1} = S + √a' · s · Adam(g0)."""
    return {"jacobian": "identity", "stabilizer": ADAM, "step_size": "signal_before"}


@methods.register("polyak")
def polyak(n: int = 4) -> dict[str, Any]:
    """x_{t−1} = S + s · ‖ε‖ / ‖g‖² · g, g a mean over crops, moves and mirrorings: Shen et al., arXiv 2403.12404.

    The authors' code has the step and the augmentations (of colour too) apart, and a norm of the losses, no mean.
    """
    return {"copies": {"augment": {"n": n}}, "step_size": "polyak"}


@methods.register("compress")
def compress(share: float = 0.2, power: float = 2.0) -> dict[str, Any]:
    """Classifier guidance at `share` of the steps, denser early, each weighing those left out: arXiv 2408.11194.

    The authors' code weighs a step by how many of its choices fall on it.
    """
    return {"on": "xt", "every": {"share": share, "power": power}}
