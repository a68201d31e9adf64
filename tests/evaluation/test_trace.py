"""Traces: against Algorithm 1 written out anew, and against the samples of `nrcg sample`."""

import json
import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from pipelines import STEPS, T, draw, generator, make_guidance, make_pipeline
from torch import nn

import nrcg
from nrcg import EMA, ClassifierGuidance
from nrcg.cli import app
from nrcg.errors import NrcgError
from nrcg.io.images import to_uint8
from nrcg.io.tables import read_table
from nrcg.io.traces import COLUMNS, TraceFile
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import save_classifier
from nrcg.pipeline import GuidedPipeline

GRADIENTS = {"gradient_norm", "gradient_cosine", "direction_norm", "direction_cosine"}


def written_out(pipe, classifier, target, scale, beta, n=2):
    """x̂_0, gradient and its moving average at each step of guidance on x̂_0 by the logit, in plain torch."""
    random, scheduler, rows = generator(), pipe.scheduler, []
    scheduler.set_timesteps(STEPS)
    x = torch.randn(n, 3, 8, 8, generator=random)
    average, alphas = torch.zeros_like(x), [*scheduler.alphas_cumprod[scheduler.timesteps], torch.tensor(1.0)]
    for k, t in enumerate(scheduler.timesteps):
        x.requires_grad_()
        noise = pipe.unet(x, t).sample
        x0 = ((x - (1 - alphas[k]).sqrt() * noise) / alphas[k].sqrt()).clamp(-1, 1)
        (gradient,) = torch.autograd.grad(classifier(x0)[:, target].sum(), x)
        average = beta * average + (1 - beta) * gradient
        rows.append([tensor.detach().double().flatten(1).numpy() for tensor in (x0, gradient, average)])
        beta_t = 1 - alphas[k] / alphas[k + 1]
        variance = (1 - alphas[k + 1]) / (1 - alphas[k]) * beta_t
        mean = alphas[k + 1].sqrt() * beta_t / (1 - alphas[k]) * x0
        mean = mean + (1 - beta_t).sqrt() * (1 - alphas[k + 1]) / (1 - alphas[k]) * x
        z = torch.randn(x.shape, generator=random) if t > 0 else 0.0
        x = (mean + scale * variance * average + variance.sqrt() * z).detach()
    return rows, x


def test_all_that_is_measured_against_algorithm_1_written_out():
    pipe, scale, beta = make_pipeline(), 5.0, 0.7
    guidance = make_guidance(scale, on="x0", objective="logit", stabilizer=EMA(beta))
    rows, x = written_out(pipe, guidance.classifier, 1, scale, beta)
    found = nrcg.trace(
        pipe, guidance, batch_size=2, generator=generator(), num_inference_steps=STEPS, n_frames=3, n_shown=1
    )
    assert found.times.tolist() == [t / T for t in pipe.scheduler.timesteps.tolist()]
    x0s, *vectors = (np.stack(each) for each in zip(*rows, strict=True))
    expected = {"clipped": (np.abs(x0s) == 1).mean(2)}
    for name, each in zip(("gradient", "direction"), vectors, strict=True):
        expected[f"{name}_norm"] = length = np.linalg.norm(each, axis=2)
        cosine = (each[1:] * each[:-1]).sum(2) / (length[1:] * length[:-1])
        expected[f"{name}_cosine"] = np.concatenate([np.full((1, 2), np.nan), cosine])
    assert found.measured.keys() == expected.keys() and 0 < expected["clipped"].mean() < 1
    for name, values in expected.items():
        assert found.measured[name].shape == (STEPS, 2) and found.measured[name].dtype == np.float64
        np.testing.assert_allclose(found.measured[name], values, rtol=2e-3, atol=2e-3, err_msg=name)
    assert found.frame_steps.tolist() == [0, 4, 7] and found.frames.shape == (4, 1, 8, 8, 3)
    for k, step in enumerate(found.frame_steps):
        picture = np.round((x0s[step, 0].reshape(3, 8, 8).transpose(1, 2, 0) + 1) * 127.5)
        assert np.abs(found.frames[k, 0] - picture).max() <= 1
    assert np.abs(found.frames[-1, 0].astype(int) - to_uint8(x)[0]).max() <= 1


def test_it_draws_what_the_pipeline_draws():
    pipe, guidance = make_pipeline(), make_guidance(stabilizer=EMA(0.9))
    images = draw(pipe, guidance, batch_size=3).images
    found = nrcg.trace(pipe, guidance, batch_size=3, generator=generator(), num_inference_steps=STEPS)
    assert np.array_equal(found.frames[-1], to_uint8(images * 2 - 1))


class Flat(nn.Module):
    """A classifier whose logits depend on bright pixels alone, for the first sample on nothing."""

    def forward(self, x):
        seen = x.clamp(min=0.5).flatten(1) * torch.tensor([[0.0]] + [[1.0]] * (len(x) - 1))
        return torch.stack([seen.sum(1), seen.square().sum(1)], 1)


