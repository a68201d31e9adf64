import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pandas as pd
import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDPMPipeline
from safetensors.torch import load_file

from nrcg.errors import NrcgError
from nrcg.io.files import read_sealed
from nrcg.speed import inductor
from nrcg.training import ddpm as ddpm_module
from nrcg.training.common import load_checkpoint, save_checkpoint
from nrcg.training.ddpm import DDPMTraining, train_ddpm

SCHEDULER = {"num_train_timesteps": 10, "beta_end": 0.2, "prediction_type": "v_prediction"}
SETTINGS = DDPMTraining(epochs=30, batch_size=16, learning_rate=2e-3, warmup_steps=5, precision="fp32", ema_decay=0.9)


def run(data, out, **changes):
    options = {"unet": TINY_UNET, "scheduler": SCHEDULER, "settings": SETTINGS, "device": torch.device("cpu")}
    train_ddpm(data, out, **{**options, "checkpoint": out / "c.pt", **changes})


def weights(out):
    return load_file(out / "unet" / "diffusion_pytorch_model.safetensors")


def test_trained_folder_opens_in_diffusers_and_the_loss_falls(blob_set, tmp_path):
    run(blob_set.folder, tmp_path, preview_every=100)
    pipe = DDPMPipeline.from_pretrained(tmp_path)
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    log = pd.read_csv(tmp_path / "log.csv")
    assert list(log["step"]) == [50, 100, 120]
    assert log["loss"].iloc[-1] < 0.8 * log["loss"].iloc[0]
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["images_seen"] == 30 * 64 and card["data_digest"] == blob_set.card["digest"]
    assert (tmp_path / "previews" / "step_0000100.png").exists()
    assert "finished" in torch.load(read_sealed(tmp_path / "c.pt"), weights_only=True)


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
def test_other_prediction_types_learn(blob_set, tmp_path, kind):
    run(blob_set.folder, tmp_path, scheduler={**SCHEDULER, "prediction_type": kind})
    log = pd.read_csv(tmp_path / "log.csv")
    assert log["loss"].iloc[-1] < log["loss"].iloc[0]


def test_killed_training_resumes_to_the_same_bits(blob_set, tmp_path):
    run(blob_set.folder, tmp_path / "whole")
    command = [
        sys.executable,
        "-m",
        "nrcg.cli",
        "train",
        "ddpm",
        "--data",
        blob_set.folder,
        "--out",
        tmp_path / "killed",
    ]
    command += ["--unet", json.dumps(TINY_UNET), "--scheduler", json.dumps(SCHEDULER)]
    command += [
        "--checkpoint",
        tmp_path / "c.pt",
        "--checkpoint-every",
        "7",
        "--settings",
        json.dumps(asdict(SETTINGS)),
    ]
    command += ["--device", "cpu", "--threads", str(torch.get_num_threads())]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not (tmp_path / "c.pt").exists():
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "card.json").exists(), "finished before the kill"
    done = subprocess.run(command, stderr=subprocess.PIPE, check=True)
    assert b"continuing from step" in done.stderr
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert (tmp_path / "whole" / "log.csv").read_bytes() == (tmp_path / "killed" / "log.csv").read_bytes()


def test_a_compiled_network_is_what_takes_the_steps(blob_set, tmp_path, monkeypatch):
    """Where it pays; previews and files are the U-Net's. The compiler itself is not tried: it takes minutes."""
    passes, asked, short = [], [], replace(SETTINGS, epochs=3)

    def compiled(network, backend):
        assert backend is inductor
        return lambda *inputs: passes.append(len(inputs[0])) or network(*inputs)

    monkeypatch.setattr(torch, "compile", compiled)
    for pays in (True, False):
        monkeypatch.setattr(ddpm_module, "worth_compiling", lambda *work, pays=pays: asked.append(work) or pays)
        run(blob_set.folder, tmp_path / str(pays), settings=short, preview_every=12, compile=True)
    run(blob_set.folder, tmp_path / "eager", settings=short)
    assert passes == [16] * 12 and asked == [(12 * 16, torch.device("cpu"))] * 2
    torch.testing.assert_close(weights(tmp_path / "True"), weights(tmp_path / "eager"), rtol=0, atol=0)


def test_damaged_or_foreign_checkpoints_are_not_continued(tmp_path, caplog):
    path = tmp_path / "c.pt"
    save_checkpoint(path, "a", {"step": 3})
    assert load_checkpoint(path, "a")["step"] == 3
    assert load_checkpoint(path, "b") is None and "other settings" in caplog.text
    path.write_bytes(path.read_bytes()[:100])
    assert load_checkpoint(path, "a") is None and "damaged" in caplog.text


def test_bad_settings_are_refused(blob_set, tmp_path):
    with pytest.raises(NrcgError, match="batch_size"):
        run(blob_set.folder, tmp_path, settings=DDPMTraining(batch_size=1000))
    with pytest.raises(NrcgError, match="num_steps"):
        run(blob_set.folder, tmp_path, scheduler={"num_steps": 3})
