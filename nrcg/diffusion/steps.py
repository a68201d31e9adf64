"""The reverse process: the noise level of a step, and how a scheduler goes from x_t to x_{t−1}."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from inspect import signature
from typing import Any, NamedTuple

import torch
from diffusers import DDPMScheduler

from nrcg.checks import listed, whole
from nrcg.diffusion.draws import Draws
from nrcg.errors import NrcgError, first_line

DEFAULT_STEPS = 1000  # as in diffusers, unless the schedule is shorter
Timestep = int | torch.Tensor  # t, counted from 0
FIXED = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
LEARNED = ("learned", "learned_range")  # predicted by the second half of the U-Net's output channels
PREDICTIONS = ("epsilon", "sample", "v_prediction")


class Level(NamedTuple):
    """Noise of a step: a = ᾱ_t, and a' = ᾱ of the next lower timestep (1 at the end); float32 scalars on the CPU."""

    t: Timestep
    alpha_bar: torch.Tensor
    alpha_bar_before: torch.Tensor

    @property
    def beta(self) -> torch.Tensor:
        """1 − a / a'."""
        return 1 - self.alpha_bar / self.alpha_bar_before

    @property
    def small_variance(self) -> torch.Tensor:
        """σ² = (1 − a') / (1 − a) · (1 − a / a'), the variance of the posterior."""
        return (1 - self.alpha_bar_before) / (1 - self.alpha_bar) * self.beta


def level_at(scheduler: Any, t: Timestep) -> Level:
    """The level of a timestep of a scheduler with `alphas_cumprod` and set timesteps."""
    before = scheduler.previous_timestep(t)
    alphas = scheduler.alphas_cumprod.cpu()  # diffusers' add_noise leaves them on the GPU
    return Level(t, alphas[t], alphas[before] if before >= 0 else scheduler.one)