def test_a_vanishing_gradient_has_no_direction_and_is_no_nan():
    pipe = make_pipeline()
    guidance = ClassifierGuidance(Flat(), 1, 5.0, objective="logit")
    measured = nrcg.trace(pipe, guidance, batch_size=2, generator=generator(), num_inference_steps=STEPS).measured
    assert (measured["gradient_norm"][:, 0] == 0).all() and (measured["gradient_norm"][:, 1] > 0).all()
    assert (measured["gradient_cosine"][1:, 0] == 0).all()
    assert np.isfinite(np.stack([values[1:] for values in measured.values()])).all()


def test_tiny_gradients_keep_their_cosine():
    guidance, pipe = make_guidance(objective="logit"), make_pipeline()
    inner = guidance.classifier

    class Faint(nn.Module):
        def forward(self, x):
            return inner(x) * 1e-25

    both = [
        nrcg.trace(
            pipe, ClassifierGuidance(net, 1, 1e-9, objective="logit"), generator=generator(), num_inference_steps=4
        ).measured["gradient_cosine"][1:]
        for net in (inner, Faint())
    ]
    np.testing.assert_allclose(*both, atol=1e-4)


def test_without_guidance_no_gradient_is_measured_and_without_clipping_no_share():
    pipe = make_pipeline()
    assert nrcg.trace(pipe, generator=generator(), num_inference_steps=4).measured.keys() == {"clipped"}
    pipe = make_pipeline(clip_sample=False)
    assert nrcg.trace(pipe, make_guidance(), generator=generator(), num_inference_steps=4).measured.keys() == GRADIENTS


def test_steps_outside_of_the_interval_are_blank():
    pipe = make_pipeline()
    measured = nrcg.trace(pipe, make_guidance(interval=(0.2, 0.7)), num_inference_steps=STEPS).measured
    guided = [0.2 <= t / T <= 0.7 for t in pipe.scheduler.timesteps]
    assert (~np.isnan(measured["gradient_norm"][:, 0])).tolist() == guided
    assert np.isnan(measured["gradient_cosine"][:, 0]).sum() == STEPS - sum(guided) + 1


def test_any_scheduler_and_a_sample_that_diverges():
    pipe = GuidedPipeline(make_pipeline().unet, DDIMScheduler(num_train_timesteps=T))
    pipe.set_progress_bar_config(disable=True)
    found = nrcg.trace(pipe, make_guidance(), generator=generator(), num_inference_steps=4)
    assert found.measured["gradient_norm"].shape == (4, 4) and not found.diverged.any()

    class Exploding(nn.Module):
        def forward(self, x):
            return x.flatten(1).sum(1, keepdim=True) * torch.tensor([[0.0]] + [[3e38]] * (len(x) - 1)) * 1e38

    guidance = ClassifierGuidance(Exploding(), 1, 1.0, objective="logit")
    found = nrcg.trace(make_pipeline(), guidance, batch_size=2, num_inference_steps=4)
    assert found.diverged.tolist() == [False, True] and (found.frames[-1, 1] == 128).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_frames": 0}, "trace: n_frames 0: must be a whole number of at least 1"),
        ({"n_shown": -1}, "trace: n_shown -1"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"num_inference_steps": T + 1}, f"num_inference_steps is {T + 1}"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(NrcgError, match=words):
        nrcg.trace(make_pipeline(), **arguments)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    make_pipeline().save_pretrained(folder / "ddpm")
    torch.manual_seed(1)
    card = {"architecture": "mobilenet_v3_small", "classes": ["a", "b", "c"], "n_logits": 3}
    save_classifier(folder / "classifier", build_classifier("mobilenet_v3_small", 3), card)
    return folder


def verb(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["nrcg", *map(str, words), "--device", "cpu", "--threads", "1"])
    with pytest.raises(SystemExit) as ended:
        app()
    assert not ended.value.code


def test_a_traced_sample_is_the_one_of_a_shard(monkeypatch, tmp_path, networks):
    guidance = {"on": "x0", "stabilizer": {"ema": {"beta": 0.9}}, "objective": "logit"}
    common = ["--ddpm", networks / "ddpm", "--classifier", networks / "classifier", "--target", "b", "--scale", "2"]
    common += ["--guidance", json.dumps(guidance), "--num-inference-steps", STEPS, "--seed", "3", "--batch-size", "2"]
    verb(monkeypatch, "sample", *common, "--start", 4, "--stop", 7, "--out", tmp_path / "shard.npy")
    words = ["--start", 4, "--stop", 7, "--frames", "5", "--shown", "3", "--out", tmp_path / "trace.npy"]
    verb(monkeypatch, "measure", "trace", *common, *words)
    opened = TraceFile.open(tmp_path / "trace.npy")
    assert np.array_equal(opened.frames[-1], np.load(tmp_path / "shard.npy"))
    assert opened.frames.shape == (6, 3, 8, 8, 3) and opened.seeds == range(4, 7) and opened.diverged == []
    assert opened.times == [0.875, 0.625, 0.375, 0.25, 0.0]
    assert len(opened.table) == 3 * STEPS and opened.table["seed"].unique().tolist() == [4, 5, 6]
    assert opened.table[opened.table["step"] > 0].notna().all(axis=None)
    card = json.loads((tmp_path / "trace.json").read_text())
    assert card["guidance"] == guidance and card["seeds"] == [4, 7] and card["num_train_timesteps"] == T
    (tmp_path / "trace.csv").write_text("step\n")
    with pytest.raises(NrcgError, match=r"trace\.csv: its SHA-256 differs from that in .*trace\.json"):
        TraceFile.open(tmp_path / "trace.npy")


