"""The benchmarks measure what they say: both ways do the same work, and rows are right. No time is asserted."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as command
from benchmarks import forward, frechet, sampling, score_memory, sportballs, training
from benchmarks.measure import (
    COMPILED,
    FLOOR,
    OURS,
    PLAIN,
    Seconds,
    Settings,
    Work,
    alternate,
    cells,
    measure,
    seconds_of,
)
from benchmarks.networks import ROOT, Networks, passes, section
from nrcg.models.ddpm import build_unet
from nrcg.rng import keyed_generator

CPU = torch.device("cpu")
AMOUNT = {"batch": 3, "steps": 6, "precision": "fp32"}


@pytest.fixture(params=["epsilon", "v_prediction"])
def tiny(request):
    """Networks of 8×8 pixels whose guidance changes images by far more than rounding does."""
    torch.manual_seed(0)
    unet = UNet2DModel(**TINY_UNET)
    classifier = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 36, 3))
    with torch.no_grad():
        classifier[-1].weight.mul_(100)
    scheduler = DDPMScheduler(num_train_timesteps=12, beta_end=0.2, prediction_type=request.param)
    return Networks(unet.eval().requires_grad_(False), scheduler, classifier.eval().requires_grad_(False))


# Both ways do the same


def draw(sampler):
    return sampler([keyed_generator("sampling", 1, i) for i in range(3)])


@pytest.mark.parametrize("mode", sampling.REACH)
def test_plain_and_our_sampling_draw_the_same_images(tiny, mode):
    ours = draw(sampling.ours(tiny, mode, **AMOUNT))
    plain = draw(sampling.plainly(tiny, mode, **AMOUNT))
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=0)
    unguided = draw(sampling.ours(tiny, "unguided", **AMOUNT))
    assert (mode == "unguided") == ((ours - unguided).abs().max() < 1e-2)


@pytest.mark.parametrize("stride", [1, 5])
def test_plain_and_our_forward_analysis_find_the_same_numbers(tiny, stride):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8), rng.integers(0, 3, 6)
    ours = forward.ours(tiny, images, labels, stride)()
    plain = forward.plainly(tiny, images, labels, stride)()
    ours = ours[ours["metric"].isin(next(iter(plain.values())))]  # ours measures more
    assert sorted(set(ours["t"])) == sorted(plain) and len(ours) == 3 * len(plain)
    for row in ours.itertuples():
        assert plain[row.t][row.metric] == pytest.approx(row.mean, rel=1e-3, abs=1e-6), (row.t, row.metric)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_plain_and_our_frechet_distances_are_equal():
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(200, 16)) @ rng.normal(size=(16, 16)) + shift for shift in (0, 1)]
    ours, theirs = ([take(part) for part in features] for take in (frechet.our_statistics, frechet.their_statistics))
    for mine, gaussian in zip(ours, theirs, strict=True):
        for found, expected in zip(mine.gaussian(), gaussian, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-10)
    distance = frechet.frechet_distance(*ours)
    assert distance == pytest.approx(frechet.calculate_frechet_distance(*theirs[0], *theirs[1]), rel=1e-8)
    assert distance > 1


def test_plain_training_sees_the_images_whose_time_ours_takes(monkeypatch):
    monkeypatch.setattr(
        training, "section", lambda size: {"ddpm": {"unet": TINY_UNET}, "scheduler": {"num_train_timesteps": 10}}
    )
    clocks, seen = [], []

    class Clock(training.Clock):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            clocks.append(self)

    def build(config):
        unet = build_unet(config)
        unet.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        return unet

    monkeypatch.setattr(training, "Clock", Clock)
    monkeypatch.setattr(training, "build_unet", build)  # the plain way's; ours builds its own
    works = training.works(Settings(CPU, "demo", batch=4, steps=3))
    found = next(works)  # the images are on disk until the next
    assert torch.isfinite(found.ways[PLAIN]()) and seen == [4] * 3
    seconds = found.ways[OURS]()
    assert clocks[0].done == 3 + training.WARM and 0 < seconds == clocks[0].seconds


def test_the_clock_leaves_out_the_first_steps(monkeypatch):
    times = iter([10.0, 17.0])
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(times))
    clock = training.Clock(CPU, training.WARM + 3)
    for _ in range(training.WARM + 3):
        clock.check()
    assert clock.seconds == 7.0


def test_the_floor_is_that_many_passes(tiny):
    seen = []
    tiny.unet.register_forward_pre_hook(lambda _, inputs: seen.append((len(inputs[0]), inputs[0].requires_grad)))
    for gradient in (False, True):
        passes(tiny.unet, 2, 3, gradient=gradient, precision="fp32")
    assert seen == [(2, False)] * 3 + [(2, True)] * 3


HQ_UNET = {  # google/ddpm-celebahq-256, as its configuration has it
    "sample_size": 256,
    "layers_per_block": 2,
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}


@pytest.mark.parametrize(("size", "expected"), [("paper", 18.7e9), ("hq", 497e9)])
def test_flops_of_a_pass_are_those_of_the_readme(size, expected):
    config = HQ_UNET if size == "hq" else section("paper")["ddpm"]["unet"]
    with torch.device("meta"):
        unet, x = build_unet(config), torch.empty(1, 3, config["sample_size"], config["sample_size"])
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        unet(x, 0)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


# Rows and tables


def test_ways_take_turns_and_the_order_turns_round():
    calls = []
    ways = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = alternate(ways, 3, CPU)
    assert "".join(calls) == "abccbaabc"
    assert {name: len(found) for name, found in seconds.items()} == dict.fromkeys("abc", 3)
    assert seconds_of(lambda: Seconds(42), CPU) == 42 and seconds_of(lambda: 42.0, CPU) < 42  # a result is no time


def work_of(repeats=3, **seconds):
    """A work whose ways take the given seconds in turn; each is called twice before."""
    names = {"plain": PLAIN, "ours": OURS, "compiled": COMPILED, "floor": FLOOR}
    rest = {names[key]: iter([*([99.0] * 2 if repeats > 1 else []), *found]) for key, found in seconds.items()}
    ways = {name: lambda times=times: Seconds(next(times)) for name, times in rest.items()}
    return Work("sampling", ways, "a pass", {"ratio": 2, "seconds": 60}, repeats)


def test_rows_and_their_table_by_hand():
    rows = measure(work_of(plain=[8.0, 10.0, 12.0], ours=[5.0, 5.0, 4.0], compiled=[4.0] * 3, floor=[1.0] * 3), CPU)
    assert json.loads(json.dumps(rows)) == rows and [row["way"] for row in rows] == [PLAIN, OURS, COMPILED, FLOOR]
    assert rows[1]["median"] == 5 and rows[1]["ratio"] == 2 and rows[1]["range"] == [1.6, 3.0]
    assert rows[2]["ratio"] == 2.5 and rows[1]["peak_bytes"] is None
    table = [cells(row) for row in rows]
    assert [line["way"] for line in table] == ["plain", "ours", "ours, compiled", "floor: a pass"]
    assert table[1]["time"] == "5 s" and table[1]["ratio"] == "2.00 (1.60–3.00)"
    assert [line["reach"] for line in table] == ["", "2 ×, 60 s", "2 ×, 60 s", ""]


def test_long_work_is_done_once():
    (row,) = measure(work_of(repeats=1, ours=[7.0]), CPU)
    assert row["seconds"] == [7.0] and "ratio" not in row and cells(row)["ratio"] == ""


def test_a_run_writes_json_and_survives_a_failure(tmp_path, capsys):
    def broken(settings):
        raise ImportError("no such package")
        yield

    out = tmp_path / "x.json"
    assert command.run([broken, sportballs.works], Settings(CPU, "demo", batch=60), out) == 1
    shown = capsys.readouterr()
    assert "no such package" in shown.err and "| SportBalls, 60 images of 64×64 | ours" in shown.out
    (row,) = json.loads(out.read_text())["rows"]
    assert row["way"] == OURS and row["reach"] == {} and row["seconds"][0] > 0
    assert command.run([sportballs.works], Settings(CPU, "demo", batch=60)) == 0


def test_memory_of_scoring_is_that_of_a_process_of_its_own(capsys):
    score_memory.main([3, 5])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["3", "5"] and all(float(line.split()[3]) > 100 for line in lines)


def test_help_lists_every_benchmark():
    shown = subprocess.run([sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0
    for name in ("all", "sampling", "training", "forward", "frechet", "sportballs", "score-memory"):
        assert name in shown.stdout
