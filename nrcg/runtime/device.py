"""Where the networks run."""

import logging
import os
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from nrcg.errors import NrcgError
from nrcg.io.files import try_lock

LOCKS = Path("/tmp")  # the same for every user and job of a machine, which $TMPDIR need not be
POLL = 1.0  # seconds between two looks while every device is taken

log = logging.getLogger("nrcg")


def pick_device(name: str = "auto") -> torch.device:
    """The device by name; `auto` is CUDA when there is any, else the CPU.

    Of several CUDA devices, `auto` and `cuda` take one that no other process has taken so, and wait for one while there
    is none; `cuda:N` is the caller's own choice, and asks nobody. Raises NrcgError for a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise NrcgError(f"--device {name}: unknown; use auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        raise NrcgError(f"--device {name}: this machine shows no CUDA device; use --device auto or cpu")
    count = torch.cuda.device_count()
    if device.index is None and count > 1:
        device = torch.device("cuda", _own_device())
    if device.index is not None:
        if device.index >= count:
            raise NrcgError(f"--device {name}: this machine shows {count} of them, from cuda:0 on; use --device auto")
        torch.cuda.set_device(device)  # or libraries that name no device would take memory on the first
    return device


def forbid_tf32() -> None:
    """Let float32 be float32: from Ampere on, cuDNN's convolutions would round their input to 10 bits of mantissa."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@cache  # asked twice, a process would find its own lock taken
def _own_device() -> int:
    ids = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
    index = lease(ids, LOCKS)
    log.info("using cuda:%d of %d", index, len(ids))
    return index


def lease(devices: Sequence[str], folder: Path) -> int:
    """Index of the first of `devices` (their ids) that no other process holds; waits, and says so, while all are held.

    It is this process's until it ends, by whatever end: a lock of the operating system on a file of `folder` for each
    device. All processes, whoever's they are, must name the same folder, on a disk of the machine itself. Raises
    NrcgError when a lock file cannot be opened.
    """
    waiting = False
    while True:
        for index, device in enumerate(devices):
            if _lock(folder / f"nrcg-{device}.lock"):
                return index
        if not waiting:
            log.info("all %d CUDA devices are taken by other jobs of nrcg; waiting for one", len(devices))
            waiting = True
        time.sleep(POLL)


def _lock(path: Path) -> bool:
    """Lock a file, made if need be, for the life of this process; False where another one holds it."""
    file = _open(path)
    if try_lock(file) is False:
        os.close(file)
        return False
    return True  # the file stays open: closing it would give the lock away


def _open(path: Path) -> int:
    """Open for reading alone, which a lock needs no more than, and which another user's file allows."""
    while True:
        try:
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise NrcgError(f"{path}: cannot be opened ({error.strerror}); remove it, or name a --device") from None
        try:
            file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            continue  # another process was quicker
        except OSError as error:
            raise NrcgError(f"{path}: cannot be made ({error.strerror}); name a --device") from None
        os.fchmod(file, 0o644)  # whatever the umask
        return file
