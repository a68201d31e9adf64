"""Damaged files and full disks: said in one line, and what is done is kept, or done again."""

import io
import resource
from contextlib import contextmanager, redirect_stderr

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file
from typer.testing import CliRunner

import nrcg.cli
from nrcg import GuidedDDPMPipeline
from nrcg.errors import NrcgError, Stopped
from nrcg.files import read_sealed, write_sealed
from nrcg.metrics.score import score
from nrcg.models.classifier import build_classifier, save_classifier
from nrcg.models.ddpm import save_ddpm
from nrcg.preemption import Stop
from nrcg.sampling import sample_shard
from nrcg.training.classifier import ClassifierTraining, train_classifier
from nrcg.training.ddpm import DDPMTraining, train_ddpm

CPU = torch.device("cpu")
SCHEDULER = {"num_train_timesteps": 10, "beta_end": 0.2}
DDPM = DDPMTraining(epochs=3, batch_size=16, warmup_steps=2, precision="fp32", ema_decay=0.9)  # 12 steps
CLASSIFIER = ClassifierTraining(max_epochs=3, batch_size=16, warmup_steps=2)  # 4 steps an epoch
CARD = {"architecture": "none", "classes": ["r", "g", "b"], "n_logits": 3}


class StopAt(Stop):
    """Asks to stop at the n-th look."""

    def __init__(self, n):
        super().__init__()
        self.n = n

    def check(self):
        self.n -= 1
        self.reason = self.reason or ("test" if self.n <= 0 else "")
        super().check()


def train_a_ddpm(data, out, *, settings=DDPM, **changes):
    options = {"unet": TINY_UNET, "scheduler": SCHEDULER, "settings": settings, "device": CPU}
    train_ddpm(data.folder, out, **{**options, "checkpoint": out / "c.pt", **changes})


def train_a_classifier(data, out, **changes):
    options = {"scheduler": SCHEDULER, "settings": CLASSIFIER, "checkpoint": out / "c.pt", "device": CPU}
    train_classifier(data.folder, out, **{**options, **changes})


def same_weights(a, b, name="unet/diffusion_pytorch_model.safetensors"):
    a, b = load_file(a / name), load_file(b / name)
    return all(torch.equal(a[key], b[key]) for key in a)


def same_bytes(folder, name):
    return (folder / "whole" / name).read_bytes() == (folder / "cut" / name).read_bytes()


def small_pipeline():
    torch.manual_seed(0)
    return GuidedDDPMPipeline(unet=UNet2DModel(**TINY_UNET), scheduler=DDPMScheduler(**SCHEDULER))


def draw(out, pipeline=None, *, start=100, stop=None):
    """A shard of twelve samples in three batches."""
    sample_shard(
        out, range(start, start + 12), pipeline=pipeline or small_pipeline(), guidance=None, num_inference_steps=5,
        batch_size=4, seed=0, provenance={}, stop=stop,
    )  # fmt: skip
    return np.load(out)


# Damage


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def overwrite(path):
    path.write_bytes(b"\xff" * 100)


DAMAGES = pytest.mark.parametrize("damage", [alter, truncate, empty])


@DAMAGES
def test_sealed_files_show_any_damage(tmp_path, damage):
    path = tmp_path / "file"
    write_sealed(path, lambda file: file.write(b"content of some length"))
    assert read_sealed(path).read() == b"content of some length"
    damage(path)
    with pytest.raises(NrcgError, match=r"file: damaged"):
        read_sealed(path)
    with pytest.raises(NrcgError, match=r"none: cannot be read \(No such file"):
        read_sealed(tmp_path / "none")


@pytest.mark.parametrize(("damaged", "goes_on_from"), [(["c.pt"], 6), (["c.pt", "c.pt.before"], 0)])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(blob_set, tmp_path, caplog, damaged, goes_on_from):
    caplog.set_level("INFO", logger="nrcg")
    train_a_ddpm(blob_set, tmp_path / "whole")
    cut = tmp_path / "cut"
    with pytest.raises(Stopped):
        train_a_ddpm(blob_set, cut, checkpoint_every=3, stop=StopAt(8))
    assert torch.load(read_sealed(cut / "c.pt"), weights_only=True)["step"] == 8
    for name in damaged:
        alter(cut / name)
    train_a_ddpm(blob_set, cut, checkpoint_every=3)
    lines = [line for line in caplog.messages if "damaged" in line]
    assert len(lines) == len(damaged) and all(name in line for name, line in zip(damaged, lines, strict=True))
    assert ("continuing from step 6 of 12" in caplog.messages) == (goes_on_from == 6)
    assert same_weights(tmp_path / "whole", cut)
    assert files_in(cut)[:2] == ["c.pt", "card.json"]  # done: nothing before it is needed


@DAMAGES
def test_a_damaged_part_is_drawn_again(tmp_path, caplog, damage):
    whole = draw(tmp_path / "whole.npy")
    with pytest.raises(Stopped):
        draw(tmp_path / "cut.npy", stop=StopAt(11))
    damage(next(tmp_path.glob("cut.parts/*/104.part")))
    assert np.array_equal(draw(tmp_path / "cut.npy"), whole)
    assert len([line for line in caplog.messages if "104.part: damaged" in line and "drawn again" in line]) == 1


