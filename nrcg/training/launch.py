"""A training in several processes, each with a device of its own: started, watched and ended together."""

import io
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from nrcg.errors import NrcgError, Stopped
from nrcg.runtime import device as machine
from nrcg.runtime.memory import is_out_of_memory
from nrcg.runtime.preemption import Stop
from nrcg.training.distributed import LONGEST_WAIT, CommonStop, join_team

POLL = 0.1  # seconds between two looks whether to stop
GRACE = 1.0  # seconds after which a death is known that made another process fail
PATIENCE = 60.0  # seconds that processes have to answer a request to stop
ASKED = 75  # exit status of a process that stopped on request

log = logging.getLogger("nrcg")


class _Crash(Exception):
    """The traceback of a process that failed for no foreseen reason."""


def launch(
    work: Callable[..., None], devices: Sequence[torch.device], *, threads: int, stop: Stop, **arguments: Any
) -> None:
    """Call work(**arguments, device=…, stop=…, team=…) in new processes, one for each device, and wait for all of them.

    devices   all of CUDA, each with its index, or all the CPU
    threads   CPU threads of all processes together; 0 leaves the choice to torch

    When `stop` is asked, all stop after the same step, and Stopped is raised. If they do not answer, since one hangs,
    all are ended after PATIENCE, and the steps since the last checkpoint are lost. An NrcgError of one of them ends all
    and is raised here; so is any other failure. None of them outlives this process, even if that is killed.
    """
    threads = max(1, (threads or torch.get_num_threads()) // len(devices))
    shared = {"size": len(devices), "port": _free_port(), "threads": threads}
    team: dict[Connection, BaseProcess] = {}
    try:
        for rank, device in enumerate(devices):
            connection, process = _start(work, {"rank": rank, "device": device, **shared}, arguments)
            team[connection] = process
        _watch(team, stop)
    finally:
        for process in team.values():
            process.kill()
            process.join()
    if any(process.exitcode == ASKED for process in team.values()):
        stop.check()


def pick_devices(name: str, n: int) -> list[torch.device]:
    """A device for each of `n` processes, by name as in `pick_device`; those of CUDA are leased to this process.

    Raises NrcgError where there are too few.
    """
    if name.startswith("cuda:"):
        raise NrcgError(f"--device {name}: that is one device for --processes {n}; use --device cuda")
    count = torch.cuda.device_count() if name in ("auto", "cuda") else 0
    if not count:
        return [machine.pick_device(name)] * n
    if n > count:
        raise NrcgError(f"--processes {n}: this machine shows {count} CUDA device(s); use at most as many processes")
    ids = [str(torch.cuda.get_device_properties(index).uuid) for index in range(count)]
    indices = _lease(ids, n)
    log.info("using cuda:%s of %d", ",".join(map(str, indices)), count)
    return [torch.device("cuda", index) for index in indices]


def _lease(devices: list[str], n: int) -> list[int]:
    """Indices of `n` devices that are this process's until it ends.

    Of the processes that lease several, one does so at a time: two that each hold what the other waits for would wait
    for ever.
    """
    import fcntl  # not on Windows

    turn = machine._open(machine.LOCKS / "nrcg-several.lock")
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        return [machine.lease(devices, machine.LOCKS) for _ in range(n)]
    finally:
        os.close(turn)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(
    work: Callable[..., None], place: dict[str, Any], arguments: dict[str, Any]
) -> tuple[Connection, BaseProcess]:
    """A new process, not a fork of this one, whose threads and CUDA would not survive that; and the line to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, place, work, arguments))
    process.start()
    theirs.close()  # the line then ends with the process
    return ours, process


def _watch(team: dict[Connection, BaseProcess], stop: Stop) -> None:
    """Hand on what the processes say and the request to stop, until all have ended; raise what one of them raised."""
    running, asked = set(team), 0.0
    while running:
        if asked and time.monotonic() - asked > PATIENCE:
            raise Stopped(
                f"stopped by {stop.reason}: a process did not answer for {PATIENCE:g} seconds, and all were ended; run "
                "the same command again to go on from the last checkpoint"
            )
        if stop.reason and not asked:
            asked = time.monotonic()
            for connection in running:
                with suppress(OSError):  # it has just ended
                    connection.send(stop.reason)
        for connection in wait(running, timeout=POLL):
            try:
                said = connection.recv()
            except (EOFError, OSError):
                running.remove(connection)
                _check_end(team[connection], stop)
                continue
            if isinstance(said, str):
                sys.stderr.write(said)
                sys.stderr.flush()
                continue
            if isinstance(said, _Crash):  # perhaps only because it lost another
                time.sleep(GRACE)
                for process in team.values():
                    if not process.is_alive():
                        _check_end(process, stop)
            raise said


def _check_end(process: BaseProcess, stop: Stop) -> None:
    process.join()
    if process.exitcode in (0, ASKED):
        return
    stop.check()  # the request came while the process was starting: it was sent to all, and ended this one
    how = f"was killed by {signal.Signals(-process.exitcode).name}" if process.exitcode < 0 else "ended"
    raise NrcgError(f"a process of the training {how}; run the same command again to go on from the last checkpoint")


class _Line(io.TextIOBase):
    """A process's standard output and error that its parent prints, and on which it says at last what went wrong.

    The parent's own may lose its reader, `tee`, and does not mind.
    """

    encoding = "utf-8"

    def __init__(self, connection: Connection) -> None:
        self.connection, self.lock = connection, threading.Lock()

    def write(self, text: str) -> int:
        self.say(text)
        return len(text)

    def say(self, what: str | Exception) -> None:
        with self.lock:
            self.connection.send(what)


def _run(connection: Connection, place: dict[str, Any], work: Callable[..., None], arguments: dict[str, Any]) -> None:
    """What one process does, from its start to its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # clusters send them to every process, but the parent answers
    sys.stdout = sys.stderr = line = _Line(connection)
    logging.basicConfig(level=logging.ERROR if place["rank"] else logging.INFO, format="%(message)s")
    stop = Stop()
    threading.Thread(target=_listen, args=(connection, stop), daemon=True).start()
    try:
        team = join_team(**place)
        common = CommonStop(team, stop)
        try:
            work(**arguments, device=team.accelerator.device, stop=common, team=team)
            status = 0
        except Stopped:
            status = ASKED
        team.leave()
    except NrcgError as error:
        line.say(error)
    except Exception as error:
        line.say(_foreseen(error) or _Crash(traceback.format_exc()))
    else:
        sys.exit(status)
    while True:  # until the parent has heard it and ends all: the others would fail if this one just went away
        time.sleep(60)


def _foreseen(error: Exception) -> Exception | None:
    """What to say of an error that is no bug: of memory, or of another process that did not answer in time."""
    if is_out_of_memory(error):
        return error
    if isinstance(error, RuntimeError) and "timed out" in str(error).lower():
        minutes = LONGEST_WAIT.total_seconds() / 60
        return NrcgError(
            f"a process of the training did not answer for {minutes:g} minutes; run the same command again to go on "
            "from the last checkpoint"
        )
    return None


def _listen(connection: Connection, stop: Stop) -> None:
    """Pass the request to stop on to `stop`; end this process when the parent has ended, however that came."""
    try:
        while True:
            stop.reason = connection.recv()
    except (EOFError, OSError):
        os._exit(1)
