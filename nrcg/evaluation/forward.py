"""Accuracy and sensitivity of a classifier along the forward process (figures 1 to 4, eq. 3, 4 and 6).

Each image has one noise ε for its whole trajectory, so that x_t = √ᾱ_t · x_0 + √(1 − ᾱ_t) · ε and its neighbour differ
only by the schedule.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from nrcg.diffusion.denoise import clip_limit, one_step_denoiser, pred_original_sample, tell
from nrcg.diffusion.steps import Level
from nrcg.errors import NrcgError
from nrcg.guidance.gradient import frozen, image_gradient
from nrcg.guidance.guidance import INPUTS
from nrcg.guidance.objectives import ClassValue, Objective, as_objective, log_prob
from nrcg.guidance.stabilizers import Stabilizer, for_steps
from nrcg.io.images import to_channels, to_float
from nrcg.io.tables import CURVE_COLUMNS
from nrcg.io.unfinished import in_batches
from nrcg.models.classifier import predictions
from nrcg.rng import keyed_generator
from nrcg.runtime.device import exact_convolutions
from nrcg.runtime.memory import BatchLimit
from nrcg.runtime.preemption import Stop

SATURATED = 1e-6  # 1 − p in float32 has an error of 6e-8; below this, a twentieth or more of ∇ log p is rounding
# By setup and metric, one row per t ≥ 1 from T down: count, sum and sum of squares of the values, in float64, so that
# the batch size affects at most the last bits. For the metric `one_class`, the number of images in each class.
Sums = dict[tuple[str, str], list[list[float]]]
LAST = {"relative_sensitivity": 1, "one_class": 2}  # position in tables, after means over images


def forward_analysis(
    images: np.ndarray,
    classifier: nn.Module,
    *,
    target: int,
    labels: np.ndarray,
    unet: nn.Module | None,
    scheduler: Any,
    on: str,
    setups: Mapping[str, Stabilizer | None],
    seed: int,
    batch_size: int,
    channels: int = 3,
    class_label: int | None = None,
    objective: str | Objective = "log_prob",
    stride: int = 1,
    unfinished: Path | None = None,
    stop: Stop | None = None,
) -> pd.DataFrame:
    """Curves of one classifier over t, with one pass through the networks for all stabilisers.

    With s(t) the next lower t on the grid and d the stabilised gradient of the objective with respect to x_t, the
    metrics are (the first three do not depend on the stabiliser and are given only for setups without one)

    accuracy               share of images classified as labelled at t
    one_class              largest share of images assigned to the same class at t
    logit_sensitivity      ‖f(x_t) − f(x_s)‖ / ‖x_t − x_s‖                     (eq. 3)
    gradient_sensitivity   ‖d_t − d_s‖ / ‖x_t − x_s‖                           (eq. 4, 6)
    gradient_norm          ‖d_t‖
    relative_sensitivity   mean ‖d_t − d_s‖ / mean ‖d_t‖, without a standard deviation; independent of a constant factor
                           of the gradient, and not dominated by images with a gradient near zero
    saturated              with log_prob: share of images with 1 − p(target) below SATURATED; their ∇ log p,
                           proportional to it, is rounding noise
    clipped                with on="x0" and a scheduler that clips: mean share of values of x̂_0 that are clipped, so
                           that no gradient passes, among values within the limits in the image

    There is one row per setup, metric and visited t ≥ 1, with mean and population standard deviation over n images.
    `images` are uint8 N×H×W×3, `labels` int64 N. t corresponds to the scheduler's timestep t − 1; t = 0 is the image.
    `stride` k visits t = T, T − k, … and 0. The images have the `channels` of the U-Net, and the classifier must accept
    these (see `nrcg.adapt`). `class_label` is for a class-conditional U-Net. The folder `unfinished` keeps the sums of
    finished batches; a call with the same arguments resumes from them, on a CPU with identical results. On a GPU,
    float32 convolutions are computed in IEEE float32, not TF32, whose rounding would enter the sensitivities.
    """
    if on not in INPUTS:
        raise NrcgError(f"forward: on {on!r}: must be one of {', '.join(INPUTS)}")
    if not len(images) or not setups:
        raise NrcgError(f"forward: {len(images)} images, {len(setups)} setups; give at least one of each")
    stop, objective = stop or Stop(), as_objective(objective)
    value = ClassValue(classifier, target, objective)
    steps = [*range(scheduler.config.num_train_timesteps, 0, -stride), 0]
    raw = [name for name, stabilizer in setups.items() if stabilizer is None]
    stabilizers = {name: for_steps(stabilizer, len(steps) - 1) for name, stabilizer in setups.items()}
    clip = clip_limit(scheduler) if on == "x0" else None

    def trajectories(batch: range) -> Sums:
        progress.n = batch.start * len(steps)  # discard the progress of an attempt that ran out of memory
        sums: dict[tuple[str, str], list[torch.Tensor]] = defaultdict(list)  # on the device, without synchronisation

        def add(names: Iterable[str], metric: str, values: torch.Tensor, counted: torch.Tensor | None = None) -> None:
            counted = torch.ones_like(values, dtype=torch.bool) if counted is None else counted
            values = values.double().where(counted, 0.0)
            row = torch.stack([counted.double().sum(), values.sum(), values.square().sum()])
            for name in names:
                sums[name, metric].append(row)

        x0, noise = _batch(images[batch.start : batch.stop], channels, classifier, seed, batch.start)
        told = None if unet is None else tell(unet, class_label, len(x0))
        truth = torch.as_tensor(labels[batch.start : batch.stop], device=x0.device)
        states = {name: stabilizer.init(x0) for name, stabilizer in stabilizers.items()}
        above = None  # x, logits and stabilised gradients by setup at the next higher t
        for t in steps:
            stop.check()
            x = _noisy(scheduler, x0, noise, t) if t else x0
            level = Level(torch.tensor(t - 1), scheduler.alphas_cumprod[t - 1], scheduler.one)  # not used at t = 0
            denoise = one_step_denoiser(told, scheduler, level) if on == "x0" and t else None
            gradient, logits, output, _ = image_gradient(value, x, denoise)
            directions = {}
            for name, stabilizer in stabilizers.items():
                directions[name], states[name] = stabilizer.update(gradient, states[name])
            if above:
                x_u, logits_u, directions_u = above
                distance = _norm(x_u - x)
                add(raw, "logit_sensitivity", _norm(logits_u - logits) / distance)
                for name in setups:
                    change = _norm(directions_u[name] - directions[name])
                    add([name], "gradient_sensitivity", change / distance)
                    add([name], "relative_sensitivity", change)
                    add([name], "gradient_norm", _norm(directions_u[name]))
            if t:
                classes = predictions(logits)
                add(raw, "accuracy", classes == truth)
                every = torch.arange(max(logits.shape[1], 2), device=classes.device)
                for name in raw:
                    sums[name, "one_class"].append((classes[:, None] == every).double().sum(0))
                if objective is log_prob:
                    add(setups, "saturated", other_probability(logits, target) < SATURATED)
                if clip is not None:
                    clipped = pred_original_sample(scheduler, output, level, x).abs() >= clip
                    add(setups, "clipped", *_share(clipped, x0.abs() < clip))
            above = x, logits, directions
            progress.update(len(batch))
        return {key: torch.stack(rows).tolist() for key, rows in sums.items()}

    everything: dict[tuple[str, str], Any] = {}
    bar = tqdm(total=len(images) * len(steps), desc="forward", unit="image·step", unit_scale=True)
    with frozen(*filter(None, (classifier, unet))), exact_convolutions(), bar as progress:
        limit, words = BatchLimit("forward", batch_size), ("images", "analysed")
        for _, sums in in_batches(trajectories, range(len(images)), limit, unfinished, words):
            for key, rows in sums.items():
                everything[key] = everything.get(key, 0.0) + np.array(rows, float)
    return _table(everything, len(images), steps[:-1])


def other_probability(logits: torch.Tensor, target: int) -> torch.Tensor:
    """1 − p(target), float64 N, from logits N×C or N×1; accurate even where p is rounded to 1."""
    logits = logits.double()
    if logits.shape[1] == 1:
        return torch.sigmoid(-logits[:, 0] if target == 1 else logits[:, 0])
    others = torch.cat([logits[:, :target], logits[:, target + 1 :]], dim=1)
    return (others.logsumexp(1) - logits.logsumexp(1)).exp()


def _table(sums: dict[tuple[str, str], np.ndarray], n_images: int, steps: list[int]) -> pd.DataFrame:
    """Rows by setup and metric in order of appearance, then ascending t; metrics in LAST come last."""
    rows = []
    for (setup, metric), of_metric in sums.items():
        for i, t in reversed([*enumerate(steps)]):
            std, n = np.nan, n_images
            if metric == "one_class":
                mean = of_metric[i].max() / n
                std = (mean * (1 - mean)) ** 0.5
            elif metric == "relative_sensitivity":
                norm = sums[setup, "gradient_norm"][i, 1]
                mean = of_metric[i, 1] / norm if norm else np.nan
            else:
                count, total, squares = of_metric[i].tolist()
                n, mean = int(count), total / count if count else np.nan
                std = max(squares / count - mean**2, 0.0) ** 0.5 if count else np.nan
            rows.append((setup, metric, t, mean, std, n))
    return pd.DataFrame(sorted(rows, key=lambda row: LAST.get(row[1], 0)), columns=CURVE_COLUMNS)


def _batch(
    images: np.ndarray, channels: int, classifier: nn.Module, seed: int, index: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """x_0 and ε, N×C×H×W; noise is drawn per image on the CPU, independent of the device."""
    weight = next(classifier.parameters())
    x0 = to_float(images, weight.device).to(torch.promote_types(weight.dtype, torch.float32))
    x0 = to_channels(x0, channels)
    generators = [keyed_generator("forward noise", seed, index + i) for i in range(len(x0))]
    noise = [torch.randn(x0.shape[1:], generator=generator) for generator in generators]
    return x0, torch.stack(noise).to(x0)


def _noisy(scheduler: Any, x0: torch.Tensor, noise: torch.Tensor, t: int) -> torch.Tensor:
    """x_t, t ≥ 1. diffusers' `add_noise` would leave ᾱ on a GPU, and every later access would wait for the GPU."""
    alpha_bar = scheduler.alphas_cumprod[t - 1].to(x0.dtype)
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise


def _share(of: torch.Tensor, among: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Per sample, the share of values in `among` that are also in `of`, N, and whether `among` is not empty."""
    both, all_of_them = (of & among).flatten(1).sum(1), among.flatten(1).sum(1)
    return both.double() / all_of_them, all_of_them > 0


def _norm(batch: torch.Tensor) -> torch.Tensor:
    """Euclidean norm per sample, N."""
    return torch.linalg.vector_norm(batch.flatten(1), dim=1)
