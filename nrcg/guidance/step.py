"""How far: the reverse process' own mean and variance, by which eq. 1 weighs the gradient, and its time steps."""

from typing import Any

import torch
from diffusers import DDPMScheduler

from nrcg.checks import whole
from nrcg.errors import NrcgError

DEFAULT_STEPS = 1000  # as in diffusers, where the schedule is as long
Timestep = int | torch.Tensor  # t, counted from 0
FIXED = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
LEARNED = ("learned", "learned_range")  # of a U-Net with twice as many output channels; their second half tells


def posterior(
    scheduler: Any, x0: torch.Tensor, t: Timestep, x: torch.Tensor, output: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of p_θ(x_{t−1} | x_t) from x̂_0, x_t and the U-Net's output, as in the scheduler's own `step`.

        μ_θ = √ᾱ_{t−1} · β_t / (1 − ᾱ_t) · x̂_0 + √α_t · (1 − ᾱ_{t−1}) / (1 − ᾱ_t) · x_t     (Ho et al. 2020, eq. 7)
        σ_t² = (1 − ᾱ_{t−1}) / (1 − ᾱ_t) · β_t, and 0 at t = 0      fixed_small, fixed_small_log
        σ_t² = β_t                                                  fixed_large, fixed_large_log
        σ_t² = v                                                    learned: the output's second half v, N×C×H×W
        log σ_t² = f · log β_t + (1 − f) · log of the small one     learned_range: f = (v + 1) / 2, N×C×H×W
                                                                    (Nichol and Dhariwal 2021, eq. 15)

    Of fewer inference than training steps, t − 1 is the next time step, and α_t = 1 − β_t = ᾱ_t / ᾱ_{t−1}.
    """
    before, alpha_bar = scheduler.previous_timestep(t), scheduler.alphas_cumprod[t]
    alpha_bar_before = scheduler.alphas_cumprod[before] if before >= 0 else scheduler.one
    alpha = alpha_bar / alpha_bar_before
    beta = 1 - alpha
    mean = alpha_bar_before**0.5 * beta / (1 - alpha_bar) * x0
    mean = mean + alpha**0.5 * (1 - alpha_bar_before) / (1 - alpha_bar) * x
    small, kind = (1 - alpha_bar_before) / (1 - alpha_bar) * beta, scheduler.config.variance_type
    if kind in LEARNED:
        learned = output[:, x.shape[1] :]
        if learned.shape != x.shape:
            raise NrcgError(
                f"scheduler: variance_type {kind} needs a U-Net that predicts it, with {2 * x.shape[1]} output "
                f"channels; this one has {output.shape[1]}"
            )
        share = (learned + 1) / 2
        ranged = (share * beta.log() + (1 - share) * small.clamp(min=1e-20).log()).exp()
        return mean, learned if kind == "learned" else ranged
    return mean, small if kind in FIXED[:2] else beta


def set_timesteps(scheduler: Any, steps: int | None) -> torch.Tensor:
    """Let the scheduler take so many inference steps; its timesteps, t counted from 0 and downwards."""
    variance_type = getattr(scheduler.config, "variance_type", None)
    if not isinstance(scheduler, DDPMScheduler) or variance_type not in (*FIXED, *LEARNED):
        raise NrcgError(
            f"scheduler: {type(scheduler).__name__} with variance_type {variance_type!r} cannot be used; take a "
            f"DDPMScheduler with one of {', '.join((*FIXED, *LEARNED))}"
        )
    n = len(scheduler.alphas_cumprod)
    steps = min(DEFAULT_STEPS, n) if steps is None else steps
    if not whole(1, n).holds(steps):
        raise NrcgError(f"num_inference_steps is {steps!r}; it must be an integer from 1 to {n}, the scheduler's own T")
    try:
        with torch.inference_mode(False):
            scheduler.set_timesteps(steps)
    except ValueError as error:
        raise NrcgError(f"scheduler: {error}") from None
    if scheduler.timesteps.max() >= n:
        raise NrcgError(
            f"scheduler: {steps} steps with steps_offset={scheduler.config.steps_offset} start at timestep "
            f"{scheduler.timesteps.max()}, but alphas_cumprod ends at {n - 1}; take fewer steps or a smaller offset"
        )
    return scheduler.timesteps
