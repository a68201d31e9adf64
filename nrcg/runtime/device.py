"""Choice of the device, shared between processes by lock files; torch settings."""

import ctypes
import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path

import torch
from filelock import FileLock

from nrcg.errors import NrcgError
from nrcg.io.files import try_lock

LOCKS = Path("/tmp")  # the same for all users and jobs of a machine, unlike $TMPDIR
POLL = 1.0  # seconds between checks while all devices are in use
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
HELD: list[FileLock] = []  # keeps the locks alive: one without a reference would be released

log = logging.getLogger("nrcg")


def pick_device(name: str = "auto") -> torch.device:
    """The device by name; with several GPUs, `auto` and `cuda` wait for one not in use by another nrcg process."""
    (device,) = pick_devices(name, 1)
    if device.index is not None:
        torch.cuda.set_device(device)  # else libraries that name no device would use memory on the first
    return device


def pick_devices(name: str, n: int) -> list[torch.device]:
    """One device per process for `n` processes, as `pick_device`; on a CPU all share it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,2})?", name):
        raise NrcgError(f"--device {name}: unknown; use auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if name == "cpu":
        return [device] * n
    if not torch.cuda.is_available():
        raise NrcgError(f"--device {name}: no CUDA device found; use --device auto or cpu")
    shown = torch.cuda.device_count()
    if device.index is not None and n > 1:
        raise NrcgError(f"--device {name}: a single device, but --processes {n}; use --device cuda")
    if device.index is not None and device.index >= shown:
        raise NrcgError(f"--device {name}: found {shown} CUDA device(s), from cuda:0 on; use --device auto")
    if n > shown:
        raise NrcgError(f"--processes {n}: found {shown} CUDA device(s); use at most {shown} processes")
    return [device] if device.index is not None or shown == 1 else list(_own_devices(n))


def set_up_torch(threads: int = 0) -> None:
    """Settings of this process: no TF32, freed memory is kept, number of CPU threads (0: torch's default)."""
    torch.backends.cudnn.allow_tf32 = False  # it would round inputs of convolutions to 10 bits of mantissa
    torch.backends.cuda.matmul.allow_tf32 = False
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc: requesting memory again takes up to a tenth of the time
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
    if threads:
        torch.set_num_threads(threads)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Inside, float32 convolutions are in IEEE float32, as `set_up_torch` sets for good; cuDNN's default is TF32."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@cache  # a second call would find the process's own locks in use
def _own_devices(n: int) -> tuple[torch.device, ...]:
    ids = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
    indices = lease(ids, LOCKS, n)
    log.info("using cuda:%s of %d", ",".join(map(str, indices)), len(ids))
    return tuple(torch.device("cuda", index) for index in indices)


def lease(devices: Sequence[str], folder: Path, n: int = 1) -> list[int]:
    """Lock the first `n` free devices (by id) until this process ends, waiting if needed; returns their indices."""
    turn = None  # prevents a deadlock of two processes that each hold a device the other needs
    while n > 1 and not (turn := _lock(folder / "nrcg-several.lock")):
        time.sleep(POLL)
    taken: list[int] = []
    for look in count():
        for index in range(len(devices)):
            if len(taken) < n and index not in taken and (lock := _lock(folder / f"nrcg-{devices[index]}.lock")):
                HELD.append(lock)
                taken.append(index)
        if len(taken) == n:
            break
        if not look:
            left = n - len(taken)
            log.info("all %d CUDA devices are in use by other nrcg jobs; waiting for %d", len(devices), left)
        time.sleep(POLL)
    if turn:
        turn.release()
    return taken


def _lock(path: Path) -> FileLock | None:
    try:
        return try_lock(path, 0o666)  # for every user
    except OSError as error:
        raise NrcgError(f"{path}: cannot be opened ({error.strerror}); remove it, or give --device cuda:N") from None
