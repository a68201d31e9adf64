"""A DDPM trained by several processes on the CPU: the numbers of one, and stopped and failing as one."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TINY_UNET
from safetensors.torch import load_file
from test_device import DEVICES, in_a_child, show_devices
from test_memory import limit_memory
from test_robustness import SCHEDULER, same_weights

from nrcg.errors import NrcgError, Stopped
from nrcg.runtime.device import pick_device
from nrcg.runtime.preemption import Stop
from nrcg.training import ddpm as ddpm_module
from nrcg.training import launch as module
from nrcg.training.ddpm import DDPMTraining, train_ddpm
from nrcg.training.launch import launch, pick_devices

SETTINGS = DDPMTraining(epochs=25, batch_size=16, learning_rate=1e-4, warmup_steps=5, precision="fp32", ema_decay=0.9)
OPTIONS = ["--epochs", 25, "--batch-size", 16, "--learning-rate", 1e-4, "--warmup-steps", 5, "--precision", "fp32"]
OPTIONS += ["--ema-decay", 0.9, "--device", "cpu", "--threads", 2, "--processes", 2]


def in_two(work, **arguments):
    launch(work, [torch.device("cpu")] * 2, threads=2, stop=Stop(), **arguments)


def train(data, out, work=train_ddpm, **changes):
    arguments = {"data": data.folder, "out": out, "unet": TINY_UNET, "scheduler": SCHEDULER, "settings": SETTINGS}
    work(**{**arguments, "checkpoint": out / "c.pt", **changes})


def every_step_logged(work=train_ddpm, **arguments):
    """Runs in the processes, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddpm_module, "LOG_EVERY", 1)
        work(**arguments)


def assert_same_numbers(a, b):
    """Equal but for the order of sums."""
    pd.testing.assert_frame_equal(*(pd.read_csv(folder / "log.csv") for folder in (a, b)), rtol=1e-5)
    files = [load_file(folder / "unet/diffusion_pytorch_model.safetensors") for folder in (a, b)]
    torch.testing.assert_close(*files, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def alone(blob_set, tmp_path_factory):
    """What one process computes."""
    out = tmp_path_factory.mktemp("alone")
    train(blob_set, out, every_step_logged, device=torch.device("cpu"))
    return out


@pytest.fixture(scope="module")
def together(blob_set, tmp_path_factory):
    """What two processes compute."""
    out = tmp_path_factory.mktemp("together")
    train(blob_set, out, partial(in_two, every_step_logged), preview_every=100)
    return out


def test_two_processes_compute_what_one_computes(alone, together):
    assert len(pd.read_csv(together / "log.csv")) == 100
    assert_same_numbers(alone, together)
    assert not same_weights(alone, together)  # there were two: the order of sums is another
    assert json.loads((together / "card.json").read_text())["processes"] == 2
    assert (together / "previews/step_0000100.png").exists()
    assert [path.name for path in together.glob("c.pt*")] == ["c.pt"]


def short_of_memory(team, **arguments):
    """The second process has room for three images of its eight."""
    build = ddpm_module.build_unet

    def limited(config):
        network = build(config)
        if team.rank == 1:
            limit_memory(network, 3)
        return network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddpm_module, "build_unet", limited)
        every_step_logged(team=team, **arguments)


def test_a_process_short_of_memory_takes_its_share_in_pieces(blob_set, alone, tmp_path):
    train(blob_set, tmp_path, partial(in_two, short_of_memory))
    assert_same_numbers(alone, tmp_path)


def the_second_hangs(team, **_):
    if team.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    team.any(False)


