"""`python -m benchmarks NAME`: compares our implementations with plain ones, alternating, in one table."""

import argparse
import platform
import time
import traceback
from collections.abc import Callable, Iterable, Iterator

import torch
import torch._inductor.config
from tabulate import tabulate

from benchmarks.measure import Work, measure, rates
from benchmarks.works import ALL
from nrcg.runtime.device import pick_device, set_up_torch


def run(sources: Iterable[Callable[[str, torch.device], Iterator[Work]]], size: str, device: torch.device) -> int:
    """Measure the works of all sources and print their table; 1 if one failed."""
    lines, failed = [], 0
    for source in sources:
        try:
            for work in source(size, device):
                lines += measure(work, device)
        except Exception:  # a failure, such as a missing package, must not stop the others
            failed = 1
            traceback.print_exc()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
    print(rates(device), end="\n\n")
    print(tabulate(lines, "keys", tablefmt="pipe", disable_numparse=True))
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=["all", *ALL])
    parser.add_argument("--size", choices=["demo", "paper", "gpu"], help="default: gpu on CUDA, else demo")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    chosen = parser.parse_args()
    torch._inductor.config.force_disable_caches = True  # measure compile times without a cache
    set_up_torch()  # as in the verbs; the plain ways profit, too
    device = pick_device(chosen.device)
    size = chosen.size or ("gpu" if device.type == "cuda" else "demo")
    raise SystemExit(run(ALL.values() if chosen.name == "all" else [ALL[chosen.name]], size, device))


if __name__ == "__main__":
    main()
