"""The loops on a CUDA device that is only pretended: all tensors are where they should be, and no step waits for it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from pipelines import draw, generator, make_classifier, make_guidance, make_pipeline
from pretended_cuda import CUDA, pretended_cuda, without_backward
from torch import nn

from nrcg import EMA, ClassValue, GuidedPipeline, ValueGuidance, WeightedSum, adapt, trace
from nrcg.evaluation.extractors import Extractor
from nrcg.evaluation.features import look
from nrcg.evaluation.forward import forward_analysis
from nrcg.guidance import guidance_from, stabilizers
from nrcg.io.images import to_channels, to_float
from nrcg.io.shards import Shard
from nrcg.methods import methods
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import features
from nrcg.models.ddpm import build_scheduler
from nrcg.runtime.preemption import Stop
from nrcg.training import classifier as of_classifiers
from nrcg.training import ddpm as of_ddpms
from nrcg.training.settings import ClassifierTraining, DDPMTraining

LABELS = np.arange(32) % 3
IMAGES = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def waits(monkeypatch):
    without_backward(monkeypatch)
    with pretended_cuda(monkeypatch) as waits:
        yield waits


def weighted() -> ValueGuidance:
    return ValueGuidance(WeightedSum((1.0, ClassValue(make_classifier(), 1)), (-0.5, lambda x: x.mean((1, 2, 3)))), 2.0)


def method(name: str):
    return guidance_from({"method": name}, make_classifier(activation=nn.ReLU), [0, 1], 2.0, "here")


DDIM, DPM = ({"kind": GuidedPipeline, "by": by} for by in (DDIMScheduler, DPMSolverMultistepScheduler))
GUIDED = {
    **{f"method {name}": (lambda name=name: method(name), {}, {}) for name in methods},
    **{f"by {name}": (lambda name=name: make_guidance(on="xt", stabilizer=name), {}, {}) for name in stabilizers},
    "two logits, identity": (lambda: make_guidance(jacobian="identity"), {}, {}),
    "one logit, without the Jacobian": (lambda: make_guidance(n_logits=1, jacobian=False), {}, {}),
    "weighted sum": (weighted, {}, {}),
    "DDIM": (lambda: make_guidance(copies="augment", recur={}), DDIM, {}),
    "DPM-Solver++": (lambda: make_guidance(stabilizer=EMA(0.5), copies="noise"), DPM, {}),
    "class labels": (make_guidance, {"unet": {**TINY_UNET, "num_class_embeds": 3}}, {"class_labels": [0, 1]}),
    "learned variance": (make_guidance, {"unet": {**TINY_UNET, "out_channels": 6}, "variance_type": "learned"}, {}),
    "thresholding": (make_guidance, {"thresholding": True, "prediction_type": "v_prediction"}, {}),
    "one generator": (make_guidance, {}, {"generator": generator()}),
    "unguided": (lambda: None, {}, {}),
    "unguided, DDIM": (lambda: None, DDIM, {}),
}


@pytest.mark.parametrize(("make", "of_pipeline", "how"), GUIDED.values(), ids=GUIDED)
def test_no_step_of_sampling_waits(waits, make, of_pipeline, how):
    pipe, guidance = make_pipeline(**of_pipeline), make()
    pipe.unet.to(CUDA)
    if guidance:
        guidance.value.to(CUDA)
    for steps in (1, 3):  # the first also moves the target to the device
        waits.clear()
        out = draw(pipe, guidance, num_inference_steps=steps, **{"generator": [generator(0), generator(1)], **how})
        assert out.images.device == out.diverged.device == CUDA
    assert len(waits) == ("class_labels" in how), waits


def test_no_step_of_a_trace_waits(waits):
    pipe, guidance = make_pipeline(), make_guidance(stabilizer=EMA(0.5))
    pipe.unet.to(CUDA), guidance.classifier.to(CUDA)
    counts = []
    for steps in (2, 4):
        waits.clear()
        trace(pipe, guidance, batch_size=2, generator=[generator(0), generator(1)], num_inference_steps=steps)
        counts.append(len(waits))
    assert counts[1] <= counts[0], waits


@pytest.mark.parametrize(("on", "n_logits", "channels"), [("xt", 3, 1), ("x0", 1, 3), ("x0", 3, 3)])
def test_no_step_of_the_forward_analysis_waits(waits, on, n_logits, channels):
    pipe, network = make_pipeline(), adapt(make_classifier(n_logits)).to(CUDA)
    pipe.unet.to(CUDA)
    how = {"target": 1, "labels": LABELS[:6], "unet": pipe.unet if on == "x0" else None, "scheduler": pipe.scheduler}
    how |= {"on": on, "setups": {"raw": None, "ema": EMA(0.9)}, "seed": 0, "batch_size": 6, "channels": channels}
    counts = []
    for stride in (20, 20, 10):
        waits.clear()
        forward_analysis(IMAGES[:6], network, stride=stride, **how)
        counts.append(len(waits))
    assert counts[1] == counts[2], waits


IMAGE_SET = SimpleNamespace(images=IMAGES, labels=LABELS, classes=["r", "g", "b"], indices=lambda _: np.arange(32))


@pytest.mark.parametrize("channels", [1, 3])
def test_no_step_of_ddpm_training_waits(waits, monkeypatch, channels):
    network = make_pipeline(unet={**TINY_UNET, "in_channels": channels, "out_channels": channels}).unet.to(CUDA)
    without_backward(monkeypatch, network)
    settings = DDPMTraining(batch_size=4, epochs=1, ema_decay=0.9, precision="fp32")
    arguments = network, IMAGE_SET, build_scheduler({}), settings, 1, CUDA, Path("previews"), 1000, 0, False
    trainer = of_ddpms._Trainer(*arguments)
    for batch in np.split(np.arange(16), 4):
        trainer.train_step(to_channels(to_float(IMAGES[batch], CUDA), channels))
        assert trainer.step == 1 or not waits  # the first moves the noise schedule to the device
        waits.clear()
    trainer._record()
    assert waits == ["value read"]


@pytest.mark.parametrize("robust", [False, True])
def test_no_step_of_classifier_training_waits(waits, monkeypatch, robust):
    network = build_classifier("mobilenet_v3_small", 3).to(CUDA)
    without_backward(monkeypatch, network)
    settings = ClassifierTraining(robust=robust, batch_size=4, channels=1)
    trainer = of_classifiers._Trainer(network, IMAGE_SET, build_scheduler({}), settings, 3, CUDA)
    for batch in np.split(np.arange(16), 4):
        trainer.advance(trainer._backward(batch))
        assert trainer.step == 1 or not waits
        waits.clear()
    trainer._validate(Stop(), noisy=robust)
    assert waits == ["value read"] * 2


def test_scoring_copies_results_once_per_batch(waits, tmp_path):
    network = make_classifier().to(CUDA)
    waits.clear()
    of_judge = network, {"classes": ["r", "g", "b"]}
    extractor = Extractor(36, lambda images: features(network, images), CUDA)
    shard = Shard(tmp_path, IMAGES, range(32), np.zeros(32, bool))
    how = {"extractors": {"judge": extractor}, "out": tmp_path, "batch_size": 16, "device": CUDA}
    found = look([shard], guiding=of_judge, judge=of_judge, **how)
    assert len(found) == 32 and waits == ["(16,) from cuda:0"] * 4 + ["(16, 36) from cuda:0"] * 2


def test_the_pretended_device_notices(waits):
    ours, theirs = torch.ones(3, device=CUDA), torch.ones(3)
    with pytest.raises(RuntimeError, match="two different devices"):
        ours + theirs
    for read in (lambda: ours.sum().item(), lambda: bool(ours.any()), lambda: theirs.to(CUDA), ours.cpu, ours.tolist):
        waits.clear()
        read()
        assert len(waits) == 1
    waits.clear()
    theirs.pin_memory().to(CUDA, non_blocking=True) * torch.tensor(2.0)
    assert not waits and theirs.sum() == 3
