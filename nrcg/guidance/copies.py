"""Noisy or augmented copies of the classifier's input: their mean value replaces the value of the image."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch.nn.functional import affine_grid, grid_sample

from nrcg.checks import FLAG, check_fields, number, one_of, whole
from nrcg.diffusion.draws import Draws
from nrcg.diffusion.steps import Level
from nrcg.registry import Registry

Copier = Callable[[torch.Tensor], Iterable[torch.Tensor]]

copies = Registry("copies")
MEANS = ("probability", "value")


class Copies(Protocol):
    """Protocol: the method `draw` and `mean`: "value", or "probability" for the log of the mean of exp(value)."""

    mean: str

    def draw(self, level: Level, draws: Draws) -> Copier:
        """A differentiable function from images N×C×H×W to the step's copies, each N×C×H×W."""


@copies.register("noise")
@dataclass(frozen=True)
class Noise:
    """Images + σ̄ · ξ_k, ξ_k ~ N(0, I) (LGD, Song et al. 2023).

    σ̄ is `sigma` · √(1 − ᾱ_t); `mean` is "probability", log (1/n) Σ exp ℓ_k, or "value", (1/n) Σ ℓ_k.
    """

    n: Annotated[int, whole(1)] = 10
    sigma: Annotated[float, number(0)] = 1.0
    mean: Annotated[str, one_of(*MEANS)] = "probability"

    def __post_init__(self) -> None:
        check_fields("copies noise", self)

    def draw(self, level: Level, draws: Draws) -> Copier:
        noise = self.sigma * float((1 - level.alpha_bar).sqrt()) * draws.normal(self.n)
        return lambda images: images + noise.to(images)


@copies.register("augment")
@dataclass(frozen=True)
class Augment:
    """Random crops, shifts and mirrorings (arXiv 2403.12404); bilinear, with edge pixels as padding.

    Args:
        n: number of copies.
        crop: smallest side of a crop, as a share of the image's, 0 to 1.
        shift: largest shift, as a share of the image's side.
        flip: mirror half of the copies left to right.
        mean: as in `Noise`.
    """

    n: Annotated[int, whole(1)] = 4
    crop: Annotated[float, number(0, 1, without=(0,))] = 0.8
    shift: Annotated[float, number(0, 1)] = 0.1
    flip: Annotated[bool, FLAG] = True
    mean: Annotated[str, one_of(*MEANS)] = "value"

    def __post_init__(self) -> None:
        check_fields("copies augment", self)

    def draw(self, level: Level, draws: Draws) -> Copier:
        size, across, down, mirror = draws.uniform(self.n, 4).unbind(-1)
        size = self.crop + (1 - self.crop) * size
        turned = torch.where(mirror < 0.5, -size, size) if self.flip else size
        across, down, zeros = *(2 * self.shift * (2 * each - 1) for each in (across, down)), torch.zeros_like(size)
        maps = torch.stack([turned, zeros, across, zeros, size, down], dim=-1).unflatten(-1, (2, 3))

        def copier(images: torch.Tensor) -> Iterable[torch.Tensor]:
            for each in maps.to(images):
                grid = affine_grid(each, list(images.shape), align_corners=False)
                yield grid_sample(images, grid, padding_mode="border", align_corners=False)

        return copier