def test_traces_of_one_command_are_those_of_one_each_and_load_a_network_once(monkeypatch, tmp_path, networks):
    common = ["--ddpm", networks / "ddpm", "--num-inference-steps", 4, "--stop", 3, "--shown", 1, "--target", "b"]
    rows = {"logit": {"scale": 2.0, "guidance": {"objective": "logit"}}, "log_p": {"scale": 7.0}}
    for name, row in rows.items():
        row["classifier"] = str(networks / "classifier")
        words = ["--classifier", row["classifier"], "--scale", row["scale"]]
        words += ["--guidance", json.dumps(row.get("guidance", {}))]
        verb(monkeypatch, "measure", "trace", *common, *words, "--out", tmp_path / f"{name}.npy")
    loaded = []
    for module, name in ((nrcg.models.ddpm, "load_ddpm"), (nrcg.models.classifier, "load_classifier")):
        load = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, load=load: [loaded.append(given[0]), load(*given)][1])
    also = json.dumps({str(tmp_path / f"all/{name}.npy"): row for name, row in rows.items()})
    verb(monkeypatch, "measure", "trace", *common, "--also", also, "--out", tmp_path / "all/free.npy")
    assert list(map(str, loaded)) == [str(networks / "ddpm"), str(networks / "classifier")]
    assert len(list((tmp_path / "all").iterdir())) == 9 and TraceFile.open(tmp_path / "all/free.npy").n_seeds == 3
    for file in tmp_path.glob("*.*"):
        assert (tmp_path / "all" / file.name).read_bytes() == file.read_bytes()
    assert (tmp_path / "logit.csv").read_bytes() != (tmp_path / "log_p.csv").read_bytes()


def test_an_unguided_trace_is_blank_where_there_is_no_gradient(monkeypatch, tmp_path, networks):
    words = ["--ddpm", networks / "ddpm", "--num-inference-steps", 4, "--stop", 3, "--shown", 1, "--batch-size", 2]
    verb(monkeypatch, "measure", "trace", *words, "--out", tmp_path / "free.npy")
    table = read_table(tmp_path / "free.csv", numbers=COLUMNS)
    assert table[sorted(GRADIENTS)].isna().all(axis=None) and table["clipped"].notna().all()
    assert np.load(tmp_path / "free.npy").shape == (5, 1, 8, 8, 3)


GUIDE = {"classifier": "classifier", "scale": 1}


def also(traces):
    return ["--out", "x.npy", "--also", json.dumps(traces)]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--out", "x.png"], "x.png: not a NumPy file name; use x.npy"),
        (also({"a/y": GUIDE}), "a/y: not a NumPy file name; use a/y.npy"),
        (also({"./x.npy": GUIDE}), "--also: ./x.npy: named before; use a separate file for each trace"),
        (also({"y.npy": {"classifier": "c"}}), "--also: y.npy: no key scale; add it"),
        (also({"y.npy": {**GUIDE, "scal": 1}}), "--also: y.npy: unknown key scal"),
        (also({"y.npy": {**GUIDE, "scale": -1}}), "--also: y.npy: scale -1: must be a finite number of at least 0"),
        (also({"y.npy": {**GUIDE, "classifier": 3}}), "--also: y.npy: classifier 3: must be a name"),
        (["--out", "x.npy", "--start", "3", "--stop", "3"], "x.npy: no seeds from 3 to 3"),
        (["--out", "x.npy", "--scale", "1"], "--classifier and --scale: give both for guided samples"),
        (["--out", "x.npy", "--num-inference-steps", "99"], "num_inference_steps is 99"),
    ],
)
def test_mistakes_are_a_line(monkeypatch, tmp_path, networks, words, line):
    monkeypatch.chdir(tmp_path)
    given = ["--num-inference-steps", "4", "--ddpm", networks / "ddpm", "--device", "cpu", *words]
    monkeypatch.setattr(sys, "argv", ["nrcg", "measure", "trace", *map(str, given)])
    with pytest.raises(NrcgError) as refused:
        app()
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value) and not list(tmp_path.iterdir())
