"""Stopped by a signal, a job exits with 75 and, run again, ends with the bits it would have ended with."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY_UNET
from test_robustness import (
    SCHEDULER,
    StopAt,
    draw,
    files_in,
    same_bytes,
    same_weights,
    small_pipeline,
    train_a_classifier,
)
from typer.testing import CliRunner

import nrcg.cli
from nrcg.errors import Stopped
from nrcg.io.files import read_sealed
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import save_classifier
from nrcg.runtime.preemption import stop_on_signals

CLASSIFIER_CARD = {"architecture": "mobilenet_v3_small", "n_logits": 3, "classes": ["r", "g", "b"]}


@pytest.fixture(scope="module")
def verbs(blob_set, tmp_path_factory):
    """Verb → its arguments but --out, long enough to be stopped on the way."""
    folder = tmp_path_factory.mktemp("verbs")
    small_pipeline().save_pretrained(folder / "ddpm")
    shared = ["--device", "cpu", "--threads", 1]
    training = [*shared, "--data", blob_set.folder, "--scheduler", json.dumps(SCHEDULER), "--checkpoint"]
    settings = {"epochs": 40, "batch_size": 16, "precision": "fp32"}
    ddpm = [folder / "ddpm.pt", "--unet", json.dumps(TINY_UNET), "--settings", json.dumps(settings)]
    classifier = [folder / "classifier.pt", "--settings", json.dumps({"max_epochs": 2, "batch_size": 2})]
    sample = ["--ddpm", folder / "ddpm", "--start", 0, "--stop", 40, "--num-inference-steps", 10, "--batch-size", 2]
    save_classifier(folder / "classifier", build_classifier("mobilenet_v3_small", 3), CLASSIFIER_CARD)
    forward = ["--data", blob_set.folder, "--ddpm", folder / "ddpm", "--classifier", folder / "classifier"]
    forward += ["--on", "x0", "--setups", '{"raw": null, "smooth": {"ema": {"beta": 0.9}}}', "--batch-size", 2]
    return {
        "measure forward": [*forward, *shared],
        "train ddpm": [*training, *ddpm],
        "train classifier": [*training, *classifier],
        "sample": [*sample, *shared],
    }


def in_this_process(verb, out, options):
    result = CliRunner().invoke(nrcg.cli.app, [str(part) for part in (*verb.split(), "--out", out, *options)])
    assert result.exit_code == 0, result.exception


def interrupted(command, number, log, started, group=False):
    """Exit status of a command that is sent a signal as soon as what it says, in `log`, matches `started`."""
    with open(log, "wb") as stderr, subprocess.Popen(command, stderr=stderr, start_new_session=True) as process:
        try:
            while not re.search(started, log.read_bytes()):
                assert process.poll() is None, log.read_text()
                time.sleep(0.02)
            (os.killpg if group else os.kill)(process.pid, number)
            return process.wait(timeout=60)
        finally:
            process.kill()


def command(verb, out, options):
    return [sys.executable, "-m", "nrcg.cli", *map(str, (*verb.split(), "--out", out, *options))]


def test_a_ddpm_training_stopped_with_all_its_pipeline_ends_with_the_same_bits(verbs, tmp_path):
    """As a rule of the workflow runs it: `tee` ends of the signal at once, and what the verb says goes nowhere."""
    options, log = verbs["train ddpm"], tmp_path / "log"
    checkpoint = Path(options[options.index("--checkpoint") + 1])
    in_this_process("train ddpm", tmp_path / "whole", options)
    checkpoint.unlink()
    script = 'trap : TERM; "$@" 2>&1 | tee "$0"; exit ${PIPESTATUS[0]}'  # a bash that lives to tell the verb's status
    pipeline = ["bash", "-c", script, log, *command("train ddpm", tmp_path / "cut", options)]
    assert interrupted(pipeline, signal.SIGTERM, log, rb" [1-9]\d*/160 ", group=True) == 75
    step = torch.load(read_sealed(checkpoint), weights_only=True)["step"]
    assert 0 < step < 160  # far from the 1000th, at which one is due
    in_this_process("train ddpm", tmp_path / "cut", options)
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    assert same_bytes(tmp_path, "log.csv")
    assert "finished" in torch.load(read_sealed(checkpoint), weights_only=True)


def test_a_classifier_training_stopped_by_sigusr1_says_so_and_ends_with_the_same_bits(verbs, tmp_path):
    options, log = verbs["train classifier"], tmp_path / "log"
    in_this_process("train classifier", tmp_path / "whole", options)
    Path(options[options.index("--checkpoint") + 1]).unlink()
    training = command("train classifier", tmp_path / "cut", options)
    assert interrupted(training, signal.SIGUSR1, log, rb"epoch 1/2: ") == 75
    last = log.read_text().replace("\r", "\n").splitlines()[-1]
    assert last == "stopped by SIGUSR1: finished work is kept; run the same command again to continue"
    assert not (tmp_path / "cut").exists()
    in_this_process("train classifier", tmp_path / "cut", options)
    assert same_weights(tmp_path / "whole", tmp_path / "cut", "model.safetensors")
    assert same_bytes(tmp_path, "log.csv")


def test_sampling_stopped_by_sigterm_keeps_its_batches_and_ends_with_the_same_bytes(verbs, tmp_path):
    options, log = verbs["sample"], tmp_path / "log"
    in_this_process("sample", tmp_path / "whole.npy", options)
    sampling = command("sample", tmp_path / "cut.npy", options)
    assert interrupted(sampling, signal.SIGTERM, log, rb" [1-9]\d*/40 ") == 75
    assert 0 < len(list(tmp_path.glob("cut.unfinished/*/*.batch"))) < 20 and not (tmp_path / "cut.npy").exists()
    in_this_process("sample", tmp_path / "cut.npy", options)
    assert (tmp_path / "whole.npy").read_bytes() == (tmp_path / "cut.npy").read_bytes()


def test_the_forward_analysis_stopped_by_sigterm_keeps_its_batches_and_ends_with_the_same_bytes(verbs, tmp_path):
    options, log = verbs["measure forward"], tmp_path / "log"
    in_this_process("measure forward", tmp_path / "whole.csv", options)
    analysis = command("measure forward", tmp_path / "cut.csv", options)
    assert interrupted(analysis, signal.SIGTERM, log, rb"\D[1-9]\d\d/") == 75  # of 32 images · 11 values of t
    parts = list(tmp_path.glob("cut.unfinished/*/*.batch"))
    assert 0 < len(parts) < 16 and not (tmp_path / "cut.csv").exists()
    in_this_process(
        "measure forward", tmp_path / "cut.csv", [*options, "--objective", "logit"]
    )  # takes no other's parts
    assert (tmp_path / "whole.csv").read_bytes() != (tmp_path / "cut.csv").read_bytes()
    for part in parts:
        assert not part.exists()
    assert interrupted(analysis, signal.SIGTERM, log, rb"\D[1-9]\d\d/") == 75
    in_this_process("measure forward", tmp_path / "cut.csv", options)
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "cut.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.csv", "log", "whole.csv"]


def test_a_second_signal_ends_at_once_and_importing_installs_nothing():
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    code = """
import time
from nrcg.runtime.preemption import stop_on_signals
with stop_on_signals() as stop:
    print("ready", flush=True)
    while not stop.reason:
        time.sleep(0.01)
    print(stop.reason, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "SIGUSR1\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == -signal.SIGTERM
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def until_done(work):
    """How often `work` was stopped before it came to its end."""
    stops = 0
    while True:
        try:
            work()
            return stops
        except Stopped:
            stops += 1


def test_a_classifier_stopped_over_and_over_within_epochs_and_validations_ends_with_the_same_bits(blob_set, tmp_path):
    train_a_classifier(blob_set, tmp_path / "whole")
    stops = until_done(lambda: train_a_classifier(blob_set, tmp_path / "cut", stop=StopAt(3)))  # 6 looks an epoch
    assert stops >= 5
    assert same_weights(tmp_path / "whole", tmp_path / "cut", "model.safetensors")
    assert same_bytes(tmp_path, "log.csv")
    assert files_in(tmp_path / "cut") == files_in(tmp_path / "whole")


def test_a_stopped_batch_of_samples_is_given_up_between_two_steps(tmp_path):
    pipeline, passes = small_pipeline(), []
    pipeline.unet.register_forward_hook(lambda *_: passes.append(0))
    with pytest.raises(Stopped):
        draw(tmp_path / "s.npy", pipeline, stop=StopAt(8))
    assert len(passes) == 8  # five steps of the first batch, three of the second
    assert [path.name for path in tmp_path.glob("s.unfinished/*/*")] == ["100.batch"]
