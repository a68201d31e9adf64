"""The guided loop: Algorithm 1, whatever fills its slots."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from nrcg.guidance.gradient import image_gradient
from nrcg.guidance.guidance import ClassifierGuidance, ValueGuidance
from nrcg.guidance.inputs import one_step_denoiser, pred_original_sample, predict
from nrcg.guidance.stabilizers import for_steps
from nrcg.guidance.step import posterior


@torch.no_grad()
def guided_ddpm(
    unet: Any,
    scheduler: Any,
    noise: Iterator[torch.Tensor],
    timesteps: Sequence[torch.Tensor] | torch.Tensor,
    guidance: ClassifierGuidance | ValueGuidance | None = None,
    on_step_end: Callable[[int, torch.Tensor, dict], Any] | None = None,
    progress: Callable[[Any], Iterable[torch.Tensor]] = iter,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Algorithm 1.

        draw x_T ~ N(0, I);  m, v ← 0
        for t = T … 1:
            ε ← ε_θ(x_t, t)
            x̂_0 ← (x_t − √(1 − ᾱ_t) · ε) / √ᾱ_t                               (eq. 5)
            g ← ∇_{x_t} log p(y | x_t or x̂_0)
            g ← stabilise(g)                                                  (eq. 7, 8)
            draw x_{t−1} ~ N(μ_θ(x_t, t) + s · σ_t² · g, σ_t² I)              (eq. 1)
        return x_0

    Here t counts from 0. `noise` yields draws of N(0, I), N×C×H×W: x_T, then one for every step at t > 0; `on_step_end`
    is as of `GuidedDDPMPipeline`. Returns x_0, N×C×H×W, and N flags of trajectories that became non-finite.
    """
    x = next(noise)
    planned = sum(map(guidance.covers, timesteps)) if guidance else 0
    stabilizer = for_steps(guidance.stabilizer if guidance else None, planned)
    state, guided_steps = stabilizer.init(x), 0
    gradient: Any = None
    diverged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for step, t in enumerate(progress(timesteps)):
        guided = guidance if guidance and guidance.covers(t) else None
        output = None
        if guided and guided_steps % guided.every == 0:
            denoise = one_step_denoiser(unet, scheduler, t, guided.jacobian) if guided.on == "x0" else None
            gradient, _, output = image_gradient(guided.value, x, denoise)
        if output is None:
            output = predict(unet, x, t)
        x0 = pred_original_sample(scheduler, output, t, x)
        mean, variance = posterior(scheduler, x0, t, x, output)
        x = mean + variance**0.5 * next(noise) if t > 0 else mean
        if guided:
            direction, state = stabilizer.update(gradient, state)
            x = x + guided.scale * (variance if variance.ndim else float(variance)) * direction
            guided_steps += 1
        diverged = diverged | ~x.isfinite().flatten(1).all(1)
        x = x.masked_fill(diverged[:, None, None, None], 0.0)  # frozen at mid-grey; the others go on
        if on_step_end is not None:
            on_step_end(step, t, {"latents": x, "pred_original_sample": x0, "gradient": gradient if guided else None})
    return x, diverged
