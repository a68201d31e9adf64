"""`python -m benchmarks NAME`: our ways against plain ones, in turns, in one table.

The demo's network on a CPU, the paper's on CUDA, unless told otherwise.
"""

import argparse
import platform
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
import torch._inductor.config
from tabulate import tabulate

from benchmarks import forward, frechet, sampling, score_memory, sportballs, training
from benchmarks.measure import Settings, Source, cells, measure
from nrcg.io.files import write_json
from nrcg.runtime.device import forbid_tf32, pick_device
from nrcg.runtime.memory import keep_freed_memory

ALL = {module.__name__.split(".")[-1]: module.works for module in (sampling, training, forward, frechet, sportballs)}


def run(sources: Sequence[Source], settings: Settings, out: Path | None = None) -> int:
    """Measure all works of `sources` and print their table; 1 if one failed.

    The JSON file is written anew after each work, so that a run that is cut short leaves what it has.
    """
    name = torch.cuda.get_device_name(settings.device) if settings.device.type == "cuda" else platform.machine()
    machine = f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
    print(machine, flush=True)
    rows, failed = [], 0
    for source in sources:
        try:
            for work in source(settings):
                rows += measure(work, settings.device)
                if out:
                    write_json(out, {"machine": machine, "rows": rows})
        except Exception:  # one that fails, on a package that is missing say, does not take the others along
            failed = 1
            traceback.print_exc()
    print(tabulate(list(map(cells, rows)), "keys", tablefmt="pipe", disable_numparse=True))
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=["all", *ALL, "score-memory"])
    parser.add_argument("--size", choices=["demo", "paper"])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="CPU threads of torch; its own choice if not given")
    parser.add_argument("--batch", type=int, help="images at a time (frechet, sportballs: in all)")
    parser.add_argument("--steps", type=int, help="steps a call")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each way")
    parser.add_argument("--compile", action="store_true", help="ours compiled, too; on CUDA it always is")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    torch._inductor.config.force_disable_caches = True  # compiling takes what it takes where it was never done before
    keep_freed_memory()  # as the verbs do; the plain ways gain by it too
    forbid_tf32()
    if chosen.name == "score-memory":
        return score_memory.main()
    device = pick_device(chosen.device)
    cuda = device.type == "cuda"
    size = chosen.size or ("paper" if cuda else "demo")
    settings = Settings(device, size, chosen.batch, chosen.steps, chosen.repeats, chosen.compile or cuda)
    raise SystemExit(run(list(ALL.values()) if chosen.name == "all" else [ALL[chosen.name]], settings, chosen.out))


if __name__ == "__main__":
    main()
