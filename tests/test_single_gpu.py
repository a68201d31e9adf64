"""A run in pieces, each in a fresh folder as on a new machine, with nothing but the packed parts between them."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from environment_yml import ROOT
from safetensors.torch import load_file
from typer.testing import CliRunner

import nrcg.cli
from benchmarks import single_gpu
from benchmarks.parts import pack, read_manifest
from benchmarks.single_gpu import Run, run_until
from nrcg.errors import NrcgError
from nrcg.models.classifier import build_classifier, load_classifier, save_classifier
from nrcg.models.ddpm import build_scheduler, build_unet, load_ddpm, save_ddpm
from nrcg.plan import read_dry_run
from nrcg.preemption import Stop

HOME = Path("results/test/sportballs")
SHARD = HOME / "samples/nonrobust_x0/scale_1/shard_000"
MODELS = {"train_ddpm": HOME / "ddpm", "train_nonrobust": HOME / "classifiers/nonrobust"}  # by the name of their log
WEIGHTS = {"train_ddpm": "unet/diffusion_pytorch_model.safetensors", "train_nonrobust": "model.safetensors"}
RULES = ["sportballs", "train_ddpm", "train_classifier", "sample"]  # in an order that they can run in
CONFIGS = ["config/test.yaml", "config/short.yaml"]
SHORT = {
    "run_datasets": ["sportballs"],
    "datasets": {
        "sportballs": {
            "ddpm": {"training": {"epochs": 8}},  # 64 steps
            "classifiers": {"nonrobust": {"batch_size": 4}},  # 64 steps
            "showcase": {"setup": "nonrobust_x0", "scale": 1},
        }
    },
}


def machine(folder):
    """A folder with the project in it and no results."""
    folder.mkdir()
    for name in ("Snakefile", "workflow", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "config", folder / "config")
    scales = yaml.safe_load((ROOT / "config/test.yaml").read_text())["datasets"]["sportballs"]["scales"]
    SHORT["datasets"]["sportballs"]["scales"] = {name: [1] if name == "nonrobust_x0" else [] for name in scales}
    (folder / "config/short.yaml").write_text(yaml.safe_dump(SHORT))
    return folder


def driver(folder, packed, minutes=5):
    """The driver at work in `folder`; its output goes to the file `output` there."""
    words = ["-m", "benchmarks", "single-gpu", f"{SHARD}.json", "--parts", packed, "--minutes", str(minutes)]
    words += ["--cores", "1", "--configfile", *CONFIGS]
    with (folder / "output").open("w") as out:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen([sys.executable, *words], cwd=folder, env=environment, stdout=out, stderr=out)


def in_one_go(folder, monkeypatch):
    """The jobs of a dry run in `folder`, one after the other in this process."""
    words = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--configfile", *CONFIGS, "--", f"{SHARD}.json"]
    text = subprocess.run(words, cwd=folder, capture_output=True, text=True).stdout
    monkeypatch.chdir(folder)
    for job in sorted(read_dry_run(text, "test"), key=lambda job: RULES.index(job.rule)):
        verb = shlex.split(job.command.partition(" 2>&1")[0])[1:]
        assert CliRunner().invoke(nrcg.cli.app, verb).exit_code == 0, job.command


def last_line(folder):
    return (folder / "output").read_text().splitlines()[-1]


def progress(log):
    """Steps that a training's log tells of; 0 before its first."""
    return max((int(step) for step in re.findall(r" (\d+)/\d+ \[", log.read_text())), default=0) if log.exists() else 0


def stop_in_second_training(folder, process):
    """Ask the driver to stop once one model is trained and the other has begun; the one that is trained."""
    logs = {name: folder / f"results/test/logs/sportballs/{name}.log" for name in MODELS}
    while True:
        assert process.poll() is None, (folder / "output").read_text()[-5000:]
        for first, second in (list(MODELS), list(MODELS)[::-1]):
            if (folder / MODELS[first] / "card.json").exists() and progress(logs[second]):
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=120) == 75
                return first
        time.sleep(0.02)


def weights(folder, name):
    return (folder / MODELS[name] / WEIGHTS[name]).read_bytes()


