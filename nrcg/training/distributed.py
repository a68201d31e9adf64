"""The processes of one training: what they tell each other; started and ended together by torchrun's agent."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from signal import SIG_IGN, Signals, getsignal, signal
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist

from nrcg.errors import NrcgError, Stopped
from nrcg.runtime.device import set_up_torch
from nrcg.runtime.preemption import SIGNALS, Stop, end, on_signals

LONGEST_WAIT = timedelta(minutes=10)  # for the others' part of a step
GRACE = 1.0  # seconds after which a death is known that made another process fail
PATIENCE = 30.0  # seconds to answer a request to stop, of the agent's, and of a process whose parent is gone
ASKED = 75  # exit status of a process that stopped on request
AGAIN = "run the same command again to go on from the last checkpoint"


def rank() -> int:
    """Number of this process, from 0; the first alone writes files and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes take each step of the training together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(batch: Any) -> Any:
    """This process's part of a batch, whose length is a multiple of `size()`."""
    n = len(batch) // size()
    return batch[rank() * n : (rank() + 1) * n]


def average(tensors: Sequence[torch.Tensor]) -> None:
    """Replace each of the float tensors by its mean over the processes; one message carries them all."""
    if size() > 1:
        means = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(means)
        means /= size()
        for tensor, mean in zip(tensors, means.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


class CommonStop(Stop):
    """Stops all processes at the same look, as soon as one of them is asked to; all must look equally often."""

    def check(self) -> None:
        """Raise Stopped in all processes or in none."""
        asked = torch.tensor(float(bool(self.reason)), device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(asked)
        if asked:
            raise Stopped(self.reason)


def launch(work: Callable[..., None], devices: list[torch.device], *, threads: int = 0, **arguments: Any) -> None:
    """Call work(**arguments, device=…, stop=…) in a process for each device; they stop, and fail, together."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed.elastic", "torch.multiprocessing"):  # of what they say, one line is said here
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    threads = max(1, (threads or torch.get_num_threads()) // len(devices))
    ours, theirs = Pipe(duplex=False)
    relay = threading.Thread(target=_relay, args=(ours,))
    relay.start()
    try:
        with TemporaryDirectory(prefix="nrcg-") as folder, on_signals(end):  # the agent leaves its handlers
            config = LaunchConfig(
                min_nodes=1, max_nodes=1, nproc_per_node=len(devices), logs_specs=DefaultLogsSpecs(folder),
                run_id="nrcg", rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost", max_restarts=0,
                signals_to_handle=",".join(number.name for number in SIGNALS if getsignal(number) != SIG_IGN),
            )  # fmt: skip
            elastic_launch(config, _run)(theirs, os.getpid(), devices, threads, work, arguments)
    except SignalException as asked:
        raise Stopped(f"stopped by {asked.sigval.name}: {AGAIN}") from None
    except ChildFailedError as error:
        raise _reason(error.get_first_failure()[1]) from None
    finally:
        theirs.close()
        relay.join()


def _relay(ours: Connection) -> None:
    """Say, until all have ended, what the processes say: this process may write a log."""
    with open(ours.fileno(), newline="", encoding="utf-8", errors="replace", closefd=False) as lines:
        for line in lines:
            print(line, end="", file=sys.stderr, flush=True)


def _reason(failure: Any) -> BaseException:
    """What to raise for a process that failed, of which torchrun's agent tells."""
    if failure.exitcode == ASKED:
        return Stopped(f"stopped on request: {AGAIN}")
    if not isinstance(failure.message, dict):
        how = f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else "ended"
        return NrcgError(f"a process of the training {how}; {AGAIN}")
    kind, _, text = failure.message["message"].partition(": ")
    if "timed out" in text.lower() and kind != "NrcgError":
        return NrcgError(f"a process of the training did not answer for {LONGEST_WAIT}; {AGAIN}")
    made = {"NrcgError": NrcgError, "MemoryError": MemoryError, "OutOfMemoryError": MemoryError}.get(kind)
    return made(text) if made else RuntimeError(f"{text}\n{failure.message['extraInfo']['py_callstack']}")


def _run(
    theirs: Connection, parent: int, devices: list[torch.device], threads: int, work: Any, arguments: dict[str, Any]
) -> None:
    """What one process does, from its start to its end."""
    stop, device = CommonStop(), devices[int(os.environ["LOCAL_RANK"])]
    for number in SIGNALS:  # clusters send them to every process, and so does the agent: a second one means no more
        signal(number, lambda number, _: stop.ask(Signals(number).name))
    threading.Thread(target=_watch, args=(parent, stop), daemon=True).start()
    for stream in (1, 2):
        os.dup2(theirs.fileno(), stream)
    theirs.close()
    set_up_torch(threads)
    try:
        backend, own = ("gloo", None) if device.type == "cpu" else ("nccl", device)
        if own:
            torch.cuda.set_device(own)
        dist.init_process_group(backend, timeout=LONGEST_WAIT, device_id=own)
        dist.barrier()  # only once they are connected do they hear of a death
        logging.basicConfig(level=logging.ERROR if rank() else logging.INFO, format="%(message)s")
        work(**arguments, device=device, stop=stop)
    except Stopped:
        dist.barrier()  # or the agent would end the one that still writes
        sys.exit(ASKED)
    except Exception:
        time.sleep(GRACE)  # perhaps only because another died: the agent is to hear of that first
        raise


def _watch(parent: int, stop: Stop) -> None:
    """Do not outlive the parent, however that ended."""
    while os.getppid() == parent:
        time.sleep(1)
    stop.ask("the end of its parent")
    time.sleep(PATIENCE)
    os._exit(1)
