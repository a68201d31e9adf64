"""Accuracy and sensitivity of a classifier along the forward process (figures 1 to 4, eq. 3, 4 and 6).

One noise ε per image for its whole trajectory, so that x_t = √ᾱ_t · x_0 + √(1 − ᾱ_t) · ε and its neighbour differ by
the schedule alone. Each x_t is evaluated once, from t = T down to 0, and compared with the one before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from nrcg.errors import NrcgError
from nrcg.gather import CURVE_COLUMNS
from nrcg.guidance.gradient import INPUTS, check_choice, frozen, image_gradient, one_step_denoiser
from nrcg.guidance.stabilizers import Identity, Stabilizer
from nrcg.images import to_float
from nrcg.memory import BatchLimit
from nrcg.models.classifier import predictions
from nrcg.rng import keyed_generator


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
    stride: int = 1,
    first_index: int = 0,
) -> pd.DataFrame:
    """One classifier's curves over t, one pass through the networks for all stabilisers.

    images       uint8 N×H×W×3
    classifier   maps images in [−1, 1] to logits; it says on which device everything runs
    target       the class whose log-probability's gradient is taken, as in guided sampling
    labels       true classes, int64 N, for the accuracy
    unet         noise predictor; needed for on="x0" only, and told t at t and t − 1 at t − 1
    scheduler    DDPM scheduler of T training steps; its time step t − 1 is the t of here, and t = 0 is the image itself
    on           "xt": the classifier sees x_t; "x0": it sees x̂_0(x_t), at t = 0 the image itself
    setups       name → stabiliser of the gradients, run from t = T down; None for the raw ones
    seed         image i's noise depends on (seed, first_index + i) alone
    batch_size   images in the networks at a time; fewer where the device's memory does not hold them
    stride       k > 1 visits t = T, T − k, … and 0, and neighbours are neighbours on that grid (the last gap may be
                 shorter); stabilisers then see every k-th gradient

    Returns a row for each setup, metric and visited t ≥ 1, with the mean and population standard deviation over the
    n = N images. With s(t) the next lower t on the grid:

    accuracy               share of images classified as labelled at t
    logit_sensitivity      ‖f(x_t) − f(x_s)‖ / ‖x_t − x_s‖                     (eq. 3)
    gradient_sensitivity   ‖d_t − d_s‖ / ‖x_t − x_s‖, d the stabilised ∇_{x_t} log p(target | ·)   (eq. 4, 6)

    The first two do not depend on the stabiliser and are listed for the setups that have none. Raises NrcgError for
    sizes that do not match, and for input outside of the above.
    """
    _check(images, labels, unet, on, setups, batch_size, stride)
    steps = [*range(scheduler.config.num_train_timesteps, 0, -stride), 0]
    raw = [name for name, stabilizer in setups.items() if stabilizer is None]
    networks = [classifier] if unet is None else [classifier, unet]

    def trajectories(batch: range) -> _Totals:
        progress.n = batch.start * len(steps)  # an attempt for which the memory did not suffice counts for nothing
        totals = _Totals(steps)
        x0, noise = _batch(images[batch.start : batch.stop], classifier, seed, first_index + batch.start)
        truth = torch.as_tensor(labels[batch.start : batch.stop], device=x0.device)
        states = {name: (stabilizer or Identity()).init(x0) for name, stabilizer in setups.items()}
        above = None  # the point at the next higher t
        for t in steps:
            x = scheduler.add_noise(x0, noise, torch.tensor([t - 1])) if t else x0
            denoise = one_step_denoiser(unet, scheduler, t - 1) if on == "x0" and t else None
            gradient, logits, _ = image_gradient(classifier, x, target, denoise=denoise)
            directions = {}
            for name, stabilizer in setups.items():
                directions[name], states[name] = (stabilizer or Identity()).update(gradient, states[name])
            here = _Point(t, x, logits, directions)
            if t:
                totals.add(raw, "accuracy", t, predictions(logits) == truth)
            if above is not None:
                distance = _norm(above.x - here.x)
                totals.add(raw, "logit_sensitivity", above.t, _norm(above.logits - here.logits) / distance)
                for name in setups:
                    change = _norm(above.directions[name] - here.directions[name])
                    totals.add([name], "gradient_sensitivity", above.t, change / distance)
            above = here
            progress.update(len(batch))
        return totals

    everything = _Totals(steps)
    work = len(images) * len(steps)
    with frozen(*networks), tqdm(total=work, desc="forward", unit="image·step", unit_scale=True) as progress:
        for _, totals in BatchLimit("forward", batch_size).each(trajectories, range(len(images))):
            everything.merge(totals)
    return everything.table(len(images))


@dataclass
class _Point:
    """A batch at one t: where it is, its logits, and each setup's stabilised gradient."""

    t: int
    x: torch.Tensor
    logits: torch.Tensor
    directions: dict[str, torch.Tensor]


class _Totals:
    """Sums and sums of squares over images, in float64 so that batching changes nothing that can be seen."""

    def __init__(self, steps: list[int]) -> None:
        self._row = {t: i for i, t in enumerate(steps[:-1])}
        self._sums: dict[tuple[str, str], np.ndarray] = {}

    def add(self, setups: list[str], metric: str, t: int, values: torch.Tensor) -> None:
        values = values.cpu().double()
        for setup in setups:
            sums = self._sums.setdefault((setup, metric), np.zeros((len(self._row), 2)))
            sums[self._row[t]] += values.sum().item(), values.square().sum().item()

    def merge(self, other: "_Totals") -> None:
        for key, sums in other._sums.items():
            self._sums[key] = self._sums.get(key, 0.0) + sums

    def table(self, n: int) -> pd.DataFrame:
        """Sorted as met: setup and metric, then t upwards."""
        rows = []
        for (setup, metric), sums in self._sums.items():
            for t, i in sorted(self._row.items()):
                mean, mean_square = sums[i] / n
                rows.append((setup, metric, t, mean, max(mean_square - mean**2, 0.0) ** 0.5, n))
        return pd.DataFrame(rows, columns=CURVE_COLUMNS)


def _batch(images: np.ndarray, classifier: nn.Module, seed: int, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x_0 and ε, N×3×H×W; noise is drawn on the CPU, image by image, so that the device changes nothing."""
    weight = next(classifier.parameters())
    dtype = torch.promote_types(weight.dtype, torch.float32)
    x0 = to_float(images, weight.device).to(dtype)
    generators = [keyed_generator("forward noise", seed, index + i) for i in range(len(x0))]
    noise = [torch.randn(x0.shape[1:], generator=generator) for generator in generators]
    return x0, torch.stack(noise).to(x0)


def _norm(batch: torch.Tensor) -> torch.Tensor:
    """Euclidean length of each sample, N."""
    return torch.linalg.vector_norm(batch.flatten(1), dim=1)


def _check(images, labels, unet, on, setups, batch_size, stride) -> None:
    check_choice("on", on, INPUTS)
    if on == "x0" and unet is None:
        raise NrcgError("forward: on='x0' needs a DDPM; give its U-Net, or use on='xt'")
    if len(images) == 0 or len(images) != len(labels):
        raise NrcgError(f"forward: {len(images)} images and {len(labels)} labels; give one label per image, and some")
    if not setups:
        raise NrcgError("forward: no setups; give at least one name, with None for no stabiliser")
    if batch_size < 1 or stride < 1:
        raise NrcgError(f"forward: batch_size={batch_size}, stride={stride}; both must be at least 1")
