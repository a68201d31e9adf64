"""Out of memory: the batch is halved, the numbers stay, and a single image that is too many is one line."""

from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file

import nrcg.cli
from nrcg import EMA, ClassifierGuidance, GuidedDDPMPipeline
from nrcg.errors import NrcgError
from nrcg.evaluation.extractors import Extractor
from nrcg.evaluation.features import look, reference
from nrcg.evaluation.forward import forward_analysis
from nrcg.io.shards import open_shards
from nrcg.models.architectures import build_classifier
from nrcg.runtime.memory import BatchLimit
from nrcg.sampling import sample_shard
from nrcg.training import classifier as classifier_module
from nrcg.training import ddpm as ddpm_module
from nrcg.training.classifier import train_classifier
from nrcg.training.ddpm import train_ddpm
from nrcg.training.settings import ClassifierTraining, DDPMTraining

CPU = torch.device("cpu")
SCHEDULER = {"num_train_timesteps": 10, "beta_end": 0.2}
CUDA_SAYS = "CUDA out of memory. Tried to allocate 2 GiB.\nAn advice of many lines."
DDPM = DDPMTraining(epochs=3, batch_size=16, warmup_steps=2, precision="fp32", gradient_clip=1e9)  # 12 steps


def limit_memory(network, n):
    """Let the network run out of memory with more than `n` images; the batch sizes that go through, and the hook."""
    sizes = []

    def count(_network, inputs):
        if len(inputs[0]) > n:
            raise torch.OutOfMemoryError(CUDA_SAYS)
        sizes.append(len(inputs[0]))

    return sizes, network.register_forward_pre_hook(count)


@contextmanager
def memory_for(n, network):
    sizes, handle = limit_memory(network, n)
    with handle:
        yield sizes


def halvings(caplog):
    return [line for line in caplog.messages if "out of memory with" in line]


def single_image(what):
    return pytest.raises(NrcgError, match=rf"^{what}: out of memory with a single image; use a device[^\n]*$")


def test_a_batch_is_halved_for_good(caplog):
    seen = []

    def work(batch):
        seen.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return sum(batch)

    batches = list(BatchLimit("testing", 9).each(work, range(7)))
    assert seen == [7, 3, 1, 1, 1, 1, 1, 1, 1] and [total for _, total in batches] == list(range(7))
    assert halvings(caplog) == [
        "testing: out of memory with batches of 7 images; continuing with 3",
        "testing: out of memory with batches of 3 images; continuing with 1",
    ]


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError):
        BatchLimit("testing", 4).attempt(lambda size: size // 0, 4)


def small_pipeline():
    torch.manual_seed(0)
    return GuidedDDPMPipeline(unet=UNet2DModel(**TINY_UNET), scheduler=DDPMScheduler(**SCHEDULER))


def draw(out, pipeline, guidance=None):
    sample_shard(
        out, range(100, 112), pipeline=pipeline, guidance=guidance, num_inference_steps=5, batch_size=12, seed=0,
        provenance={},
    )  # fmt: skip
    return np.load(out)


def test_sampling_draws_the_same_images_in_smaller_batches(tmp_path, caplog):
    pipeline = small_pipeline()
    guidance = ClassifierGuidance(build_classifier("mobilenet_v3_small", 3), 1, 3.0, stabilizer=EMA(0.5))
    whole = draw(tmp_path / "whole.npy", pipeline, guidance)
    with memory_for(3, pipeline.unet) as sizes:
        pieces = draw(tmp_path / "pieces.npy", pipeline, guidance)
    assert sizes == [3] * 5 * 4 and len(halvings(caplog)) == 2
    assert np.abs(whole.astype(int) - pieces).max() <= 1  # one level: 1e-5 may cross a rounding border
    with memory_for(0, pipeline.unet), single_image("sampling"):
        draw(tmp_path / "none.npy", pipeline)
    assert not list(tmp_path.glob("none*"))


def test_forward_analysis_counts_no_image_twice(blob_set, caplog):
    unet, calls = small_pipeline().unet.eval(), []
    torch.manual_seed(1)
    classifier = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.SiLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3)
    )

    def analyse():
        return forward_analysis(
            blob_set.images[:7], classifier, target=1, labels=blob_set.labels[:7], unet=unet, seed=0, batch_size=6,
            scheduler=DDPMScheduler(**SCHEDULER), on="x0", setups={"raw": None, "smooth": EMA(0.5)},
        )  # fmt: skip

    def fail_in_the_middle(_network, inputs):
        calls.append(len(inputs[0]))
        if len(calls) == 5:
            raise torch.OutOfMemoryError(CUDA_SAYS)

    whole = analyse()
    with classifier.register_forward_pre_hook(fail_in_the_middle):
        pieces = analyse()
    assert calls == [6] * 5 + [3] * 2 * 11 + [1] * 11 and len(halvings(caplog)) == 1
    pd.testing.assert_frame_equal(whole, pieces, rtol=1e-4, atol=1e-6)
    with memory_for(0, unet), single_image("forward"):
        analyse()


