"""What the benchmarks' commands share: options, the machine, the run, and the results as JSON and as a table."""

import argparse
import os
import platform
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config
from tabulate import tabulate

from benchmarks.measure import copy_bandwidth, matmul_rate
from benchmarks.sizes import SIZES
from benchmarks.table import table
from benchmarks.work import Settings, Source, measure
from nrcg.io.files import write_json, write_text
from nrcg.runtime.device import forbid_tf32, pick_device


def run(name: str, description: str, sources: Sequence[Source], arguments: Sequence[str]) -> None:
    """Measure all works of `sources`, print their table, write what was asked for; ends with status 1 if one failed.

    The JSON file is written anew after each work, so that a run that is cut short leaves what it has.
    """
    options = _parse(name, description, arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch._inductor.config.force_disable_caches = True  # compiling takes what it takes where it was never done before
    device = pick_device(options.device)
    forbid_tf32()  # as the verbs do
    settings = Settings(
        device=device,
        size=options.size or ("paper" if device.type == "cuda" else "demo"),
        batch=options.batch,
        steps=options.steps,
        repeats=options.repeats,
        compiled=device.type == "cuda" if options.compile is None else options.compile,
    )
    started, rows, failed = time.monotonic(), [], False
    machine = facts(device)
    print(describe(machine), flush=True)
    for source in sources:
        try:
            for work in source(settings):
                rows.append(measure(work, device))
                print(f"{time.monotonic() - started:4.0f} s: {work.name}, {work.size}", flush=True)
                if options.out:
                    write_json(options.out, {"machine": machine, "rows": rows})
        except Exception:  # one that fails, on a package that is missing say, does not take the others along
            failed = True
            traceback.print_exc()
    headers, lines = table(rows)
    print(tabulate(lines, headers, disable_numparse=True))
    if options.markdown:
        text = tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)
        write_text(options.markdown, f"{describe(machine)}\n\n{text}\n")
    raise SystemExit(int(failed))


def _parse(name: str, description: str, arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=SIZES, help="network; paper on CUDA, demo on a CPU")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="CPU threads of torch; its own choice if not given")
    parser.add_argument("--batch", type=int, help="images at a time (frechet, sportballs: in all)")
    parser.add_argument("--steps", type=int, help="steps a call")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each way")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="ours compiled, too; on CUDA it is")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--markdown", type=Path, help="table to write, in Markdown")
    return parser.parse_args(arguments)


def facts(device: torch.device) -> dict[str, Any]:
    """The machine, with its rates as they are now; JSON values."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],  # over the last minute, before this run
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "matmul_flops_a_second": {name: matmul_rate(device, dtype) for name, dtype in dtypes.items()},
        "copy_bytes_a_second": copy_bandwidth(device),
    }


def _cpu_name() -> str:
    """As Linux has it, with the instructions that torch uses."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def describe(machine: dict[str, Any]) -> str:
    """The facts in a line."""
    rates = ", ".join(f"{rate / 1e12:.3g} TFLOP/s {name}" for name, rate in machine["matmul_flops_a_second"].items())
    return (
        f"{machine['device']}, {machine['threads']} threads of {machine['cpus']} CPUs, load {machine['load']:.1f}; "
        f"matrix products {rates}; copy {machine['copy_bytes_a_second'] / 1e9:.3g} GB/s; torch {machine['torch']}, "
        f"{machine['date']}"
    )