def test_pieces_on_new_machines_end_with_the_bytes_of_one_run(tmp_path, monkeypatch):
    packed, places = tmp_path / "parts", [machine(tmp_path / f"machine{i}") for i in range(3)]
    trained = stop_in_second_training(places[0], driver(places[0], packed))
    assert re.search(r"left: .*1 train_.*go on with: python -m benchmarks single-gpu ", last_line(places[0]))
    log = (tmp_path / "machine0/results/test/logs/sportballs/" / f"{trained}.log").read_bytes()

    assert driver(places[1], packed).wait(timeout=240) == 0, (places[1] / "output").read_text()[-5000:]
    text = (places[1] / "output").read_text()
    assert last_line(places[1]) == "done: 4 jobs; left: nothing" and "continuing from step" in text
    assert (places[1] / f"results/test/logs/sportballs/{trained}.log").read_bytes() == log  # not trained again

    assert driver(places[2], packed).wait(timeout=120) == 0
    assert last_line(places[2]) == last_line(places[1])
    assert not (places[2] / HOME / "data").exists()  # nothing needed it
    assert not any("checkpoints" in path or "/data/" in path for path in read_manifest(packed)["files"])

    whole = machine(tmp_path / "whole")
    in_one_go(whole, monkeypatch)
    for name in MODELS:
        assert weights(places[2], name) == weights(whole, name)
    cards = [json.loads((folder / f"{SHARD}.json").read_text()) for folder in (places[2], whole)]
    assert cards[0]["sha256"] == cards[1]["sha256"]


# The group of processes


def run_of(root):
    return Run("r", root, [], 1, [])


def test_a_group_is_asked_first_and_killed_after_the_grace(tmp_path):
    script = "trap 'touch asked' TERM; (trap '' TERM; sleep 60; touch left) & while true; do sleep 0.05; done"
    started = time.monotonic()
    status = run_until(["bash", "-c", script], tmp_path, started + 0.5, Stop(), grace=0.5)
    assert status == -signal.SIGKILL and (tmp_path / "asked").exists()
    assert 1 <= time.monotonic() - started < 20


def test_a_group_that_ends_in_time_is_left_alone(tmp_path):
    far = time.monotonic() + 60
    assert run_until(["bash", "-c", "exit 3"], tmp_path, far, Stop()) == 3
    kept = "trap 'exit 75' TERM; while true; do sleep 0.05; done"
    assert run_until(["bash", "-c", kept], tmp_path, time.monotonic() + 0.5, Stop()) == 75
    assert run_until(["bash", "-c", "sleep 60"], tmp_path, far, Stop("SIGTERM")) == -signal.SIGTERM


@pytest.mark.parametrize("before", [False, True])
def test_only_a_lock_of_its_own_is_removed(tmp_path, monkeypatch, before):
    lock = tmp_path / ".snakemake/locks/0.input.lock"
    lock.parent.mkdir(parents=True)
    if before:
        lock.write_text("another's\n")
    calls = []
    monkeypatch.setattr(single_gpu, "run_until", lambda *_: -signal.SIGKILL)
    monkeypatch.setattr(single_gpu.subprocess, "run", lambda words, **_: calls.append(words))
    single_gpu.snakemake(run_of(tmp_path), [], time.monotonic() + 60, Stop())
    assert [("--unlock" in words) for words in calls] == ([] if before else [True])


# What is packed, and what is refused


