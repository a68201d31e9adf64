"""Time and peak memory of several ways to do the same work, alternating in one process for reliable ratios."""

import gc
import io
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

PLAIN, OURS = "plain", "ours"
Way = Callable[[], Any]  # does a fixed amount of work; may return `Seconds` if it measures its own time


class Seconds(float):
    """Time measured by a call itself, for example without preparations."""


class Work(NamedTuple):
    """A measurement. The ways are PLAIN, OURS and a floor, the unavoidable part of the work."""

    name: str
    ways: dict[str, Way]
    reach: str  # goal for OURS
    repeats: int = 5  # timed calls of each way; 1 also skips the warm-up, for long work


def measure(work: Work, device: torch.device) -> Iterator[dict[str, str]]:
    """One line of the table per way, with a ratio of medians and its range over rounds; the order alternates."""
    warmed = work.ways if work.repeats > 1 else {}
    peaks = {name: warm_up(way, device) for name, way in warmed.items()}
    waits = {name: synchronisations(way) for name, way in warmed.items()} if device.type == "cuda" else {}
    seconds: dict[str, list[float]] = {name: [] for name in work.ways}
    gc.collect()  # so that no way pays for earlier objects
    for i in tqdm(range(work.repeats), desc=work.name, unit="round", leave=False):
        for name in list(seconds)[:: -1 if i % 2 else 1]:
            seconds[name].append(seconds_of(work.ways[name], device))
    for name, mine in seconds.items():
        line = {"work": work.name, "way": name, "time": f"{median(mine):.3g} s", "ratio": ""}
        if plain := seconds.get(PLAIN):
            rounds = [theirs / ours for theirs, ours in zip(plain, mine, strict=True)]
            line["ratio"] = f"{median(plain) / median(mine):.2f} ({min(rounds):.2f}–{max(rounds):.2f})"
        line |= {"reach": work.reach if name == OURS else "", "peak memory": peaks.get(name, "")}
        yield line | {"waits": waits.get(name, "")}


def warm_up(way: Way, device: torch.device) -> str:
    """Two warm-up calls (compiling, recording of CUDA graphs); on CUDA returns the additional peak memory."""
    cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(2):
        seconds_of(way, device)
    return f"{(torch.cuda.max_memory_allocated(device) - before) / 1e6:.0f} MB" if cuda else ""


def synchronisations(way: Way) -> str:
    """Number of host synchronisations per call, as detected by torch."""
    with warnings.catch_warnings(record=True) as caught, redirect_stderr(io.StringIO()):
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            way()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return str(sum("synchroniz" in str(warning.message) for warning in caught))


def seconds_of(way: Way, device: torch.device) -> float:
    """Seconds of one call until the device is done; progress bars are hidden."""
    synchronize(device)
    with redirect_stderr(io.StringIO()):
        started = time.perf_counter()
        result = way()
        synchronize(device)
    return result if isinstance(result, Seconds) else time.perf_counter() - started


def rates(device: torch.device) -> str:
    """Peak rates of the device: large matrix products and copies (bytes read and written)."""
    side, n, found = (8192, 1 << 29, []) if device.type == "cuda" else (1024, 1 << 25, [])
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        square = torch.randn(side, side, device=device, dtype=dtype)
        rate = 2 * side**3 / _usual(partial(torch.matmul, square, square), device)
        found.append(f"{name} matrix products {rate / 1e12:.3g} TFLOP/s")
    source = torch.ones(n, device=device)
    rate = 8 * n / _usual(partial(torch.empty_like(source).copy_, source), device)
    return f"{', '.join(found)}; copies {rate / 1e9:.3g} GB/s"


def _usual(way: Way, device: torch.device) -> float:
    return median([seconds_of(way, device) for _ in range(7)])


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
