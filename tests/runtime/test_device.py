"""Devices by name, and one of several for each process of a machine. No CUDA is needed: a lock knows only a name."""

import logging
import multiprocessing
import os
import queue
import signal
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nrcg.cli.options import set_up
from nrcg.errors import NrcgError
from nrcg.runtime import device as module
from nrcg.runtime.device import exact_convolutions, lease, pick_device, pick_devices

DEVICES = ["GPU-a", "GPU-b", "GPU-c"]
context = multiprocessing.get_context("fork")


def in_a_child(work):
    """What `work` returns, or the text of its NrcgError, from a process of its own: a lease lasts as long as that."""
    results = context.Queue()

    def run():
        try:
            results.put(work())
        except NrcgError as error:
            results.put(str(error))

    process = context.Process(target=run)
    process.start()
    result = results.get(timeout=30)
    process.join()
    return result


class Jobs:
    """Processes that lease a device and keep it."""

    def __init__(self, folder):
        self.folder, self.results, self.processes = folder, context.Queue(), {}

    def start(self):
        def hold():
            self.results.put((os.getpid(), *lease(DEVICES, self.folder)))
            time.sleep(60)

        process = context.Process(target=hold)
        process.start()
        self.processes[process.pid] = process

    def next(self, timeout=30):
        """Process id and index of the next that has a device."""
        return self.results.get(timeout=timeout)

    def end(self, pid, number=signal.SIGKILL):
        os.kill(pid, number)
        self.processes.pop(pid).join()


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.05)
    jobs = Jobs(tmp_path)
    yield jobs
    for pid in list(jobs.processes):
        jobs.end(pid)


def test_processes_get_devices_of_their_own_and_a_killed_one_frees_its(jobs):
    for _ in DEVICES:
        jobs.start()  # all at once
    leased = dict(jobs.next() for _ in DEVICES)
    assert sorted(leased.values()) == [0, 1, 2]
    for number in (signal.SIGKILL, signal.SIGTERM):
        jobs.start()
        with pytest.raises(queue.Empty):  # it waits
            jobs.next(timeout=0.5)
        pid, index = next(iter(leased.items()))
        jobs.end(pid, number)
        del leased[pid]
        newcomer, given = jobs.next()
        assert given == index
        leased[newcomer] = given


def test_a_process_that_ends_frees_its_device_and_the_first_free_one_is_taken(tmp_path):
    assert [in_a_child(lambda: lease(DEVICES, tmp_path)) for _ in range(3)] == [[0]] * 3


def test_waiting_is_said_once(jobs, monkeypatch):
    jobs.start()
    pid, _ = jobs.next()

    def wait():
        lines, polls = [], []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())
        module.log.addHandler(handler)
        module.log.setLevel(logging.INFO)
        # the holder is killed at the third poll; the device may come free a moment after that
        module.time = SimpleNamespace(sleep=lambda _: polls.append(0) or len(polls) != 3 or os.kill(pid, 9))
        return lease(DEVICES[:1], jobs.folder), lines, len(polls) >= 3

    index, lines, polled = in_a_child(wait)
    assert (index, polled) == ([0], True)
    assert lines == ["all 1 CUDA devices are in use by other nrcg jobs; waiting for 1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_sees_the_lock_whatever_the_umask():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o1777)  # as /tmp

        def first():
            os.umask(0o077)
            index = lease(DEVICES, Path(folder))
            return index, in_a_child(another)

        def another():
            os.setuid(65534)
            return lease(DEVICES, Path(folder))

        assert in_a_child(first) == ([0], [1])


def test_a_lock_that_cannot_be_opened_is_one_line(tmp_path):
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "nrcg-GPU-a.lock").symlink_to("elsewhere")  # someone's trap in a folder that all may write to
    for folder in (tmp_path, tmp_path / "elsewhere"):
        message = in_a_child(lambda folder=folder: lease(DEVICES, folder))
        assert str(folder / "nrcg-GPU-a.lock") in message and "--device" in message and "\n" not in message


def show_devices(monkeypatch, count, folder):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=DEVICES[index]))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(module, "LOCKS", folder)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_of_several_devices_each_process_gets_one_however_often_it_asks(jobs, monkeypatch, name):
    show_devices(monkeypatch, 3, jobs.folder)
    jobs.start()
    _, taken = jobs.next()
    assert taken == 0
    assert in_a_child(lambda: [str(pick_device(name)) for _ in range(2)]) == ["cuda:1", "cuda:1"]


def test_with_nothing_to_choose_no_lock_is_taken(tmp_path, monkeypatch):
    show_devices(monkeypatch, 0, tmp_path)
    assert str(pick_device("auto")) == "cpu"
    show_devices(monkeypatch, 1, tmp_path)
    assert str(pick_device("auto")) == str(pick_device("cuda")) == "cuda"
    show_devices(monkeypatch, 3, tmp_path)
    assert str(pick_device("cuda:2")) == "cuda:2" and str(pick_device("cpu")) == "cpu"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("count", "name", "message"),
    [
        (0, "cuda", "--device cuda: no CUDA device found"),
        (0, "cuda:1", "--device cuda:1: no CUDA device found"),
        (2, "cuda:2", "--device cuda:2: found 2 CUDA"),
        (2, "gpu", "--device gpu: unknown; use auto, cpu, cuda or cuda:N"),
        (2, "meta", "--device meta: unknown"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(tmp_path, monkeypatch, count, name, message):
    show_devices(monkeypatch, count, tmp_path)
    with pytest.raises(NrcgError, match=message) as error:
        pick_device(name)
    assert "\n" not in str(error.value)


@pytest.fixture
def tf32():
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = True
    yield lambda: [place.allow_tf32 for place in places]
    for place, flag in zip(places, before, strict=True):
        place.allow_tf32 = flag


def test_float32_is_not_tf32_in_a_verb(tf32):
    assert tf32() == [True, True]
    set_up("cpu", 0)
    assert tf32() == [False, False]


def test_convolutions_are_exact_inside_and_as_before_after(tf32):
    with pytest.raises(ZeroDivisionError), exact_convolutions():
        assert tf32() == [False, True]
        1 / 0  # noqa: B018
    assert tf32() == [True, True]


@pytest.mark.parametrize(
    ("name", "n", "message"),
    [
        ("cuda:1", 2, "--device cuda:1: a single device, but --processes 2; use --device cuda"),
        ("auto", 4, r"--processes 4: found 3 CUDA device\(s\); use at most 3 processes"),
        ("gpu", 2, "--device gpu: unknown"),
    ],
)
def test_too_few_devices_are_one_line(tmp_path, monkeypatch, name, n, message):
    show_devices(monkeypatch, len(DEVICES), tmp_path)
    with pytest.raises(NrcgError, match=message):
        pick_devices(name, n)
    assert not list(tmp_path.iterdir())


def test_each_process_gets_a_device_of_its_own(tmp_path, monkeypatch):
    show_devices(monkeypatch, 0, tmp_path)
    assert pick_devices("auto", 2) == [torch.device("cpu")] * 2
    show_devices(monkeypatch, len(DEVICES), tmp_path)
    assert pick_devices("cpu", 2) == [torch.device("cpu")] * 2

    def two_and_one():
        return [*map(str, pick_devices("auto", 2)), in_a_child(lambda: str(pick_device()))]

    assert in_a_child(two_and_one) == ["cuda:0", "cuda:1", "cuda:2"]
