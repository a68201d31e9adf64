"""Seconds and peak memory of several ways to do the same work: in turns, in one process, so that ratios hold."""

import gc
import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

PLAIN, OURS, COMPILED, FLOOR = "plain", "ours", "ours, compiled", "floor"
REACHES = {"ratio": "{:g} ×", "memory": "{:g} × memory", "seconds": "{:g} s"}
Way = Callable[[], Any]  # does a fixed amount of work; one that takes its own time returns it as `Seconds`


class Seconds(float):
    """What a call took, by its own count: without building what it works on, say."""


@dataclass(frozen=True)
class Settings:
    """What a run was asked for; None takes the benchmark's own choice for the size and the device."""

    device: torch.device
    size: str
    batch: int | None = None
    steps: int | None = None
    repeats: int = 5
    compiled: bool = False

    @property
    def precision(self) -> str:
        """Half where a plain user takes it."""
        return "bf16" if self.device.type == "cuda" else "fp32"

    def amount(self, demo: tuple[int, int], paper: tuple[int, int], cuda: tuple[int, int]) -> tuple[int, int]:
        """Batch and steps: as asked for, else of the demo's and the paper's network on a CPU, and of either on CUDA."""
        batch, steps = cuda if self.device.type == "cuda" else {"demo": demo, "paper": paper}[self.size]
        return self.batch or batch, self.steps or steps


@dataclass(frozen=True)
class Work:
    """What is measured.

    name      of the work, and how much of it a call does
    ways      by name: PLAIN, OURS, COMPILED, and FLOOR, which does what cannot be saved
    floor     what that is, in words
    reach     what ours is meant to reach: `ratio` times as fast, `memory` times the peak (CUDA), `seconds` at most
    repeats   timed calls of each way; 1 is also without calls before, for long work
    """

    name: str
    ways: Mapping[str, Way]
    floor: str
    reach: Mapping[str, float] = field(default_factory=dict)
    repeats: int = 5


Source = Callable[[Settings], Iterator[Work]]


def measure(work: Work, device: torch.device) -> list[dict[str, Any]]:
    """A row for each way, JSON values only. A ratio to the plain way is of medians; its range of calls side by side."""
    peaks = {name: warm_up(way, device) for name, way in work.ways.items()} if work.repeats > 1 else {}
    seconds, rows = alternate(work.ways, work.repeats, device, work.name), []
    for name, mine in seconds.items():
        row = {"work": work.name, "way": name, "seconds": mine, "median": median(mine), "peak_bytes": peaks.get(name)}
        if rounds := [theirs / ours for theirs, ours in zip(seconds.get(PLAIN, []), mine, strict=False)]:
            row |= {"ratio": median(seconds[PLAIN]) / median(mine), "range": [min(rounds), max(rounds)]}
        row |= {"reach": dict(work.reach)} if name.startswith(OURS) else {}
        row |= {"floor": work.floor} if name == FLOOR else {}
        rows.append(row)
    return rows


def cells(row: dict[str, Any]) -> dict[str, str]:
    """A line of the table."""
    return {
        "work": row["work"],
        "way": f"{row['way']}: {row['floor']}" if "floor" in row else row["way"],
        "time": f"{row['median']:.3g} s",
        "ratio": "{:.2f} ({:.2f}–{:.2f})".format(row["ratio"], *row["range"]) if "ratio" in row else "",
        "reach": ", ".join(REACHES[key].format(value) for key, value in row.get("reach", {}).items()),
        "peak memory": "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f} MB",
    }


def alternate(ways: Mapping[str, Way], repeats: int, device: torch.device, title: str = "") -> dict[str, list[float]]:
    """Seconds of `repeats` calls of each way, one way after the other.

    The order turns round after each round, so that a machine that slows down, or is busy for a while, meets all alike.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    gc.collect()  # so that no way pays for what was built before
    for i in tqdm(range(repeats), desc=title, unit="round", leave=False):
        for name in list(ways)[:: -1 if i % 2 else 1]:
            found[name].append(seconds_of(ways[name], device))
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


def warm_up(way: Way, device: torch.device) -> int | None:
    """Two calls: one compiles, and a CUDA graph is recorded. Peak bytes of tensors beyond those before, on CUDA."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(2):
        seconds_of(way, device)
    return torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else None


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
