"""Training with several processes, started and ended together by torchrun's agent."""

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

LONGEST_WAIT = timedelta(minutes=10)  # for the other processes, per step
GRACE = 1.0  # seconds before a failure is reported, so that a death that caused it is reported first
PATIENCE = 30.0  # seconds for a process to stop after its parent has ended
ASKED = 75  # exit status of a process that stopped on request
AGAIN = "run the same command again to continue from the last checkpoint"


def rank() -> int:
    """Number of this process, from 0; only process 0 writes files and messages."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Number of processes that share each training step."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(batch: Any) -> Any:
    """This process's part of a batch; its length must be a multiple of `size()`."""
    n = len(batch) // size()
    return batch[rank() * n : (rank() + 1) * n]


def average(tensors: Sequence[torch.Tensor]) -> None:
    """Replace each float tensor by its mean over the processes, with a single message."""
    if size() > 1:
        means = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(means)
        means /= size()
        for tensor, mean in zip(tensors, means.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


class CommonStop(Stop):
    """Stops all processes at the same check once one has a request; all must check equally often."""

    def check(self) -> None:
        """Raise Stopped in all processes or in none; through gloo, so that no process waits for its GPU."""
        asked = torch.tensor(float(bool(self.reason)))
        dist.all_reduce(asked)
        if asked:
            raise Stopped(self.reason)


def launch(work: Callable[..., None], devices: list[torch.device], *, threads: int = 0, **arguments: Any) -> None:
    """Call work(**arguments, device=…, stop=…) in one process per device; they stop and fail together."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed.elastic", "torch.multiprocessing"):  # replaced by one line of ours
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
    """Print the output of the processes until all have ended, through this process's log."""
    with open(ours.fileno(), newline="", encoding="utf-8", errors="replace", closefd=False) as lines:
        for line in lines:
            print(line, end="", file=sys.stderr, flush=True)


def _reason(failure: Any) -> BaseException:
    """The exception for a failed process, from the report of torchrun's agent."""
    if failure.exitcode == ASKED:
        return Stopped(f"stopped on request: {AGAIN}")
    if not isinstance(failure.message, dict):
        how = f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else "ended"
        return NrcgError(f"a training process {how}; {AGAIN}")
    kind, _, text = failure.message["message"].partition(": ")
    if "timed out" in text.lower() and kind != "NrcgError":
        return NrcgError(f"a training process did not respond for {LONGEST_WAIT}; {AGAIN}")
    made = {"NrcgError": NrcgError, "MemoryError": MemoryError, "OutOfMemoryError": MemoryError}.get(kind)
    return made(text) if made else RuntimeError(f"{text}\n{failure.message['extraInfo']['py_callstack']}")


def _run(
    theirs: Connection, parent: int, devices: list[torch.device], threads: int, work: Any, arguments: dict[str, Any]
) -> None:
    """The work of one process."""
    stop, device = CommonStop(), devices[int(os.environ["LOCAL_RANK"])]
    for number in SIGNALS:  # both clusters and the agent send them to every process: a second one changes nothing
        signal(number, lambda number, _: stop.ask(Signals(number).name))
    threading.Thread(target=_watch, args=(parent, stop), daemon=True).start()
    for stream in (1, 2):
        os.dup2(theirs.fileno(), stream)
    theirs.close()
    set_up_torch(threads)
    try:
        own = None if device.type == "cpu" else device
        if own:
            torch.cuda.set_device(own)
        dist.init_process_group("cpu:gloo,cuda:nccl" if own else "gloo", timeout=LONGEST_WAIT, device_id=own)
        dist.barrier()  # only connected processes notice the death of another
        logging.basicConfig(level=logging.ERROR if rank() else logging.INFO, format="%(message)s")
        work(**arguments, device=device, stop=stop)
    except Stopped:
        dist.barrier()  # else the agent would end the process that still writes
        sys.exit(ASKED)
    except Exception:
        time.sleep(GRACE)  # perhaps another process died first: let the agent notice that
        raise


def _watch(parent: int, stop: Stop) -> None:
    """End this process after its parent, however that ended."""
    while os.getppid() == parent:
        time.sleep(1)
    stop.ask("the end of its parent")
    time.sleep(PATIENCE)
    os._exit(1)
