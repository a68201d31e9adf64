"""Seconds, peak memory and FLOPs of several ways to do the same work, side by side in one process."""

import gc
import io
import os
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from statistics import median
from typing import Any

import torch
from torch.autograd.profiler import profile
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # or the profiler tells of a CUDA driver that a CPU does not need

Way = Callable[[], Any]  # does a fixed amount of work; one that takes its own time returns it as `Seconds`


class Seconds(float):
    """What a call took, by its own count: without building what it works on, say."""


def alternate(ways: Mapping[str, Way], repeats: int, device: torch.device, title: str = "") -> dict[str, list[float]]:
    """Seconds of `repeats` calls of each way, one way after the other.

    The order turns round after each round, so that a machine that slows down, or is busy for a while, meets all alike.
    The ways should be warm.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    gc.collect()  # so that no way pays for what was built before
    with tqdm(total=repeats * len(ways), desc=title, unit="call", leave=False) as bar:
        for i in range(repeats):
            for name in list(ways)[:: -1 if i % 2 else 1]:
                found[name].append(seconds_of(ways[name], device))
                bar.update()
    return found


def seconds_of(way: Way, device: torch.device) -> float:
    """Seconds of one call, until the device is done; what it prints, progress bars above all, is dropped."""
    synchronize(device)
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        started = time.perf_counter()
        result = way()
        synchronize(device)
        seconds = time.perf_counter() - started
    return float(result) if isinstance(result, Seconds) else seconds


def warm_up(way: Way, device: torch.device) -> tuple[float, int]:
    """Seconds of the first call, compilation included, and peak memory in bytes.

    Peak memory is the most that tensors hold at a time, beyond what they held before. On CUDA it is that of torch's
    allocator over the first two calls: a CUDA graph allocates while it is recorded, and no more. On a CPU it is added
    up from the allocations and releases that torch's profiler sees in the second call; what libraries take for
    themselves is missing.
    """
    if device.type == "cuda":
        synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        first = seconds_of(way, device)
        seconds_of(way, device)
        return first, torch.cuda.max_memory_allocated(device) - before
    first = seconds_of(way, device)
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()), profile(profile_memory=True) as recorded:
        way()
    return first, _peak(recorded)


def _peak(recorded: profile) -> int:
    """Of a profile with memory, the most bytes that were held at a time."""
    held = peak = 0
    for event in sorted(_allocations(recorded.kineto_results.experimental_event_tree()), key=lambda e: e.start_time_ns):
        held += event.extra_fields.alloc_size  # negative for a release
        peak = max(peak, held)
    return peak


def _allocations(events: list[Any]) -> list[Any]:
    found, rest = [], list(events)
    while rest:
        event = rest.pop()
        rest.extend(event.children)
        if event.tag == torch._C._profiler._EventType.Allocation:
            found.append(event)
    return found


def flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions in `work`, two for a multiply-add.

    Attention is taken apart into its products: fused, some of its kinds are not counted.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops()


def matmul(device: torch.device, dtype: torch.dtype) -> tuple[Way, float]:
    """A way that multiplies large square matrices, and its FLOPs: what the machine can do at best."""
    n, times = (8192, 50) if device.type == "cuda" else (2048, 4)
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))  # zeros would be faster than real data
    out = torch.empty_like(a)

    def multiply() -> None:
        for _ in range(times):
            torch.mm(a, b, out=out)

    return multiply, 2.0 * n**3 * times


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of large matrix products: the median of five measurements."""
    multiply, count = matmul(device, dtype)
    multiply()
    return count / median(seconds_of(multiply, device) for _ in range(5))


def copy_bandwidth(device: torch.device) -> float:
    """Bytes/s, read and written, of a copy from the device's memory to itself: the median of five measurements."""
    n = 1 << (30 if device.type == "cuda" else 28)
    source = torch.ones(n, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    target.copy_(source)
    return 2 * n / median(seconds_of(lambda: target.copy_(source), device) for _ in range(5))


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
