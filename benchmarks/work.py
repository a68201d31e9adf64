"""A piece of work, the ways to do it, and what was measured of them."""

import ctypes
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch

from benchmarks.measure import Way, alternate, matmul, seconds_of, warm_up
from nrcg.runtime.memory import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory

OURS, COMPILED, CHECKPOINTED = "ours", "ours, compiled", "ours, checkpointed"
MATMUL = "matmul"


@dataclass(frozen=True)
class Reach:
    """What ours is meant to reach; None asks for nothing.

    ratio     times the rate of the way it is compared with
    memory    at most this part of that way's peak memory
    share     of the machine's matmul rate, by the FLOPs of the floor
    seconds   at most, for all of the work
    """

    ratio: float | None = None
    memory: float | None = None
    share: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Work:
    """What is measured.

    name      the work, for readers; `size` says of what and how much
    amount    how much a call does, in `unit`
    ways      name → what builds the way; names that start with "ours" are ours
    against   the way that ours are compared with, or None
    floor     what cannot be saved, in words, and its FLOPs a unit
    repeats   timed calls of each way
    warm      False: the first call is timed, for work that is too long to do twice
    """

    name: str
    size: str
    amount: int
    unit: str
    ways: Mapping[str, Callable[[], Way]]
    against: str | None = None
    reach: Reach = field(default_factory=Reach)
    floor: str = ""
    flops: int | None = None
    repeats: int = 5
    warm: bool = True


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
    def half(self) -> bool:
        """Whether half precision is what a plain user takes here."""
        return self.device.type == "cuda"

    @property
    def against(self) -> str:
        return "plain bf16" if self.half else "plain fp32"


Source = Callable[[Settings], Iterator[Work]]


def measure(work: Work, device: torch.device) -> dict[str, Any]:
    """A row of the results, JSON values only; see `summary` for what is derived."""
    ways, first, peak = {}, {}, {}
    for name, build in work.ways.items():
        ways[name] = _with_memory(name, build())
        if work.warm:
            first[name], peak[name] = warm_up(ways[name], device)
    multiply, count = matmul(device, matmul_dtype(device))
    seconds_of(multiply, device)
    seconds = alternate({**ways, MATMUL: multiply}, work.repeats, device, work.name)
    matmul_rate = count / median(seconds.pop(MATMUL))
    row = {
        "work": work.name,
        "size": work.size,
        "device": device.type,
        "unit": work.unit,
        "amount": work.amount,
        "floor": work.floor,
        "flops_a_unit": work.flops,
        "matmul_flops_a_second": matmul_rate,
        "against": work.against,
        "reach": {key: value for key, value in asdict(work.reach).items() if value is not None},
    }
    row["ways"] = {name: _way(row, found, first.get(name), peak.get(name)) for name, found in seconds.items()}
    for name in row["ways"]:
        if name.startswith(OURS):
            row["ways"][name] |= _compared(row, name)
    if COMPILED in row["ways"] and OURS in row["ways"]:
        row["compilation"] = _compilation(row["ways"][OURS], row["ways"][COMPILED])
    return row


def matmul_dtype(device: torch.device) -> torch.dtype:
    """That of the matmul rate of which shares are told."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _with_memory(name: str, way: Way) -> Way:
    """A way of ours under `keep_freed_memory`, as our commands are, the others under the C library's usual policy.

    That adapts: it ends at the largest block that was freed, but no higher than what is set for them here.
    """

    def call() -> Any:
        if name.startswith(OURS):
            keep_freed_memory()
        else:
            libc = ctypes.CDLL(None)
            if hasattr(libc, "mallopt"):
                libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
                libc.mallopt(M_TRIM_THRESHOLD, 64 << 20)
        return way()

    return call


def _way(row: dict[str, Any], seconds: list[float], first: float | None, peak: int | None) -> dict[str, Any]:
    rate = row["amount"] / median(seconds)
    flops = row["flops_a_unit"]
    return {
        "seconds": seconds,
        "median": median(seconds),
        "min": min(seconds),
        "max": max(seconds),
        "first": first,
        "rate": rate,
        "peak_bytes": peak,
        "share": rate * flops / row["matmul_flops_a_second"] if flops else None,
    }


def _compared(row: dict[str, Any], name: str) -> dict[str, Any]:
    """Ratio of rates (of medians; from, to: of calls side by side) and of peaks, and what of the reach is missed."""
    ours, plain = row["ways"][name], row["ways"].get(row["against"])
    found: dict[str, Any] = {}
    if plain:
        rounds = [theirs / mine for theirs, mine in zip(plain["seconds"], ours["seconds"], strict=True)]
        found = {"ratio": plain["median"] / ours["median"], "ratio_from": min(rounds), "ratio_to": max(rounds)}
        if plain["peak_bytes"] and ours["peak_bytes"] is not None:
            found["memory"] = ours["peak_bytes"] / plain["peak_bytes"]
    values = {"share": ours["share"], "seconds": ours["median"], **found}
    at_most = ("memory", "seconds")
    found["missed"] = [
        key
        for key, wanted in row["reach"].items()
        if values.get(key) is None or (values[key] > wanted if key in at_most else values[key] < wanted)
    ]
    return found


def _compilation(eager: dict[str, Any], compiled: dict[str, Any]) -> dict[str, Any]:
    """Seconds that compiling took, and after how many units the faster calls have made up for it (None: never)."""
    seconds = compiled["first"] - compiled["median"]
    saved = 1 / eager["rate"] - 1 / compiled["rate"]
    return {"seconds": seconds, "pays_after": round(seconds / saved) if saved > 0 else None}