class DDPMSteps:
    """The steps of Algorithm 1 with the scheduler's variance; identical to those of its `step`.

        μ_θ = √ᾱ_{t−1} · β_t / (1 − ᾱ_t) · x̂_0 + √α_t · (1 − ᾱ_{t−1}) / (1 − ᾱ_t) · x_t     (Ho et al. 2020, eq. 7)
        σ_t² = (1 − ᾱ_{t−1}) / (1 − ᾱ_t) · β_t, and 0 at t = 0      fixed_small, fixed_small_log
        σ_t² = β_t                                                  fixed_large, fixed_large_log
        σ_t² = v                                                    learned: the output's second half v, N×C×H×W
        log σ_t² = f · log β_t + (1 − f) · log of the small one     learned_range: f = (v + 1) / 2, N×C×H×W
                                                                    (Nichol and Dhariwal 2021, eq. 15)

    With fewer inference than training steps, t − 1 is the next timestep, and α_t = 1 − β_t = ᾱ_t / ᾱ_{t−1}.
    """

    def __init__(self, scheduler: Any, noise: Iterator[torch.Tensor]) -> None:
        self.scheduler = self.predictor = scheduler
        self.noise, self.levels = noise, [level_at(scheduler, t) for t in scheduler.timesteps]

    def start(self) -> torch.Tensor:
        """x_T."""
        return next(self.noise)

    def seen(self, x: torch.Tensor, level: Level) -> torch.Tensor:
        """The networks' input √ᾱ_t · x_0 + √(1 − ᾱ_t) · ε: the sample itself."""
        return x

    def variance(self, level: Level, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """σ_t², a scalar or N×C×H×W."""
        beta, small, kind = level.beta, level.small_variance, self.scheduler.config.variance_type
        if kind not in LEARNED:
            return small if kind in FIXED[:2] else beta
        learned = output[:, x.shape[1] :]
        if learned.shape != x.shape:
            raise NrcgError(
                f"scheduler: variance_type {kind} needs a U-Net that predicts it, with {2 * x.shape[1]} output "
                f"channels; this one has {output.shape[1]}"
            )
        share = (learned + 1) / 2
        ranged = (share * beta.log() + (1 - share) * small.clamp(min=1e-20).log()).exp()
        return learned if kind == "learned" else ranged

    def spread(self, level: Level, variance: torch.Tensor, again: Draws | None) -> torch.Tensor | None:
        """σ_t · z, with z from the sampler's draws, or from `again` when the step is to be repeated."""
        return variance**0.5 * (again.normal(1)[0] if again else next(self.noise)) if level.t > 0 else None

    def step(
        self, level: Level, x: torch.Tensor, x0: torch.Tensor, output: torch.Tensor, spread: Any, shift: Any
    ) -> torch.Tensor:
        """x_{t−1}: mean, plus `spread` = σ_t · z (None at t = 0), plus the `shift` of guidance, if any."""
        a, before, alpha = level.alpha_bar, level.alpha_bar_before, level.alpha_bar / level.alpha_bar_before
        mean = before**0.5 * level.beta / (1 - a) * x0
        mean = mean + alpha**0.5 * (1 - before) / (1 - a) * x
        after = mean if spread is None else mean + spread
        return after if shift is None else after + shift


class SolverSteps:
    """Steps of any other discrete-time diffusers scheduler.

    Adding δ to the mean of a DDPM's x_{t−1} equals adding δ · (1 − a) / (√a' · β) to its x̂_0. This guided x̂_0 goes to a
    copy of the scheduler as the output of a U-Net that predicts the sample, without the scheduler's clipping, which
    would undo the shift. Without guidance the scheduler is used as in diffusers' pipelines.
    """

    def __init__(self, scheduler: Any, guided: bool, noise: Iterator[torch.Tensor], **options: Any) -> None:
        self.scheduler, self.predictor = deepcopy(scheduler), deepcopy(scheduler)
        self.noise, self.guided = noise, guided
        taken, timesteps = signature(scheduler.step).parameters, scheduler.timesteps
        self.options = {name: value for name, value in options.items() if name in taken}
        if "clip_sample" not in signature(type(scheduler).__init__).parameters:  # in the config, but without effect
            self.predictor.register_to_config(clip_sample=False)
        sigmas = getattr(scheduler, "sigmas", None)
        last = getattr(scheduler, "final_alpha_cumprod", torch.ones(()))
        alphas = [*scheduler.alphas_cumprod.cpu()[timesteps.long()], last] if sigmas is None else [*1 / (1 + sigmas**2)]
        self.levels = [Level(*each) for each in zip(timesteps, alphas[:-1], alphas[1:], strict=True)]
        if guided:
            self.scheduler.register_to_config(prediction_type="sample", thresholding=False, clip_sample=False)
            self._try()

    def _try(self) -> None:
        trial, point, t = deepcopy(self.scheduler), torch.zeros(1, 1, 2, 2), self.levels[0].t
        options = self.options | ({"generator": torch.Generator()} if "generator" in self.options else {})
        try:
            trial.scale_model_input(point, t)
            trial.step(point, t, point, **options)
        except Exception as error:  # any error of a scheduler that cannot use a predicted sample
            raise NrcgError(_refusal(trial, f"it cannot use a given x̂_0: {first_line(error)}")) from None

    def start(self) -> torch.Tensor:
        """x_T, in the scheduler's units."""
        return next(self.noise) * self.scheduler.init_noise_sigma

    def seen(self, x: torch.Tensor, level: Level) -> torch.Tensor:
        """As in `DDPMSteps`; the scheduler may use other units for x."""
        return self.scheduler.scale_model_input(x, level.t)

    def variance(self, level: Level, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """σ² of a DDPM on the same timesteps."""
        return level.small_variance

    def spread(self, level: Level, variance: torch.Tensor, again: Draws | None) -> None:
        """None: the scheduler draws the noise."""

    def step(
        self, level: Level, x: torch.Tensor, x0: torch.Tensor, output: torch.Tensor, spread: None, shift: Any
    ) -> torch.Tensor:
        """x_{t−1} from x_t, both in the scheduler's units."""
        if shift is not None and level.beta > 0:  # else x_{t−1} is x_t
            x0 = x0 + shift * ((1 - level.alpha_bar) / (level.alpha_bar_before**0.5 * level.beta))
        return self.scheduler.step(x0 if self.guided else output, level.t, x, **self.options).prev_sample


def leaking(noise: Iterator[torch.Tensor], scheduler: Any, mean: float | None) -> Iterator[torch.Tensor]:
    """The draws, the first one as √ᾱ · mean + √(1 − ᾱ) · ε at the first timestep; unchanged if mean is None."""
    if mean is not None:
        alpha_bar = scheduler.alphas_cumprod[scheduler.timesteps[0]].item()
        yield alpha_bar**0.5 * mean + (1 - alpha_bar) ** 0.5 * next(noise)
    yield from noise


def set_timesteps(scheduler: Any, steps: int | None, timesteps: Sequence[int] | None = None) -> torch.Tensor:
    """Set the scheduler's number of inference steps, or its `timesteps`; returns these, descending, t counted from 0.

    Raises:
        NrcgError: for a scheduler with continuous time, another prediction type or several U-Net passes per step, and
            for steps outside the schedule, out of order, or of another number than `steps`.
    """
    config: Any = getattr(scheduler, "config", {})
    if not hasattr(scheduler, "alphas_cumprod") or config.get("timestep_type") == "continuous":
        raise NrcgError(_refusal(scheduler, "it has no discrete timesteps with known ᾱ_t"))
    if config.get("prediction_type", "epsilon") not in PREDICTIONS or config.get("use_flow_sigmas"):
        raise NrcgError(_refusal(scheduler, f"prediction_type is {config.get('prediction_type')!r}"))
    if scheduler.order != 1:
        raise NrcgError(_refusal(scheduler, f"it runs the U-Net {scheduler.order} times per step"))
    if isinstance(scheduler, DDPMScheduler) and config.variance_type not in (*FIXED, *LEARNED):
        raise NrcgError(_refusal(scheduler, f"variance_type {config.variance_type!r} is not in {(*FIXED, *LEARNED)}"))
    n = len(scheduler.alphas_cumprod)
    chosen = None if timesteps is None else list(timesteps)
    steps = (len(chosen) if chosen else min(DEFAULT_STEPS, n)) if steps is None else steps
    if not whole(1, n).holds(steps):
        raise NrcgError(f"num_inference_steps is {steps!r}; it must be an integer from 1 to {n}, the scheduler's T")
    if chosen is not None:
        if "timesteps" not in signature(scheduler.set_timesteps).parameters:
            raise NrcgError(_refusal(scheduler, "it has no custom timesteps"))
        if not listed(whole(0, n - 1)).holds(chosen) or sorted(set(chosen), reverse=True) != chosen:
            raise NrcgError(f"timesteps are {chosen}; they must be integers from {n - 1} to 0 in descending order")
        if len(chosen) != steps:
            raise NrcgError(
                f"num_inference_steps is {steps}, but there are {len(chosen)} timesteps; give the same number"
            )
    try:
        with torch.inference_mode(False):
            scheduler.set_timesteps(*(() if chosen else (steps,)), **({"timesteps": chosen} if chosen else {}))
    except ValueError as error:
        raise NrcgError(f"scheduler: {error}") from None
    if scheduler.timesteps.max() >= n:
        raise NrcgError(
            f"scheduler: {steps} steps with steps_offset={scheduler.config.steps_offset} start at timestep "
            f"{scheduler.timesteps.max()}, but alphas_cumprod ends at {n - 1}; take fewer steps or a smaller offset"
        )
    return scheduler.timesteps


def fractions(scheduler: Any) -> list[float]:
    """t / T of each inference timestep."""
    return [float(t) / scheduler.config.num_train_timesteps for t in scheduler.timesteps]


def _refusal(scheduler: Any, reason: str) -> str:
    ways = "DDPM, DDIM, DPM-Solver++, UniPC, DEIS or Euler"
    return f"scheduler: {type(scheduler).__name__} cannot be used ({reason}); take one of diffusers' {ways}"
