"""The guided loop: Algorithm 1, with any choice of slots."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from nrcg.diffusion.denoise import one_step_denoiser, pred_epsilon, pred_original_sample, predict
from nrcg.diffusion.steps import Level, fractions
from nrcg.guidance.sizes import Step
from nrcg.guidance.stabilizers import for_steps

TENSORS = ("latents", "sample", "pred_original_sample", "gradient", "direction")  # x_{t−1}, x_t, x̂_0, g, d


@torch.no_grad()
def guided_loop(
    unet: Any,
    steps: Any,
    draws: Any = None,
    guidance: Any = None,
    on_step_end: Callable[[int, Level, dict[str, Any]], torch.Tensor] = lambda _step, _level, found: found["latents"],
    progress: Callable[[Any], Iterable[Level]] = iter,
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

    Here t counts from 0. The slots of `guidance` determine how g is computed, the step size, and the quantity that is
    shifted; `draws` supplies the noise of `copies` and `recur`. `on_step_end` gets the step's number, level and
    `TENSORS`, and returns x_{t−1}. Returns x_0, N×C×H×W, and N flags of trajectories that became non-finite.
    """
    x, scheduler = steps.start(), steps.predictor
    passed = fractions(scheduler)
    plan = guidance.plan(passed) if guidance else [None] * len(passed)
    stabilizer = for_steps(guidance and guidance.stabilizer, sum(planned.times for planned in plan if planned))
    state, direction = stabilizer.init(x), None
    found: Any = None
    largest = max(float(level.small_variance) for level in steps.levels)
    diverged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for number, level in enumerate(progress(steps.levels)):
        planned, before = plan[number], x
        for left in reversed(range(planned.times if planned else 1)):
            seen, output, shift = steps.seen(x, level), None, None
            if planned:
                gradient_at = guidance.gradients(level, draws)
                if planned.renew:
                    on_x0 = guidance.on == "x0"
                    denoise = one_step_denoiser(unet, scheduler, level, guidance.jacobian) if on_x0 else None
                    found = gradient_at(seen, denoise)
                    output = found.aside
            if output is None:
                output = predict(unet, seen, level.t)
            x0 = guided_x0 = pred_original_sample(scheduler, output, level, seen)
            variance = steps.variance(level, seen, output)
            spread = steps.spread(level, variance, draws if left else None)
            if planned:
                direction, state = stabilizer.update(found.gradient, state)
                epsilon = pred_epsilon(scheduler, output, level, seen)
                step = Step(level, passed[number], variance, largest, x0, epsilon, found.values, spread)
                guided_x0, shift = guidance.applied(step, direction, planned.weight, gradient_at)
            x = steps.step(level, x, guided_x0, output, spread, shift)
            if left:
                x = (1 - level.beta).sqrt() * x + level.beta.sqrt() * draws.normal(1)[0]
        diverged = diverged | ~x.isfinite().flatten(1).all(1)
        x = x.masked_fill(diverged[:, None, None, None], 0.0)  # frozen at mid-grey; the others continue
        given = (found.gradient, direction) if planned else (None, None)
        x = on_step_end(number, level, dict(zip(TENSORS, (x, before, x0, *given), strict=True)))
    return x, diverged