def test_a_damaged_part_is_one_line_and_status_2(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(machine(tmp_path / "machine"))
    Path("config/r.yaml").write_text("run: r\n")
    (tmp_path / "file").write_text("content")
    (part,) = pack(tmp_path / "parts", tmp_path, ["file"], {})
    (tmp_path / "parts" / part).write_text("?")
    words = ["--parts", str(tmp_path / "parts"), "--configfile", "config/r.yaml"]
    manifest = (tmp_path / "parts/manifest.json").read_text()
    (tmp_path / "parts/manifest.json").write_text(manifest.replace('"file"', '"results/r/file"'))
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        single_gpu.main(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line.startswith(f"error: {tmp_path / 'parts' / part}: damaged")
    assert not Path("results").exists()


def test_what_is_packed(tmp_path):
    """Not the images, spare checkpoints, long logs, temporary files, other runs, nor what Snakemake knows of these."""
    record = ".snakemake/metadata/cmVzdWx0cy9yL3gvc2NvcmVzLmNzdg=="  # results/r/x/scores.csv, in base64
    cut = ".snakemake/incomplete/@cmVzdWx0cy9y/L3gvc2NvcmVzLmNzdg=="
    other = ".snakemake/metadata/cmVzdWx0cy9vdGhlci94"  # results/other/x
    wanted = {
        "results/r/x/ddpm/card.json",
        "results/r/checkpoints/x/ddpm.pt",
        "results/r/logs/x/short.log",
        record,
        cut,
    }
    unwanted = {"results/r/x/data/images.npy", "results/r/checkpoints/x/ddpm.pt.before", "results/r/logs/x/long.log"}
    unwanted |= {"results/other/x", "results/r/x/.card.json.tmp", other, ".snakemake/log/x.log"}
    for path in wanted | unwanted:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x" * (2 << 20 if "long" in path else 1))
    assert set(run_of(tmp_path).files()) == wanted


def test_other_images_than_the_recorded_ones_are_refused(tmp_path):
    card = tmp_path / "results/r/sportballs/data/card.json"
    card.parent.mkdir(parents=True)
    card.write_text('{"digest": "abc"}')
    run = run_of(tmp_path)
    recorded = run.image_sets()
    time_ns = card.stat().st_mtime_ns
    os.utime(card)
    run.adopt(recorded)
    assert card.stat().st_mtime_ns == time_ns
    card.write_text('{"digest": "abd"}')
    with pytest.raises(NrcgError, match="not the images that the packed files were made from"):
        run.adopt(recorded)


# The config, and what is exported


def test_the_config_is_a_part_of_the_papers_grid_at_the_papers_size():
    whole = yaml.safe_load((ROOT / "config/config.yaml").read_text())["datasets"]["sportballs"]
    overlay = yaml.safe_load((ROOT / "config/single_gpu.yaml").read_text())["datasets"]["sportballs"]
    assert not {"images", "scheduler", "target", "objective", "weights"} & overlay.keys()
    assert "unet" not in overlay["ddpm"] and "num_inference_steps" not in overlay["sampling"]
    assert overlay["scales"].keys() == whole["scales"].keys()
    for name, scales in overlay["scales"].items():
        assert len(scales) >= 3 and set(scales) < set(whole["scales"][name])
    assert whole["showcase"]["scale"] in overlay["scales"][whole["showcase"]["setup"]]


def test_exported_networks_load_as_float32_of_half_the_size(tmp_path):
    test = yaml.safe_load((ROOT / "config/test.yaml").read_text())["datasets"]["sportballs"]
    home, out = tmp_path / "home", tmp_path / "out"
    torch.manual_seed(0)
    unet = build_unet(test["ddpm"]["unet"])
    save_ddpm(home / "ddpm", unet, build_scheduler(test["scheduler"]))
    for name in ("nonrobust", "robust", "judge"):
        kind = "resnet18_judge" if name == "judge" else "mobilenet_v3_small"
        card = {"architecture": kind, "classes": ["a", "b", "c"], "n_logits": 3}
        save_classifier(home / "classifiers" / name, build_classifier(kind, 3), card)
    for folder in (home / "ddpm", *(home / "classifiers").iterdir()):
        (folder / "log.csv").write_text("step\n1\n")
    with pytest.raises(NrcgError, match=r"ddpm/card\.json: no such file; not trained yet"):
        single_gpu.export(home, out)
    assert not out.exists()
    (home / "ddpm/card.json").write_text('{"steps": 7}')
    single_gpu.export(home, out)

    loaded, scheduler = load_ddpm(out)
    assert scheduler.config.prediction_type == "v_prediction"
    assert json.loads((out / "card.json").read_text())["steps"] == 7
    for name, tensor in unet.state_dict().items():
        wanted = tensor.half().float() if tensor.ndim > 1 else tensor
        assert loaded.state_dict()[name].dtype == torch.float32 and torch.equal(loaded.state_dict()[name], wanted)
    judge, card = load_classifier(out / "classifiers/judge")
    first = load_file(home / "classifiers/judge/model.safetensors")
    torch.testing.assert_close(judge.state_dict(), first, atol=2**-25, rtol=2**-11)  # float16's rounding
    assert all(tensor.dtype == first[name].dtype for name, tensor in judge.state_dict().items())
    assert card["classes"] == ["a", "b", "c"] and card["weights"].startswith("float16, rounded from the weights with")
    sizes = [(folder / "classifiers/judge/model.safetensors").stat().st_size for folder in (out, home)]
    assert sizes[0] < 0.51 * sizes[1]
