"""The sampler's random draws: from CPU generators the same on every machine, and ready when a GPU asks for them."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

THREADS = min(8, os.cpu_count() or 1)


def gaussian_draws(
    shape: tuple[int, ...], generator: Any, count: int, device: torch.device, dtype: torch.dtype
) -> Iterator[torch.Tensor]:
    """`count` draws of N(0, I), the very ones that diffusers' pipelines make: with a list, draw i of `generator[i]`.

    For a CUDA device, lists of CPU generators are drawn one step ahead by threads, while the device computes: 256
    images of 64×64 take one thread some 20 ms, as long as a fast GPU's step.
    """
    if device.type != "cpu" and isinstance(generator, list) and all(g.device.type == "cpu" for g in generator):
        return drawn_ahead(shape, generator, count, device, dtype)
    return (randn_tensor(shape, generator=generator, device=device, dtype=dtype) for _ in range(count))


def drawn_ahead(
    shape: tuple[int, ...], generators: list[torch.Generator], count: int, device: torch.device, dtype: torch.dtype
) -> Iterator[torch.Tensor]:
    """The same, each draw made while the one before is in use."""
    parts = [slice(k, None, THREADS) for k in range(THREADS)]

    def start() -> tuple[torch.Tensor, Iterator[None]]:
        draws = torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")  # copied while the device works

        def fill(part: slice) -> None:
            for row, generator in zip(draws[part], generators[part], strict=True):
                torch.randn(row.shape, generator=generator, out=row)

        return draws, pool.map(fill, parts)

    with ThreadPoolExecutor(THREADS) as pool:
        following = start()
        for left in reversed(range(count)):
            ready, filling = following
            list(filling)
            if left:
                following = start()
            yield ready.to(device, non_blocking=True)