class Brightest(torch.nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


def score_colours(shards, **changes):
    judged = Brightest(), CARD
    return score(shards, **{"target": 0, "guiding": judged, "judge": judged, "references": {}, **changes})


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        (".npy", alter),
        (".npy", truncate),
        (".npy", empty),
        (".json", empty),
        (".json", lambda card: card.write_bytes(b"\xff")),
        (".json", lambda card: card.write_text(card.read_text().replace("}", ",}"))),
    ],
)
def test_a_damaged_shard_is_refused_and_nothing_removed(tmp_path, kind, damage):
    shards = [tmp_path / "a.npy", tmp_path / "b.npy"]
    whole = draw(shards[0])
    draw(shards[1], start=200)
    before = score_colours(shards).verdicts
    damage(shards[0].with_suffix(kind))
    wanted = {".npy": r"^remove .*/a\.npy and a\.json: ", ".json": r"/a\.json: not .*; mend it, or delete it"}[kind]
    with pytest.raises(NrcgError, match=wanted) as error:
        score_colours(shards)
    assert "\n" not in str(error.value) and "b.npy" not in str(error.value)
    assert files_in(tmp_path) == ["a.json", "a.npy", "b.json", "b.npy"]
    assert np.array_equal(draw(shards[0]), whole)
    pd.testing.assert_frame_equal(score_colours(shards).verdicts, before)


# Full disks, and places that cannot be written


@contextmanager
def files_of_at_most(n):
    """The kernel lets no file grow beyond `n` bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, hard))
    try:
        with redirect_stderr(io.StringIO()):  # pytest keeps what is said in a file, too
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def cannot_be_written(name, reason):
    """One line with the file, the reason and the way out."""
    with pytest.raises(NrcgError, match=rf"^[^\n]*{name}: cannot be written \({reason}\); make room[^\n]*$"):
        yield


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_ddpm_is_saved_as_diffusers_does_and_whole_or_not_at_all(tmp_path):
    pipeline = small_pipeline()
    pipeline = DDPMPipeline(unet=pipeline.unet, scheduler=pipeline.scheduler)
    pipeline.save_pretrained(tmp_path / "theirs")
    save_ddpm(tmp_path / "ours", pipeline.unet, pipeline.scheduler)
    content = {name: (tmp_path / "theirs" / name).read_bytes() for name in files_in(tmp_path / "theirs")}
    assert content == {name: (tmp_path / "ours" / name).read_bytes() for name in files_in(tmp_path / "ours")}
    torch.nn.init.zeros_(pipeline.unet.conv_in.weight)
    for folder, left in [("ours", content), ("new", {})]:
        with files_of_at_most(20_000), cannot_be_written(r"model\.safetensors", "File too large"):
            save_ddpm(tmp_path / folder, pipeline.unet, pipeline.scheduler)
        assert {name: (tmp_path / folder / name).read_bytes() for name in files_in(tmp_path / folder)} == left


@pytest.mark.parametrize(
    ("train", "name"),
    [(train_a_ddpm, "diffusion_pytorch_model.safetensors"), (train_a_classifier, "model.safetensors")],
)
def test_a_training_whose_disk_is_full_keeps_its_last_checkpoint(blob_set, tmp_path, train, name):
    whole, cut, changes = tmp_path / "whole", tmp_path / "cut", {"checkpoint_every": 3} if train is train_a_ddpm else {}
    train(blob_set, whole, **changes)
    with pytest.raises(Stopped):
        train(blob_set, cut, stop=StopAt(8), **changes)
    with files_of_at_most(20_000), cannot_be_written(r"c\.pt", "File too large"):
        train(blob_set, cut, **changes)
    assert files_in(cut) == ["c.pt.before"]
    train(blob_set, cut, **changes)
    assert files_in(whole) == files_in(cut)
    (place,) = whole.rglob("*.safetensors")
    assert same_weights(whole, cut, place.relative_to(whole))


def test_sampling_with_a_full_disk_keeps_its_parts(tmp_path):
    whole = draw(tmp_path / "whole.npy")
    with files_of_at_most(1500), cannot_be_written(r"cut\.npy", "File too large"):  # a part has 1.3 kB, the shard 2.4
        draw(tmp_path / "cut.npy")
    assert len(list(tmp_path.glob("cut.parts/*/*.part"))) == 3 and not list(tmp_path.glob("cut.[nj]*"))
    assert np.array_equal(draw(tmp_path / "cut.npy"), whole)
    with files_of_at_most(500), cannot_be_written(r"100\.part", "File too large"):
        draw(tmp_path / "none.npy")


def test_places_that_cannot_be_written_are_one_line(blob_set, tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    for work in (
        lambda: train_a_ddpm(blob_set, file, checkpoint=tmp_path / "c.pt"),
        lambda: train_a_classifier(blob_set, file, checkpoint=tmp_path / "c.pt"),
        lambda: train_a_ddpm(blob_set, tmp_path, checkpoint=file / "c.pt", checkpoint_every=1),
        lambda: draw(file / "s.npy"),
    ):
        with cannot_be_written(r"/file/.*", r"(Not a directory|File exists)"):
            work()


def test_tables_that_cannot_be_written_are_one_line(blob_set, tmp_path):
    small_pipeline().save_pretrained(tmp_path / "ddpm")
    card = {**CARD, "architecture": "mobilenet_v3_small"}
    save_classifier(tmp_path / "classifier", build_classifier("mobilenet_v3_small", 3), card)
    (tmp_path / "file").write_text("no folder")
    options = ["--ddpm", tmp_path / "ddpm", "--classifier", tmp_path / "classifier", "--data", blob_set.folder]
    options += ["--setup", "raw=none", "--images", 2, "--target", "r", "--device", "cpu"]
    result = CliRunner().invoke(nrcg.cli.app, ["forward", *map(str, ["--out", tmp_path / "file" / "t.csv", *options])])
    with cannot_be_written(r"/file/t\.parts/.*", "(Not a directory|File exists)"):
        raise result.exception
