"""Damaged files and full disks: said in one line, and what is done is kept, or done again."""

import io
import json
import resource
import shutil
import threading
import time
from contextlib import contextmanager, redirect_stderr

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import nrcg.cli
from nrcg import GuidedDDPMPipeline
from nrcg.datasets.imageset import ImageSet
from nrcg.errors import NrcgError, Stopped
from nrcg.evaluation.features import look
from nrcg.io.files import alone, read_sealed, write_sealed
from nrcg.io.shards import open_shards, verify
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import load_classifier, save_classifier
from nrcg.models.ddpm import load_ddpm, save_ddpm
from nrcg.runtime.preemption import Stop
from nrcg.sampling import sample_shard
from nrcg.training import ddpm as ddpm_module
from nrcg.training.classifier import train_classifier
from nrcg.training.ddpm import train_ddpm
from nrcg.training.settings import ClassifierTraining, DDPMTraining

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


def draw(out, pipeline=None, *, start=100, n=12, stop=None):
    """A shard of twelve samples in three batches, or of `n`."""
    sample_shard(
        out, range(start, start + n), pipeline=pipeline or small_pipeline(), guidance=None, num_inference_steps=5,
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
    with pytest.raises(NrcgError, match="none: no such file"):
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
def test_a_damaged_batch_is_drawn_again(tmp_path, caplog, damage):
    whole = draw(tmp_path / "whole.npy")
    with pytest.raises(Stopped):
        draw(tmp_path / "cut.npy", stop=StopAt(11))
    damage(next(tmp_path.glob("cut.unfinished/*/104.batch")))
    assert np.array_equal(draw(tmp_path / "cut.npy"), whole)
    assert len([line for line in caplog.messages if "104.batch: damaged" in line and "drawn again" in line]) == 1


class Brightest(torch.nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


def verdicts_of_colours(shards):
    verify(shards)
    judged = Brightest(), CARD
    return look(open_shards(shards), guiding=judged, judge=judged, extractors={}, out=shards[0].parent)


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
    before = verdicts_of_colours(shards)
    damage(shards[0].with_suffix(kind))
    wanted = {".npy": r"^remove .*/a\.npy and a\.json: ", ".json": r"/a\.json: not .*; repair it, or delete it"}[kind]
    with pytest.raises(NrcgError, match=wanted) as error:
        verdicts_of_colours(shards)
    assert "\n" not in str(error.value) and "b.npy" not in str(error.value)
    assert files_in(tmp_path) == ["a.json", "a.npy", "b.json", "b.npy"]
    assert np.array_equal(draw(shards[0]), whole)
    pd.testing.assert_frame_equal(verdicts_of_colours(shards), before)


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
    with pytest.raises(NrcgError, match=rf"^[^\n]*{name}: cannot be written \({reason}\); free some space[^\n]*$"):
        yield


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_ddpm_is_saved_as_diffusers_does_and_whole_or_not_at_all(tmp_path):
    pipeline = small_pipeline()
    pipeline = DDPMPipeline(unet=pipeline.unet, scheduler=pipeline.scheduler)
    pipeline.save_pretrained(tmp_path / "theirs")
    save_ddpm(tmp_path / "ours", pipeline.unet, pipeline.scheduler, {})
    (tmp_path / "ours/card.json").unlink()
    content = {name: (tmp_path / "theirs" / name).read_bytes() for name in files_in(tmp_path / "theirs")}
    assert content == {name: (tmp_path / "ours" / name).read_bytes() for name in files_in(tmp_path / "ours")}
    torch.nn.init.zeros_(pipeline.unet.conv_in.weight)
    for folder, left in [("ours", content), ("new", {})]:
        with files_of_at_most(20_000), cannot_be_written(r"model\.safetensors", "File too large"):
            save_ddpm(tmp_path / folder, pipeline.unet, pipeline.scheduler, {})
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


def test_sampling_with_a_full_disk_keeps_its_batches(tmp_path):
    whole = draw(tmp_path / "whole.npy", n=24)
    with files_of_at_most(4000), cannot_be_written(r"cut\.npy", "File too large"):  # a batch has 2.5 kB, the shard 4.7
        draw(tmp_path / "cut.npy", n=24)
    assert len(list(tmp_path.glob("cut.unfinished/*/*.batch"))) == 6 and not list(tmp_path.glob("cut.[nj]*"))
    assert np.array_equal(draw(tmp_path / "cut.npy", n=24), whole)
    with files_of_at_most(500), cannot_be_written(r"100\.batch", "File too large"):
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
    options += ["--on", "xt", "--setups", '{"raw": null}', "--images", 2, "--target", "r", "--device", "cpu"]
    words = ["measure", "forward", "--out", tmp_path / "file" / "t.csv", *options]
    result = CliRunner().invoke(nrcg.cli.app, [*map(str, words)])
    with cannot_be_written(r"/file/t\..*", "(Not a directory|File exists)"):
        raise result.exception


# A finished training


def content(folder):
    return {name: (folder / name).read_bytes() for name in files_in(folder) if not name.startswith("c.pt")}


@pytest.mark.parametrize("train", [train_a_ddpm, train_a_classifier])
def test_a_finished_training_writes_its_files_again_byte_for_byte(blob_set, tmp_path, train, monkeypatch):
    train(blob_set, tmp_path / "out", checkpoint=tmp_path / "c.pt")
    before = content(tmp_path / "out")
    assert {"card.json", "log.csv"} < set(before) and files_in(tmp_path)[0] == "c.pt" and len(files_in(tmp_path)) > 3
    assert (tmp_path / "c.pt").stat().st_size < 1.2 * max(map(len, before.values())) + 50_000  # no optimiser
    for name in before:
        (tmp_path / "out" / name).unlink()

    def no_step(*_, **__):
        raise AssertionError("a step was taken")

    monkeypatch.setattr(torch.optim.AdamW, "step", no_step)
    train(blob_set, tmp_path / "out", checkpoint=tmp_path / "c.pt")
    assert content(tmp_path / "out") == before


def test_other_settings_train_anew_although_a_checkpoint_is_done(blob_set, tmp_path):
    train_a_classifier(blob_set, tmp_path / "a", checkpoint=tmp_path / "c.pt")
    train_a_classifier(
        blob_set, tmp_path / "b", checkpoint=tmp_path / "c.pt", settings=ClassifierTraining(max_epochs=1, batch_size=32)
    )
    assert content(tmp_path / "a") != content(tmp_path / "b")


def test_a_full_disk_at_the_very_end_costs_seconds(blob_set, tmp_path, monkeypatch):
    """The weights' disk fills up, the checkpoint's does not."""
    full = NrcgError("model.safetensors: cannot be written (No space left on device); free some space")
    with monkeypatch.context() as patch:
        patch.setattr("nrcg.training.classifier.save_classifier", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(NrcgError, match="No space left"):
            train_a_classifier(blob_set, tmp_path / "out", checkpoint=tmp_path / "c.pt")
    monkeypatch.setattr(torch.optim.AdamW, "step", None)
    train_a_classifier(blob_set, tmp_path / "out", checkpoint=tmp_path / "c.pt")
    assert files_in(tmp_path / "out") == ["card.json", "log.csv", "model.safetensors"]


def test_two_trainings_never_share_a_checkpoint(blob_set, tmp_path):
    with (
        alone(tmp_path / "c.pt.lock", lambda _: None),
        pytest.raises(Stopped),
    ):
        train_a_classifier(blob_set, tmp_path / "out", checkpoint=tmp_path / "c.pt", stop=StopAt(1))
    assert not (tmp_path / "out").exists()


def test_averaged_weights_are_a_copy(blob_set, tmp_path):
    network, scheduler = small_pipeline().unet.train(), DDPMScheduler(**SCHEDULER)
    trainer = ddpm_module._Trainer(network, blob_set, scheduler, DDPM, 3, CPU, tmp_path, 1000, 0, False)
    for _ in range(3):
        trainer.train_step(torch.zeros(16, 3, 8, 8))
    before, averaged = {name: tensor.clone() for name, tensor in network.state_dict().items()}, trainer.averaged()
    assert not averaged.training and network.training
    assert not all(torch.equal(tensor, before[name]) for name, tensor in averaged.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# Digests


@pytest.mark.parametrize("name", ["images", "labels", "split"])
def test_an_image_set_that_is_not_its_cards_is_refused(blob_set, tmp_path, name):
    shutil.copytree(blob_set.folder, tmp_path / "set")
    array = np.load(tmp_path / f"set/{name}.npy")
    np.save(tmp_path / f"set/{name}.npy", np.roll(array, 1, axis=0))
    for work in (
        lambda: train_a_classifier(ImageSet.open(tmp_path / "set", verify=False), tmp_path / "c"),
        lambda: train_a_ddpm(ImageSet.open(tmp_path / "set", verify=False), tmp_path / "d"),
        lambda: ImageSet.open(tmp_path / "set"),
    ):
        with pytest.raises(NrcgError, match=r"the SHA-256 of the arrays differs from that in card\.json"):
            work()
    assert np.array_equal(np.load(tmp_path / f"set/{name}.npy"), np.roll(array, 1, axis=0))  # nothing is removed


@pytest.mark.parametrize("change", ["null", "{}", '{"classes": null}', '{"n": "96"}', '{"classes": [1, 2, 3]}'])
def test_cards_of_image_sets_that_are_none_are_one_line(blob_set, tmp_path, change):
    shutil.copytree(blob_set.folder, tmp_path / "set")
    change = json.loads(change)
    (tmp_path / "set/card.json").write_text(json.dumps({**blob_set.card, **change} if change else change))
    with pytest.raises(NrcgError, match=r"^[^\n]*card\.json: [^\n]*$"):
        ImageSet.open(tmp_path / "set")


def test_weights_that_are_not_their_cards_are_refused(tmp_path):
    torch.manual_seed(0)
    model = build_classifier("mobilenet_v3_small", 3)
    save_classifier(tmp_path / "c", model, {**CARD, "architecture": "mobilenet_v3_small"})
    load_classifier(tmp_path / "c")
    torch.nn.init.zeros_(model.classifier[3].weight)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, tmp_path / "c/model.safetensors")
    with pytest.raises(NrcgError, match=r"model\.safetensors: its SHA-256 differs from that in .*card\.json"):
        load_classifier(tmp_path / "c")
    pipeline = small_pipeline()
    pipeline.save_pretrained(tmp_path / "d")
    load_ddpm(tmp_path / "d")  # without a card
    save_ddpm(tmp_path / "d", pipeline.unet, pipeline.scheduler, {})
    load_ddpm(tmp_path / "d")
    torch.nn.init.zeros_(pipeline.unet.conv_in.weight)
    pipeline.save_pretrained(tmp_path / "d")
    with pytest.raises(NrcgError, match=r"pytorch_model\.safetensors: its SHA-256 differs from that in .*card\.json"):
        load_ddpm(tmp_path / "d")


@pytest.mark.parametrize(
    "card",
    [None, [], {}, {**CARD}, {**CARD, "n_logits": "3"}, {**CARD, "n_logits": 4}, {**CARD, "classes": "rgb"}],
)
def test_cards_of_classifiers_that_are_none_are_one_line(tmp_path, card):
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(NrcgError, match=r"^[^\n]*$"):
        load_classifier(tmp_path)


def test_a_ddpm_with_weights_as_a_pickle_alone_names_the_way_out(tmp_path):
    pipeline = small_pipeline()
    DDPMPipeline(unet=pipeline.unet, scheduler=pipeline.scheduler).save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(NrcgError, match="nrcg get ddpm"):
        load_ddpm(tmp_path)


@pytest.mark.parametrize("change", [{"beta_schedule": "foo"}, {"num_train_timesteps": 0}, {"trained_betas": [0.1]}])
def test_a_scheduler_of_another_kind_is_one_line(tmp_path, change):
    pipeline = small_pipeline()
    save_ddpm(tmp_path, pipeline.unet, pipeline.scheduler, {})
    place = tmp_path / "scheduler/scheduler_config.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **change}))
    with pytest.raises(
        NrcgError, match=f"^[^\n]*cannot be read as a DDPM's scheduler [^\n]*{next(iter(change))}[^\n]*$"
    ):
        load_ddpm(tmp_path)


def test_images_and_unet_of_different_sizes_are_refused(blob_set, tmp_path):
    with pytest.raises(NrcgError, match=r"sample_size 16, but the images of .* are 8 pixels wide"):
        train_a_ddpm(blob_set, tmp_path, unet={**TINY_UNET, "sample_size": 16})


# Two writers


def test_a_second_writer_of_a_shard_waits_and_finds_it(tmp_path, caplog):
    caplog.set_level("INFO", logger="nrcg")
    whole = draw(tmp_path / "whole.npy")
    first_may_end, results = threading.Event(), {}

    def first():
        pipeline = small_pipeline()
        pipeline.unet.register_forward_hook(lambda *_: first_may_end.wait(60) and None)
        results["first"] = draw(tmp_path / "s.npy", pipeline)

    thread = threading.Thread(target=first)
    thread.start()
    while not (tmp_path / "s.unfinished/lock").exists():
        time.sleep(0.01)
    threading.Timer(0.5, first_may_end.set).start()
    pipeline, passes = small_pipeline(), []
    pipeline.unet.register_forward_hook(lambda *_: passes.append(0))
    second = draw(tmp_path / "s.npy", pipeline)
    thread.join()
    assert np.array_equal(second, whole) and np.array_equal(results["first"], whole) and not passes
    assert any("waiting for another process" in line for line in caplog.messages)
    assert files_in(tmp_path) == ["s.json", "s.npy", "whole.json", "whole.npy"]