class Brightest(torch.nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


def test_references_and_what_is_seen_of_samples_are_the_same(blob_set, tmp_path, caplog):
    network, card = Brightest(), {"classes": ["r", "g", "b"]}
    extractor = Extractor(3, network, "cpu")
    draw(tmp_path / "s.npy", small_pipeline())

    def measure():
        found = reference(blob_set.folder, extractor, target=1, batch_size=32)
        both = {"guiding": (network, card), "judge": (network, card), "extractors": {"colour": extractor}}
        verdicts = look(open_shards([tmp_path / "s.npy"]), out=tmp_path, batch_size=8, **both)
        return found, verdicts, np.load(tmp_path / "colour.npy")

    whole = measure()
    with memory_for(2, network) as sizes:
        pieces = measure()
    assert set(sizes) <= {1, 2}
    assert [line.split(":")[0] for line in halvings(caplog)] == ["reference features"] * 4 + ["scoring"] * 2
    for a, b in zip((whole[0].all, whole[0].target), (pieces[0].all, pieces[0].target), strict=True):
        for x, y in zip((*a.statistics.merged(), a.pool), (*b.statistics.merged(), b.pool), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
        assert (a.reach, a.alike) == pytest.approx((b.reach, b.alike))
    pd.testing.assert_frame_equal(whole[1], pieces[1])
    np.testing.assert_allclose(whole[2], pieces[2], rtol=1e-5, atol=1e-6)
    with memory_for(0, network), single_image("reference features"):
        measure()


def train_a_ddpm(data, out):
    options = {"unet": TINY_UNET, "scheduler": SCHEDULER, "settings": DDPM, "checkpoint": out / "c.pt", "device": CPU}
    train_ddpm(data.folder, out, preview_every=12, **options)


def build_with_memory_for(monkeypatch, module, name, n):
    """Networks that `module.name` builds are limited; returns the sizes that go through."""
    original, sizes = getattr(module, name), []

    def build(*arguments):
        network = original(*arguments)
        passed, _ = limit_memory(network, n)
        sizes.append(passed)
        return network

    monkeypatch.setattr(module, name, build)
    return sizes


def test_a_ddpm_trains_on_the_whole_batch_in_pieces(blob_set, tmp_path, caplog, monkeypatch):
    train_a_ddpm(blob_set, tmp_path / "whole")
    sizes = build_with_memory_for(monkeypatch, ddpm_module, "build_unet", 5)
    train_a_ddpm(blob_set, tmp_path / "pieces")
    assert sizes[0][: 12 * 4] == [4] * 48
    assert [line.split(":")[0] for line in halvings(caplog)] == ["DDPM training"] * 2 + ["preview"] * 4
    folders = tmp_path / "whole", tmp_path / "pieces"
    weights = [load_file(folder / "unet/diffusion_pytorch_model.safetensors") for folder in folders]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-4)
    pd.testing.assert_frame_equal(*(pd.read_csv(folder / "log.csv") for folder in folders), rtol=1e-5)
    build_with_memory_for(monkeypatch, ddpm_module, "build_unet", 0)
    with single_image("DDPM training"):
        train_a_ddpm(blob_set, tmp_path / "none")


def test_the_gradient_of_pieces_is_that_of_their_mean(blob_set, tmp_path):
    unet, scheduler = UNet2DModel(**TINY_UNET), DDPMScheduler(**SCHEDULER)
    trainer = ddpm_module._Trainer(unet, blob_set, scheduler, DDPM, 3, CPU, tmp_path, 1000, 0, False)
    torch.manual_seed(0)
    x_t, t, target = torch.randn(7, 3, 8, 8), torch.randint(10, (7,)), torch.randn(7, 3, 8, 8)
    weights = list(unet.parameters())
    expected = ((unet(x_t, t).sample - target) ** 2).mean()
    gradient = torch.autograd.grad(expected, weights)
    for size in (7, 3, 1):
        torch.testing.assert_close(trainer._backward(x_t, t, target, size), expected.detach())
        torch.testing.assert_close(tuple(weight.grad for weight in weights), gradient, rtol=1e-4, atol=1e-6)


def train_a_classifier(data, out):
    settings = ClassifierTraining(max_epochs=1, batch_size=16)
    train_classifier(data.folder, out, scheduler=SCHEDULER, settings=settings, checkpoint=out / "c.pt", device=CPU)
    return load_file(out / "model.safetensors"), pd.read_csv(out / "log.csv")


def test_a_classifier_validates_in_pieces_but_asks_for_a_smaller_batch(blob_set, tmp_path, caplog, monkeypatch):
    whole, whole_log = train_a_classifier(blob_set, tmp_path / "whole")
    build_with_memory_for(monkeypatch, classifier_module, "build_classifier", 16)
    pieces, pieces_log = train_a_classifier(blob_set, tmp_path / "pieces")
    assert halvings(caplog) == ["validation: out of memory with batches of 32 images; continuing with 16"]
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)
    pd.testing.assert_frame_equal(whole_log, pieces_log, rtol=1e-5)
    build_with_memory_for(monkeypatch, classifier_module, "build_classifier", 15)
    with pytest.raises(NrcgError, match=r"^batch_size 16: .*choose a smaller batch_size[^\n]*$"):
        train_a_classifier(blob_set, tmp_path / "none")


def test_a_device_without_room_for_the_networks_is_one_line(monkeypatch, capfd):
    def app():
        raise torch.OutOfMemoryError(CUDA_SAYS)

    monkeypatch.setattr(nrcg.cli, "app", app)
    monkeypatch.setattr("sys.stderr", nrcg.cli.sys.stderr)  # `main` replaces it
    with pytest.raises(SystemExit) as end:
        nrcg.cli.main()
    nrcg.cli.sys.stderr.flush()
    assert end.value.code == 2
    assert capfd.readouterr().err == (
        "error: the networks do not fit in the device's memory (CUDA out of memory. Tried to allocate 2 GiB.); "
        "use another --device\n"
    )
