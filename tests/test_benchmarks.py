"""The benchmarks measure what they say: both ways do the same work, and rows are right. No time is asserted."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as command
from benchmarks import plain, works
from benchmarks.measure import OURS, PLAIN, Seconds, Work, measure, seconds_of, synchronisations
from benchmarks.networks import ROOT, Networks, section
from nrcg.models.ddpm import build_unet
from nrcg.rng import keyed_generator

CPU = torch.device("cpu")


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


@pytest.mark.parametrize("mode", works.MODES)
def test_plain_and_our_sampling_draw_the_same_images(tiny, mode):
    ours = draw(works.our_sampler(tiny, mode, 3, 6))
    torch.testing.assert_close(ours, draw(works.plain_sampler(tiny, mode, 3, 6)), atol=1e-4, rtol=0)
    unguided = draw(works.our_sampler(tiny, "unguided", 3, 6))
    assert (mode == "unguided") == ((ours - unguided).abs().max() < 1e-2)


@pytest.mark.parametrize("stride", [1, 5])
def test_plain_and_our_forward_analysis_find_the_same_numbers(tiny, stride):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8), rng.integers(0, 3, 6)
    ours = works.our_analysis(tiny, images, labels, stride)()
    theirs = plain.both_neighbours(tiny, images, labels, target=works.TARGET, stride=stride)
    ours = ours[ours["metric"].isin(next(iter(theirs.values())))]  # ours measures more
    assert sorted(set(ours["t"])) == sorted(theirs) and len(ours) == 3 * len(theirs)
    for row in ours.itertuples():
        assert theirs[row.t][row.metric] == pytest.approx(row.mean, rel=1e-3, abs=1e-6), (row.t, row.metric)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_plain_and_our_frechet_distances_are_equal():
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(200, 16)) @ rng.normal(size=(16, 16)) + shift for shift in (0, 1)]
    ours, theirs = ([take(part) for part in features] for take in (works.our_statistics, works.their_statistics))
    for mine, gaussian in zip(ours, theirs, strict=True):
        for found, expected in zip(mine.gaussian(), gaussian, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-10)
    distance = works.frechet_distance(*ours)
    assert distance == pytest.approx(works.calculate_frechet_distance(*theirs[0], *theirs[1]), rel=1e-8)
    assert distance > 1


def test_plain_training_sees_the_images_whose_time_ours_takes(monkeypatch):
    config = {"ddpm": {"unet": TINY_UNET}, "scheduler": {"num_train_timesteps": 10}}
    clocks, seen = [], []

    class Clock(works.Clock):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            clocks.append(self)

    def build(config):
        unet = build_unet(config)
        unet.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        return unet

    monkeypatch.setattr(works, "section", lambda size: config)
    monkeypatch.setitem(works.AMOUNTS, "training", {"demo": (4, 3)})
    monkeypatch.setattr(works, "Clock", Clock)
    monkeypatch.setattr(works, "build_unet", build)  # the plain way's; ours builds its own
    measured = works.training("demo", CPU)
    found = next(measured)  # the images are on disk until the next
    found.ways[PLAIN]()
    assert seen == [4] * 3
    seconds = found.ways[OURS]()
    assert clocks[0].done == 3 + works.WARM and 0 < seconds == clocks[0].seconds


def test_the_clock_leaves_out_the_first_steps(monkeypatch):
    times = iter([10.0, 17.0])
    monkeypatch.setattr(works.time, "perf_counter", lambda: next(times))
    clock = works.Clock(CPU, 3)
    for _ in range(works.WARM + 3):
        clock.check()
    assert clock.seconds == 7.0


def test_the_floor_is_that_many_passes(tiny):
    seen = []
    tiny.unet.register_forward_pre_hook(lambda _, inputs: seen.append((len(inputs[0]), inputs[0].requires_grad)))
    for gradient in (False, True):
        (way,) = plain.floor(tiny.unet, 2, 3, gradient=gradient, bf16=False).values()
        way()
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


# The table


def test_ways_take_turns_and_the_order_turns_round():
    calls = []
    ways = {name: lambda name=name: calls.append(name) for name in "abc"}
    assert [line["way"] for line in measure(Work("letters", ways, "", 3), CPU)] == list("abc")
    assert "".join(calls) == "aabbcc" + "abccbaabc"  # two calls of each before
    assert seconds_of(lambda: Seconds(42), CPU) == 42 and seconds_of(lambda: 42.0, CPU) < 42  # a result is no time


def test_lines_by_hand():
    seconds = {PLAIN: [8.0, 10.0, 12.0], OURS: [5.0, 5.0, 4.0], "floor: a pass": [1.0] * 3}
    rest = {name: iter([99.0, 99.0, *found]) for name, found in seconds.items()}
    ways = {name: lambda times=times: Seconds(next(times)) for name, times in rest.items()}
    lines = list(measure(Work("sampling", ways, "2 ×", 3), CPU))
    ratios = ["1.00 (1.00–1.00)", "2.00 (1.60–3.00)", "10.00 (8.00–12.00)"]
    for line, name, time, ratio in zip(lines, seconds, ["10 s", "5 s", "1 s"], ratios, strict=True):
        assert (line["work"], line["way"], line["time"], line["ratio"]) == ("sampling", name, time, ratio)
        assert line["reach"] == ("2 ×" if name == OURS else "") and line["peak memory"] == ""


def test_waits_are_counted(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def way():
        for text in ("called a synchronizing CUDA operation",) * 3 + ("something else",):
            warnings.warn(text, stacklevel=2)

    assert synchronisations(way) == "3" and modes == ["warn", "default"]


def test_long_work_is_done_once():
    calls = []
    (line,) = measure(Work("long", {OURS: lambda: calls.append(0)}, "", 1), CPU)
    assert calls == [0] and line["ratio"] == ""


def test_a_run_survives_a_failure(capsys, monkeypatch):
    def broken(size, device):
        raise ImportError("no such package")
        yield

    monkeypatch.setattr(works, "BALLS", 60)
    assert command.run([broken, works.sportballs], "demo", CPU) == 1
    shown = capsys.readouterr()
    assert (
        "no such package" in shown.err
        and "TFLOP/s; copies" in shown.out
        and "| SportBalls, 60 images of 64×64 | ours" in shown.out
    )
    assert command.run([works.sportballs], "demo", CPU) == 0


def test_help_lists_every_benchmark():
    shown = subprocess.run([sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0
    for name in ("all", "sampling", "training", "forward", "frechet", "sportballs"):
        assert name in shown.stdout
