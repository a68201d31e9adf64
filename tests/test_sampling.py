import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDPMScheduler, UNet2DModel

import nrcg
from nrcg import EMA, ClassifierGuidance, GuidedDDPMPipeline
from nrcg.cli import app
from nrcg.cli.options import network_digest
from nrcg.errors import NrcgError
from nrcg.io.files import fingerprint, sha256
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import save_classifier
from nrcg.models.ddpm import save_ddpm
from nrcg.sampling import sample_shard

GUIDANCE = {"on": "x0", "stabilizer": {"ema": {"beta": 0.9}}, "objective": "logit", "interval": [0, 0.85]}


@pytest.fixture(scope="module")
def pipeline() -> GuidedDDPMPipeline:
    torch.manual_seed(0)
    scheduler = DDPMScheduler(num_train_timesteps=20, beta_end=0.2)
    return GuidedDDPMPipeline(unet=UNet2DModel(**TINY_UNET), scheduler=scheduler)


def draw(out, seeds, pipeline, batch_size=4, guidance=None, seed=0, **provenance):
    sample_shard(
        out, seeds, pipeline=pipeline, guidance=guidance, num_inference_steps=5, batch_size=batch_size, seed=seed,
        provenance=provenance,
    )  # fmt: skip
    return np.load(out), json.loads(out.with_suffix(".json").read_text())


def test_samples_depend_on_seed_and_index_alone(pipeline, tmp_path):
    whole, card = draw(tmp_path / "a.npy", range(0, 10), pipeline, batch_size=10)
    assert whole.shape == (10, 8, 8, 3) and whole.dtype == np.uint8
    assert card["seeds"] == [0, 10] and card["diverged"] == [] and card["sha256"] == sha256(tmp_path / "a.npy")
    part, _ = draw(tmp_path / "b.npy", range(6, 10), pipeline, batch_size=3)
    assert np.abs(whole[6:].astype(int) - part).max() <= 1  # one level: 1e-5 may cross a rounding border
    other, _ = draw(tmp_path / "c.npy", range(6, 10), pipeline, seed=1)
    assert np.abs(other.astype(int) - part).max() > 10


def test_interrupted_shards_keep_what_was_drawn(pipeline, tmp_path, monkeypatch):
    whole, _ = draw(tmp_path / "whole.npy", range(10), pipeline)
    original, sizes = GuidedDDPMPipeline.__call__, []

    def second_batch_fails(self, **how):
        sizes.append(how["batch_size"])
        if len(sizes) == 2:
            raise KeyboardInterrupt
        return original(self, **how)

    monkeypatch.setattr(GuidedDDPMPipeline, "__call__", second_batch_fails)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "cut.npy", range(10), pipeline)
    assert not (tmp_path / "cut.npy").exists()
    cut, _ = draw(tmp_path / "cut.npy", range(10), pipeline)
    assert sizes == [4, 4, 4, 2]
    assert np.array_equal(whole, cut)
    assert not (tmp_path / "cut.unfinished").exists()


class Bright(torch.nn.Module):
    """Two logits of an image."""

    def forward(self, images):
        return torch.stack([images.mean((1, 2, 3)), -images.square().mean((1, 2, 3))], dim=1)


@pytest.mark.parametrize(
    ("how", "evaluations"),
    [
        (None, 5),
        ({"on": "xt"}, 5),
        ({"on": "x0"}, 10),  # back through the U-Net too
        ({"on": "x0", "jacobian": False}, 5),
        ({"on": "x0", "jacobian": "identity"}, 5),
        ({"on": "x0", "every": 2}, 8),  # at the first, third and fifth step
        ({"on": "x0", "interval": (0, 0.3)}, 7),  # at the last two of t / T = 0.8, 0.6, 0.4, 0.2, 0
    ],
)
def test_a_card_counts_the_passes_of_the_unet(pipeline, tmp_path, how, evaluations):
    guidance = None if how is None else ClassifierGuidance(Bright(), 0, 1.0, **how)
    passes, layer = [], pipeline.unet.conv_in

    def note(*_):
        passes.append(1)

    with layer.register_forward_hook(note), layer.register_full_backward_hook(note):
        _, card = draw(tmp_path / "s.npy", range(6), pipeline, guidance=guidance)
    assert card["unet_evaluations"] == evaluations and len(passes) == 2 * evaluations  # two batches


