"""A DDPM trained by several processes on the CPU: the numbers of one, and stopped and failing as one."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TINY_UNET
from safetensors.torch import load_file
from test_memory import limit_memory
from test_robustness import SCHEDULER, same_weights

from nrcg.errors import NrcgError
from nrcg.io.files import read_sealed
from nrcg.training import ddpm as ddpm_module
from nrcg.training import distributed as module
from nrcg.training.ddpm import DDPMTraining, train_ddpm

SECTION = {"epochs": 25, "batch_size": 16, "warmup_steps": 5, "precision": "fp32", "ema_decay": 0.9}
HERE = Path(__file__).parent


def in_two(work, **arguments):
    module.launch(work, [torch.device("cpu")] * 2, threads=2, **arguments)


def train(data, out, work=train_ddpm, **changes):
    arguments = {"data": data.folder, "out": out, "unet": TINY_UNET, "scheduler": SCHEDULER}
    work(**{**arguments, "settings": DDPMTraining(**SECTION), "checkpoint": out / "c.pt", **changes})


def every_step_logged(work=train_ddpm, **arguments):
    """Runs in the processes, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddpm_module, "LOG_EVERY", 1)
        work(**arguments)


def short_of_memory(**arguments):
    """The second process has room for three images of its eight."""
    build = ddpm_module.build_unet

    def limited(config):
        network = build(config)
        if module.rank() == 1:
            limit_memory(network, 3)
        return network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddpm_module, "build_unet", limited)
        every_step_logged(**arguments)


def assert_same_numbers(a, b):
    """Equal but for the order of sums."""
    pd.testing.assert_frame_equal(*(pd.read_csv(folder / "log.csv") for folder in (a, b)), rtol=1e-5)
    files = [load_file(folder / "unet/diffusion_pytorch_model.safetensors") for folder in (a, b)]
    torch.testing.assert_close(*files, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def together(blob_set, tmp_path_factory):
    """What two processes compute."""
    out = tmp_path_factory.mktemp("together")
    train(blob_set, out, partial(in_two, every_step_logged), preview_every=100)
    return out


def test_two_processes_compute_what_one_computes_also_short_of_memory(blob_set, together, tmp_path):
    train(blob_set, tmp_path / "alone", every_step_logged, device=torch.device("cpu"))
    assert len(pd.read_csv(together / "log.csv")) == 100
    assert_same_numbers(tmp_path / "alone", together)
    assert not same_weights(tmp_path / "alone", together)  # there were two: the order of sums is another
    assert json.loads((together / "card.json").read_text())["processes"] == 2
    assert (together / "previews/step_0000100.png").exists()
    assert [path.name for path in together.glob("c.pt*")] == ["c.pt"]
    train(blob_set, tmp_path / "pieces", partial(in_two, short_of_memory))
    assert_same_numbers(tmp_path / "alone", tmp_path / "pieces")


def command(data, out, checkpoint, processes=2):
    options = ["--data", data.folder, "--out", out, "--checkpoint", checkpoint, "--settings", json.dumps(SECTION)]
    options += ["--unet", json.dumps(TINY_UNET), "--scheduler", json.dumps(SCHEDULER)]
    options += ["--device", "cpu", "--threads", 2, "--processes", processes]
    return [sys.executable, "-m", "nrcg.cli", "train", "ddpm", *map(str, options)]


def test_stopped_with_all_its_processes_it_goes_on_to_the_same_bits_or_alone(blob_set, together, tmp_path, capsys):
    """As Slurm stops a job: every process gets the signal, and `tee` has ended."""
    checkpoint, log = tmp_path / "c.pt", tmp_path / "log"
    training = [*command(blob_set, tmp_path / "cut", checkpoint), "--log", tmp_path / "own.log"]
    script = 'trap : TERM; "$@" 2>&1 | tee "$0"; exit ${PIPESTATUS[0]}'
    with subprocess.Popen(["bash", "-c", script, log, *training], start_new_session=True) as pipeline:
        end = time.monotonic() + 120
        while not (log.exists() and re.search(rb" [1-9]\d*/100 ", log.read_bytes())):
            assert time.monotonic() < end
            time.sleep(0.02)
        os.killpg(pipeline.pid, signal.SIGTERM)
        assert pipeline.wait(timeout=60) == 75
    *bars, last = (tmp_path / "own.log").read_text().splitlines()
    assert "/100" in bars[-1]
    assert last == "stopped by SIGTERM: run the same command again to continue from the last checkpoint"
    assert 0 < torch.load(read_sealed(checkpoint), weights_only=True)["step"] < 100
    shutil.copy(checkpoint, tmp_path / "copy.pt")
    train(blob_set, tmp_path / "cut", partial(in_two, train_ddpm), checkpoint=checkpoint)
    assert capsys.readouterr().err.count("continuing from step") == 1
    assert same_weights(together, tmp_path / "cut")
    train(blob_set, tmp_path / "one", checkpoint=tmp_path / "copy.pt", device=torch.device("cpu"))
    assert_same_numbers(tmp_path / "one", tmp_path / "cut")


def the_second_fails(stop, **_):
    if module.rank() == 1:
        raise NrcgError("the second: no good; choose another")
    stop.check()  # waits for the second


def the_second_has_a_bug(stop, **_):
    if module.rank() == 1:
        {}[0]
    stop.check()


def the_second_dies(stop, **_):
    if module.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    stop.check()


def the_second_waits_in_vain(stop, **_):
    if module.rank() == 1:
        raise RuntimeError("[unbound_buffer.cc:78] Timed out waiting 600000ms for recv operation")
    stop.check()


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (the_second_fails, NrcgError, "^the second: no good; choose another$"),
        (the_second_has_a_bug, RuntimeError, r"(?s)^0\nTraceback .*KeyError: 0"),
        (the_second_dies, NrcgError, "^a training process was killed by SIGKILL; run the same command again"),
        (the_second_waits_in_vain, NrcgError, r"^a training process did not respond for 0:10:00; run"),
    ],
)
def test_one_that_fails_ends_all_and_is_heard_once(capfd, work, error, message):
    with pytest.raises(error, match=message):
        in_two(work)
    assert not multiprocessing.active_children() and capfd.readouterr().err == ""


def test_bad_settings_are_one_line_and_exit_status_2(blob_set, tmp_path):
    done = subprocess.run(command(blob_set, tmp_path / "out", tmp_path / "c.pt", 3), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: batch_size 16: must be a multiple of the number of processes, 3\n"


def silent_for_ever(**_):
    module.PATIENCE = 1.0
    os.write(2, b"%d\n" % os.getpid())
    time.sleep(600)


def is_alive(pid):
    try:
        return Path(f"/proc/{int(pid)}/cmdline").read_bytes() != b""  # a zombie has none
    except FileNotFoundError:
        return False


def test_no_process_outlives_a_killed_parent():
    code = "import test_distributed as here; here.in_two(here.silent_for_ever)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE) as parent:
        pids = [line for _, line in zip(range(2), parent.stderr, strict=False)]
        assert all(map(is_alive, pids))
        parent.kill()
    end = time.monotonic() + 60
    while any(map(is_alive, pids)):
        assert time.monotonic() < end
        time.sleep(0.1)