def test_a_process_that_hangs_is_one_line_and_a_request_to_stop_is_answered(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    stop = Stop()
    threading.Timer(15.0, lambda: setattr(stop, "reason", "SIGTERM")).start()
    start = time.monotonic()
    with pytest.raises(Stopped, match=r"^stopped by SIGTERM: a process did not answer for 1 seconds, and all"):
        launch(the_second_hangs, [torch.device("cpu")] * 2, threads=2, stop=stop)
    assert time.monotonic() - start < 40 and not multiprocessing.active_children()


def command(data, out, checkpoint):
    options = ["--data", data.folder, "--out", out, "--checkpoint", checkpoint, *OPTIONS]
    options += ["--unet", json.dumps(TINY_UNET), "--scheduler", json.dumps(SCHEDULER)]
    return [sys.executable, "-m", "nrcg.cli", "train-ddpm", *map(str, options)]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_stopped_with_all_its_processes_it_goes_on_to_the_same_bits_or_alone(blob_set, together, tmp_path, capsys):
    """As Slurm stops a job: every process gets the signal, and `tee` has ended."""
    checkpoint, log = tmp_path / "c.pt", tmp_path / "log"
    training = command(blob_set, tmp_path / "cut", checkpoint)
    script = 'trap : TERM; "$@" 2>&1 | tee "$0"; exit ${PIPESTATUS[0]}'
    with subprocess.Popen(["bash", "-c", script, log, *training], start_new_session=True) as pipeline:
        wait_for(lambda: log.exists() and re.search(rb" [1-9]\d*/100 ", log.read_bytes()))
        os.killpg(pipeline.pid, signal.SIGTERM)
        assert pipeline.wait(timeout=120) == 75
    shutil.copy(checkpoint, tmp_path / "copy.pt")
    train(blob_set, tmp_path / "cut", partial(in_two, train_ddpm), checkpoint=checkpoint)
    assert capsys.readouterr().err.count("continuing from step") == 1
    assert same_weights(together, tmp_path / "cut")
    losses = pd.read_csv(together / "log.csv")["loss"][:50]
    assert pd.read_csv(tmp_path / "cut/log.csv")["loss"][0] == pytest.approx(losses.mean(), rel=1e-12)
    train(blob_set, tmp_path / "one", checkpoint=tmp_path / "copy.pt", device=torch.device("cpu"))
    assert_same_numbers(tmp_path / "one", tmp_path / "cut")


def the_second_fails(team, **_):
    if team.rank == 1:
        raise NrcgError("the second: no good; choose another")
    team.any(False)  # waits for the second


def the_second_has_a_bug(team, **_):
    team.any(team.rank == 1 and {}[0])


def the_second_dies(team, **_):
    if team.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    team.any(False)


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (the_second_fails, NrcgError, "^the second: no good; choose another$"),
        (the_second_has_a_bug, module._Crash, "KeyError: 0"),
        (the_second_dies, NrcgError, "^a process of the training was killed by SIGKILL; run the same command again"),
    ],
)
def test_one_that_fails_ends_all_and_is_heard_once(capfd, work, error, message):
    with pytest.raises(error, match=message):
        in_two(work)
    assert not multiprocessing.active_children() and capfd.readouterr().err == ""


def test_a_process_that_waits_for_another_in_vain_says_so_in_one_line():
    timed_out = RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 600000ms for recv operation")
    assert str(module._foreseen(timed_out)).startswith("a process of the training did not answer for 10 minutes; run")
    assert module._foreseen(MemoryError("no")).args == ("no",) and module._foreseen(KeyError(0)) is None


def test_bad_settings_are_one_line_and_exit_status_2(blob_set, tmp_path):
    training = [*command(blob_set, tmp_path / "out", tmp_path / "c.pt"), "--processes", "3"]
    done = subprocess.run(training, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: batch_size 16: not a multiple of the 3 processes; choose one\n"


def silent_for_ever(team, **_):
    os.write(2, b"at work\n")
    time.sleep(600)


def test_no_process_outlives_a_killed_parent():
    code = "import test_distributed as here; here.in_two(here.silent_for_ever)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent, stderr=subprocess.PIPE) as parent:
        assert [line for _, line in zip(range(2), parent.stderr, strict=False)] == [b"at work\n"] * 2
        parent.kill()
        parent.communicate(timeout=60)  # the pipe ends with the last process that could write into it


@pytest.mark.parametrize(
    ("name", "n", "message"),
    [
        ("cuda:1", 2, "--device cuda:1: that is one device for --processes 2; use --device cuda"),
        ("auto", 4, r"--processes 4: this machine shows 3 CUDA device\(s\); use at most as many processes"),
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

    def lease():
        return [*map(str, pick_devices("auto", 2)), in_a_child(lambda: str(pick_device()))]

    assert in_a_child(lease) == ["cuda:0", "cuda:1", "cuda:2"]
