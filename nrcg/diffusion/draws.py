"""The sampler's random draws: reproducible across machines with CPU generators, and prefetched for GPUs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from nrcg.rng import keyed_generator

MOST_THREADS = 8


class Draws:
    """The random draws of guidance, seeded per sample by the state of its generator, which stays unchanged.

    They are the same in any batch, and the sampler's own draws are the same with and without them.
    """

    def __init__(self, shape: tuple[int, ...], generator: Any, device: torch.device) -> None:
        if generator is None:
            generator = torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[device.index]
        many = generator if isinstance(generator, list) else [generator]
        keys = [int.from_bytes(sha256(each.get_state().numpy().tobytes()).digest()) for each in many]
        self.generators = [
            keyed_generator("guidance", key, device=each.device) for key, each in zip(keys, many, strict=True)
        ]
        self.shape, self.each, self.device = shape, shape[0] // len(many), device

    def normal(self, n: int) -> torch.Tensor:
        """N(0, I), n×N×C×H×W."""
        return self._stack(torch.randn, n, *self.shape[1:])

    def uniform(self, n: int, k: int) -> torch.Tensor:
        """U(0, 1), n×N×k."""
        return self._stack(torch.rand, n, k)

    def _stack(self, draw: Any, n: int, *shape: int) -> torch.Tensor:
        pieces = [draw(n, self.each, *shape, generator=each, device=each.device) for each in self.generators]
        drawn = torch.cat(pieces, dim=1)
        pinned = self.device.type == "cuda" and drawn.device.type == "cpu"  # else the copy waits for the GPU
        return (drawn.pin_memory() if pinned else drawn).to(self.device, non_blocking=True)


def gaussian_draws(
    shape: tuple[int, ...], generator: Any, count: int, device: torch.device, dtype: torch.dtype
) -> Iterator[torch.Tensor]:
    """`count` draws of N(0, I), identical to those of diffusers' pipelines: with a list, draw i is of `generator[i]`.

    For a CUDA device, threads draw from CPU generators one step ahead while the device computes: 256 images of 64×64
    take one thread about 20 ms, as long as a step of a fast GPU.
    """
    many = generator if isinstance(generator, list) else [generator]
    if device.type != "cpu" and all(each is not None and each.device.type == "cpu" for each in many):
        return drawn_ahead(shape, many, count, device, dtype)
    return (randn_tensor(shape, generator=generator, device=device, dtype=dtype) for _ in range(count))


def drawn_ahead(
    shape: tuple[int, ...], generators: list[torch.Generator], count: int, device: torch.device, dtype: torch.dtype
) -> Iterator[torch.Tensor]:
    """`count` draws, each made while the previous one is in use."""
    threads = min(MOST_THREADS, torch.get_num_threads())  # of this process: it may not use all cores of the machine
    parts = [slice(k, None, threads) for k in range(threads)]

    def start() -> tuple[torch.Tensor, Iterator[None]]:
        draws = torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")  # copied while the device works

        def fill(part: slice) -> None:
            for row, generator in zip(draws.unflatten(0, (len(generators), -1))[part], generators[part], strict=True):
                torch.randn(row.shape, generator=generator, out=row)

        return draws, pool.map(fill, parts)

    with ThreadPoolExecutor(threads) as pool:
        following = start()
        for left in reversed(range(count)):
            ready, filling = following
            list(filling)
            if left:
                following = start()
            yield ready.to(device, non_blocking=True)