def test_the_count_of_passes_is_that_of_all_batches_however_they_were_drawn(pipeline, tmp_path, monkeypatch):
    guidance, original, calls = ClassifierGuidance(Bright(), 0, 1.0), GuidedDDPMPipeline.__call__, []

    def second_batch_fails(self, **how):
        calls.append(how["batch_size"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, **how)

    monkeypatch.setattr(GuidedDDPMPipeline, "__call__", second_batch_fails)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "cut.npy", range(10), pipeline, guidance=guidance)
    _, card = draw(tmp_path / "cut.npy", range(10), pipeline, guidance=guidance)
    assert calls == [4, 4, 4, 2] and card["unet_evaluations"] == 10

    def out_of_memory(_unet, inputs):
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError

    with pipeline.unet.register_forward_pre_hook(out_of_memory):
        _, card = draw(tmp_path / "small.npy", range(10), pipeline, guidance=guidance)
    assert card["unet_evaluations"] == 10


def test_batches_of_other_settings_or_damaged_ones_are_drawn_again(pipeline, tmp_path, caplog):
    folder = tmp_path / "s.unfinished"
    whole, _ = draw(tmp_path / "whole.npy", range(8), pipeline, scale=2)
    (folder / "of_other_settings").mkdir(parents=True)
    (folder / "of_other_settings" / "0.batch").write_bytes(b"nonsense")
    own = folder / fingerprint(scale=2, seed=0, num_inference_steps=5)
    own.mkdir()
    (own / "0.batch").write_bytes(b"truncated")
    again, _ = draw(tmp_path / "s.npy", range(8), pipeline, scale=2)
    assert np.array_equal(whole, again) and "drawn again" in caplog.text


def test_diverged_samples_are_named_on_the_card(pipeline, tmp_path):
    class Exploding(torch.nn.Module):
        def forward(self, x):
            # a gradient beyond float32 for every image whose first pixel is positive
            return (x.flatten(1).sum(1, keepdim=True) * torch.where(x[:, :1, 0, 0] > 0, 3e38, 0.0)) * 1e38

    guidance = ClassifierGuidance(Exploding(), target=1, scale=1e9, on="xt", objective="logit")
    images, card = draw(tmp_path / "d.npy", range(5, 13), pipeline, guidance=guidance)
    assert card["diverged"] and set(card["diverged"]) <= set(range(5, 13))
    for seed in card["diverged"]:
        assert (images[seed - 5] == 128).all()


