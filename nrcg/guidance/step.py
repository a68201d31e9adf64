"""How far a step goes: the reverse process' own mean and variance, by which eq. 1 weighs the gradient."""

from typing import Any

import torch


def posterior(
    scheduler: Any, x0: torch.Tensor, timestep: int | torch.Tensor, sample: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of p_θ(x_{t−1} | x_t) from x̂_0 and x_t, as in the scheduler's own `step`; t counts from 0.

    μ_θ = √ᾱ_{t−1} · β_t / (1 − ᾱ_t) · x̂_0 + √α_t · (1 − ᾱ_{t−1}) / (1 − ᾱ_t) · x_t     (Ho et al. 2020, eq. 7)
    σ_t² = (1 − ᾱ_{t−1}) / (1 − ᾱ_t) · β_t, and 0 at t = 0      fixed_small, fixed_small_log
    σ_t² = β_t                                                  fixed_large, fixed_large_log

    With fewer inference than training steps, t − 1 is the next of the scheduler's time steps, and
    α_t = 1 − β_t = ᾱ_t / ᾱ_{t−1}.
    """
    before = scheduler.previous_timestep(timestep)
    alpha_bar = scheduler.alphas_cumprod[timestep]
    alpha_bar_before = scheduler.alphas_cumprod[before] if before >= 0 else scheduler.one
    alpha = alpha_bar / alpha_bar_before
    beta = 1 - alpha
    mean = alpha_bar_before**0.5 * beta / (1 - alpha_bar) * x0
    mean = mean + alpha**0.5 * (1 - alpha_bar_before) / (1 - alpha_bar) * sample
    small = scheduler.config.variance_type in ("fixed_small", "fixed_small_log")
    return mean, (1 - alpha_bar_before) / (1 - alpha_bar) * beta if small else beta
