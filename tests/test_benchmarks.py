"""The benchmarks measure what they say: both ways do the same work, and counts are right. No time is asserted."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

from benchmarks import command, forward, frechet, sampling, sportballs, training, work
from benchmarks.__main__ import BENCHMARKS
from benchmarks.measure import Seconds, alternate, flops, matmul, seconds_of, warm_up
from benchmarks.sizes import ROOT, Networks, configs, gradient_flops, networks, pass_flops
from benchmarks.table import HEADERS, table
from benchmarks.work import COMPILED, MATMUL, OURS, Reach, Settings, Work, measure
from nrcg.models.ddpm import build_unet
from nrcg.rng import keyed_generator

CPU = torch.device("cpu")
MACHINE = {
    "device": "a machine",
    "threads": 1,
    "cpus": 2,
    "load": 0.5,
    "torch": "2",
    "date": "2026-01-01",
    "matmul_flops_a_second": {"fp32": 2e11},
    "copy_bytes_a_second": 1e10,
}


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


@pytest.fixture
def fixed_matmul(monkeypatch):
    """Matrix products that do a GFLOP in two seconds."""
    monkeypatch.setattr(work, "matmul", lambda *_: (lambda: Seconds(2), 1e9))


# Both ways do the same


def draw(sampler):
    return sampler([keyed_generator("sampling", 1, i) for i in range(3)])


@pytest.mark.parametrize("mode", sampling.MODES)
def test_plain_and_our_sampling_draw_the_same_images(tiny, mode):
    ours = draw(sampling.ours(tiny, mode, batch=3, steps=6, compiled=False))
    plain = draw(sampling.plainly(tiny, mode, batch=3, steps=6, precision="fp32"))
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=0)
    unguided = draw(sampling.ours(tiny, "unguided", batch=3, steps=6, compiled=False))
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
    ours = [frechet.our_statistics(part) for part in features]
    for mine, part in zip(ours, features, strict=True):
        mean, cov = frechet.plain.feature_statistics(part)
        np.testing.assert_allclose(mine.mean, mean, atol=1e-10)
        np.testing.assert_allclose(mine.cov, cov, atol=1e-10)
    ways = frechet.distance_ways(*ours)
    assert ways[OURS]() == pytest.approx(ways[frechet.AGAINST](), rel=1e-8) and ways[OURS]() > 1


def test_plain_training_sees_the_images_whose_time_ours_takes(monkeypatch, fixed_matmul):
    scheduler = {"num_train_timesteps": 10}
    monkeypatch.setattr(training, "configs", lambda size: (TINY_UNET, scheduler))
    clocks, seen = [], []

    class Clock(training.Clock):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            clocks.append(self)

    def build(config):
        unet = build_unet(config)
        unet.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        return unet

    works = training.works(Settings(CPU, "demo", batch=4, steps=3, repeats=1))
    found = next(works)  # the images are on disk until the next
    monkeypatch.setattr(training, "Clock", Clock)
    monkeypatch.setattr(training, "build_unet", build)  # the plain way's; ours builds its own
    plain, ours = found.ways["plain fp32"](), found.ways[OURS]()
    assert torch.isfinite(plain()) and sum(seen) == found.amount == 12
    seconds = ours()
    assert clocks[0].done == 3 + training.WARM and 0 < seconds == clocks[0].seconds


def test_the_clock_leaves_out_the_first_steps(monkeypatch):
    times = iter([10.0, 17.0])
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(times))
    clock = training.Clock(CPU, training.WARM + 3)
    for _ in range(training.WARM + 3):
        clock.check()
    assert clock.seconds == 7.0


# Counts


def test_a_gradient_costs_a_second_pass():
    unet = networks("demo", CPU).unet
    assert gradient_flops(unet) == pytest.approx(2 * pass_flops(unet), rel=0.02)


@pytest.mark.parametrize(("size", "expected"), [("paper", 18.7e9), ("hq", 497e9)])
def test_flops_of_a_pass(size, expected):
    with torch.device("meta"):
        unet = build_unet(configs(size)[0])
    assert pass_flops(unet) == pytest.approx(expected, rel=0.01)


def test_flops_by_hand():
    layer, attention = nn.Conv2d(3, 5, 3, padding=1), torch.rand(1, 2, 7, 4)
    assert flops(lambda: layer(torch.rand(2, 3, 8, 8))) == 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)
    product = torch.nn.functional.scaled_dot_product_attention
    assert flops(lambda: product(attention, attention, attention)) == 2 * 2 * (2 * 7 * 7 * 4)
    multiply, count = matmul(torch.device("meta"), torch.float32)
    assert flops(multiply) == count


def test_peak_memory_is_what_is_held_at_a_time():
    def together():
        return (torch.ones(1 << 20) + torch.ones(1 << 20)).sum()

    def one_by_one():
        for _ in range(5):
            torch.ones(1 << 20).sum()

    million = 1 << 20
    assert warm_up(one_by_one, CPU)[1] == pytest.approx(4 * million, rel=0.01)
    assert warm_up(together, CPU)[1] == pytest.approx(12 * million, rel=0.01)  # two and their sum


def test_ways_take_turns_and_the_order_turns_round():
    calls = []
    ways = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = alternate(ways, 3, CPU)
    assert "".join(calls) == "abccbaabc" and {name: len(found) for name, found in seconds.items()} == dict.fromkeys(
        "abc", 3
    )
    assert seconds_of(lambda: Seconds(42), CPU) == 42 and seconds_of(lambda: 42.0, CPU) < 42  # a result is no time


# Rows and tables


def work_of(**seconds):
    """A work of 100 units at 10 MFLOP each, whose ways take the given seconds in turn; each is called twice before."""

    def build(found):
        rest = iter([found[0] + 5, 0.0, *found])  # the first call compiles
        return lambda: Seconds(next(rest))

    names = {"plain": "plain fp32", "ours": OURS, "compiled": COMPILED}
    ways = {names[key]: lambda found=found: build(found) for key, found in seconds.items()}
    reach = Reach(ratio=2, share=0.4)
    return Work("sampling", "demo", 100, "image-step", ways, "plain fp32", reach, "a pass", 10_000_000, repeats=3)


def test_a_row_by_hand(fixed_matmul):
    row = measure(work_of(plain=[8.0, 10.0, 12.0], ours=[5.0, 5.0, 4.0], compiled=[4.0, 4.0, 4.0]), CPU)
    assert json.loads(json.dumps(row)) == row and MATMUL not in row["ways"]
    ours, compiled = row["ways"][OURS], row["ways"][COMPILED]
    assert (ours["rate"], ours["median"], ours["min"], ours["max"]) == (20.0, 5.0, 4.0, 5.0)
    assert (ours["ratio"], ours["ratio_from"], ours["ratio_to"]) == (2.0, 1.6, 3.0)
    assert ours["share"] == pytest.approx(20 * 10e6 / 0.5e9) and ours["missed"] == []
    assert compiled["ratio"] == 2.5
    assert row["compilation"] == {"seconds": 5.0, "pays_after": 500}  # 5 s at 1/20 − 1/25 s a unit


def test_what_is_missed_is_named(fixed_matmul):
    row = measure(replace(work_of(plain=[9.0] * 3, ours=[10.0] * 3), reach=Reach(2, 0.5, 0.9, 9.5)), CPU)
    assert row["ways"][OURS]["missed"] == ["ratio", "memory", "share", "seconds"]
    row = measure(replace(work_of(plain=[9.0] * 3, ours=[4.0] * 3), reach=Reach(2, seconds=4)), CPU)
    assert row["ways"][OURS]["missed"] == []


def test_the_table_has_a_line_for_each_of_ours(fixed_matmul):
    rows = [measure(work_of(plain=[10.0] * 3, ours=[5.0] * 3, compiled=[20.0] * 3), CPU)]
    headers, lines = table(rows)
    first, second = (dict(zip(headers, line, strict=True)) for line in lines)
    assert headers == HEADERS and first["plain"] == "10 image-steps/s (plain fp32)"
    assert (first["ours"], first["ratio"], first["met?"]) == ("20 image-steps/s", "2.00 (2.00–2.00)", "yes")
    assert first["floor"] == "a pass: 0.01 GFLOP, 50/s at matmul rate" and first["share of matmul rate"] == "40%"
    assert second["ours"] == "5 image-steps/s (compiled in 5 s, never paid)" and second["met?"] == "no: ratio, share"


def test_a_run_writes_json_and_markdown_and_survives_a_failure(tmp_path, monkeypatch, fixed_matmul, capsys):
    def broken(settings):
        raise ImportError("no such package")
        yield

    monkeypatch.setattr(command, "facts", lambda device: MACHINE)
    out, markdown = tmp_path / "x.json", tmp_path / "x.md"
    options = ["--device", "cpu", "--batch", "60", "--out", str(out), "--markdown", str(markdown)]
    with pytest.raises(SystemExit) as ended:
        command.run("test", "", [broken, sportballs.works], options)
    assert ended.value.code == 1 and "no such package" in capsys.readouterr().err
    (row,) = json.loads(out.read_text())["rows"]
    assert row["work"] == "SportBalls" and row["amount"] == 60 and row["ways"][OURS]["missed"] == []
    lines = markdown.read_text().splitlines()
    assert lines[0].startswith("a machine, 1 threads of 2 CPUs, load 0.5; matrix products 0.2 TFLOP/s fp32")
    assert lines[2].startswith("| work") and lines[4].startswith("| SportBalls") and "images/s" in lines[4]


def test_help_lists_every_benchmark():
    shown = subprocess.run([sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0
    for name in BENCHMARKS:
        assert f"{name}: " in shown.stdout and importlib.util.find_spec(f"benchmarks.{name.replace('-', '_')}")