def test_a_killed_sampling_job_finishes_with_the_same_images(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "ddpm")
    torch.manual_seed(1)
    card = {"architecture": "mobilenet_v3_small", "classes": ["a", "b", "c"], "n_logits": 3}
    save_classifier(tmp_path / "classifier", build_classifier("mobilenet_v3_small", 3), card)

    def command(out):
        options = [
            "--ddpm",
            tmp_path / "ddpm",
            "--classifier",
            tmp_path / "classifier",
            "--target",
            "a",
            "--scale",
            "2",
        ]
        options += ["--guidance", json.dumps(GUIDANCE)]
        options += ["--start", "0", "--stop", "24"]
        options += ["--batch-size", "2", "--num-inference-steps", "20", "--device", "cpu", "--threads", "1"]
        return [sys.executable, "-m", "nrcg.cli", "sample", "--out", out, *options]

    subprocess.run(command(tmp_path / "whole.npy"), check=True, capture_output=True)
    process = subprocess.Popen(command(tmp_path / "killed.npy"), stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("killed.unfinished/*/*.batch")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed.npy").exists(), "finished before the kill"
    done = subprocess.run(command(tmp_path / "killed.npy"), check=True, capture_output=True, text=True)
    assert "already drawn" in done.stderr
    assert (tmp_path / "whole.npy").read_bytes() == (tmp_path / "killed.npy").read_bytes()
    assert json.loads((tmp_path / "killed.json").read_text())["guidance"] == GUIDANCE
    ours, classifier = (
        GuidedDDPMPipeline.from_pretrained(tmp_path / "ddpm"),
        nrcg.load_classifier(tmp_path / "classifier"),
    )
    for network in ours.unet, classifier:
        nrcg.speed.prepare(network)
    how = {"on": "x0", "stabilizer": EMA(0.9), "objective": "logit", "interval": (0, 0.85)}
    guidance = ClassifierGuidance(classifier, 0, 2.0, **how)  # the verb draws what the library does
    sample_shard(
        tmp_path / "ours.npy", range(24), pipeline=ours, guidance=guidance, num_inference_steps=20, batch_size=2,
        seed=0, provenance={},
    )  # fmt: skip
    assert np.array_equal(np.load(tmp_path / "ours.npy"), np.load(tmp_path / "whole.npy"))


def test_an_empty_range_is_refused(pipeline, tmp_path):
    with pytest.raises(NrcgError, match="no seeds"):
        draw(tmp_path / "e.npy", range(3, 3), pipeline)


def test_a_networks_digest_takes_in_the_configurations_it_has(tmp_path):
    """A classifier's folder has none of a DDPM's."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    alone = network_digest(tmp_path)
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/config.json").write_text("{}")
    assert network_digest(tmp_path) != alone


def refusal(monkeypatch, *words):
    """The line with which `nrcg sample` refuses its arguments."""
    monkeypatch.setattr(sys, "argv", ["nrcg", "sample", "--start", "0", "--stop", "2", *map(str, words)])
    with pytest.raises(NrcgError) as refused:
        app()
    return str(refused.value)


def test_a_shard_is_called_npy(monkeypatch, tmp_path):
    words = ["--ddpm", tmp_path, "--num-inference-steps", 2, "--out", tmp_path / "x.png"]
    assert refusal(monkeypatch, *words) == (f"--out {tmp_path}/x.png: not a NumPy file name; use {tmp_path}/x.npy")


@pytest.mark.parametrize("half", [["--scale", "5"], ["--classifier", "nowhere"], ["--guidance", '{"on": "x0"}']])
def test_a_scale_without_classifier_is_not_taken_for_no_guidance(monkeypatch, tmp_path, half):
    words = ["--ddpm", tmp_path, "--num-inference-steps", 2, "--out", tmp_path / "x.npy", *half]
    assert refusal(monkeypatch, *words).startswith("--classifier and --scale: give both")


def test_a_classifier_of_other_images_does_not_guide(pipeline, monkeypatch, tmp_path):
    save_ddpm(tmp_path / "ddpm", pipeline.unet, pipeline.scheduler, {})
    card = {"architecture": "mobilenet_v3_small", "n_logits": 3, "classes": ["a", "b", "c"], "size": 32}
    save_classifier(tmp_path / "classifier", build_classifier("mobilenet_v3_small", 3), card)
    words = ["--ddpm", tmp_path / "ddpm", "--num-inference-steps", 2, "--out", tmp_path / "x.npy", "--device", "cpu"]
    words += ["--classifier", tmp_path / "classifier", "--scale", 1]
    line = refusal(monkeypatch, *words)
    assert line.endswith(f"for images of 32 pixels, but those of {tmp_path}/ddpm have 8")
    line = refusal(monkeypatch, *words, "--guidance", '{"evry": 2}')
    assert line.startswith("--guidance: unknown key evry; nearest are every")
    line = refusal(monkeypatch, *words, "--guidance", '{"every": 2, "every": 3}')
    assert line.startswith("--guidance: not JSON (a key is given twice)")
