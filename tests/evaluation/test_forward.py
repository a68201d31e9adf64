"""The forward analysis against a naive one: every neighbour evaluated afresh, image by image, in float64."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDPMScheduler, UNet2DModel
from test_robustness import StopAt
from torch import nn
from typer.testing import CliRunner

import nrcg.cli
from nrcg import EMA, Adam, GuidedDDPMPipeline
from nrcg.errors import NrcgError, Stopped
from nrcg.evaluation.forward import forward_analysis, other_probability
from nrcg.io.tables import CURVE_COLUMNS, select_curves
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import save_classifier, seeing
from nrcg.rng import keyed_generator

T, SEED, TARGET = 6, 3, 1
SETUPS = {"raw": None, "ema": EMA(0.7), "adam": Adam()}


def make_classifier(n_logits: int = 3) -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Conv2d(3, 4, 3, stride=2), nn.SiLU(), nn.Flatten(), nn.Linear(36, n_logits)
    return nn.Sequential(*layers).double()


def make_case(n: int = 5):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return images, np.arange(n) % 3, UNet2DModel(**TINY_UNET).double().eval(), make_scheduler()


def make_scheduler() -> DDPMScheduler:
    return DDPMScheduler(num_train_timesteps=T, beta_end=0.3)


def analyse(images, labels, unet, scheduler, **kwargs) -> pd.DataFrame:
    defaults = {"target": TARGET, "on": "x0", "setups": SETUPS, "seed": SEED, "batch_size": 2}
    classifier = kwargs.pop("classifier", None) or make_classifier()
    return forward_analysis(images, classifier, labels=labels, unet=unet, scheduler=scheduler, **defaults | kwargs)


def curve(table: pd.DataFrame, setup: str, metric: str, column: str = "mean") -> np.ndarray:
    rows = table[(table.setup == setup) & (table.metric == metric)]
    assert list(rows.t) == sorted(rows.t)
    return rows[column].to_numpy()


class Naive:
    """x_t, logits and gradient of one image at one t, from the formulas alone."""

    def __init__(self, image, index, classifier, unet, on, objective, channels):
        grey = image @ np.array([[0.299], [0.587], [0.114]])
        self.x0 = torch.tensor((grey if channels == 1 else image) / 127.5 - 1).permute(2, 0, 1)[None]
        self.noise = torch.randn(channels, 8, 8, generator=keyed_generator("forward noise", SEED, index)).double()
        self.alphas = np.cumprod(1 - np.linspace(1e-4, 0.3, T))
        self.classifier, self.unet, self.on, self.objective = classifier, unet, on, objective
        self.gradients = {}

    def x(self, t):
        a = self.alphas[t - 1] if t else 1.0
        return a**0.5 * self.x0 + (1 - a) ** 0.5 * self.noise

    def logits_and_gradient(self, t):
        x = self.x(t).requires_grad_()
        seen = x
        if self.on == "x0" and t:
            a = self.alphas[t - 1]
            seen = ((x - (1 - a) ** 0.5 * self.unet(x, t - 1).sample) / a**0.5).clamp(-1, 1)
        logits = self.classifier(seen.expand(1, 3, 8, 8))
        value = logits.softmax(1)[0, TARGET].log() if self.objective == "log_prob" else logits[0, TARGET]
        (gradient,) = torch.autograd.grad(value, x)
        return logits.detach()[0], gradient

    def stabilised(self, name, t, grid):
        """The direction at t: the recursions from t = T down, started anew."""
        m, v = 0.0, 0.0
        for u in (u for u in grid if u >= t):
            if u not in self.gradients:  # only to spare the test's time
                self.gradients[u] = self.logits_and_gradient(u)[1]
            g = self.gradients[u]
            if name == "raw":
                m = g
            elif name == "ema":
                m = 0.7 * m + 0.3 * g
            else:
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        return m / (v**0.5 + 1e-4) if name == "adam" else m


def naive_curves(images, labels, unet, on, objective, grid, channels=3) -> dict:
    """(setup, metric) → per-image values, images × t upwards."""
    classifier, curves = make_classifier(), {}
    for i, image in enumerate(images):
        one = Naive(image, i, classifier, unet, on, objective, channels)
        for t, s in reversed(list(pairwise(grid))):
            distance = (one.x(t) - one.x(s)).norm()
            logits, below = one.logits_and_gradient(t)[0], one.logits_and_gradient(s)[0]
            values = {
                ("raw", "accuracy"): float(logits.argmax() == labels[i]),
                ("raw", "logit_sensitivity"): ((logits - below).norm() / distance).item(),
            }
            for name in SETUPS:
                direction = one.stabilised(name, t, grid)
                change = direction - one.stabilised(name, s, grid)
                values[name, "gradient_sensitivity"] = (change.norm() / distance).item()
                values[name, "change"], values[name, "gradient_norm"] = change.norm().item(), direction.norm().item()
            for key, value in values.items():
                curves.setdefault(key, [[] for _ in images])[i].append(value)
    return {key: np.array(value) for key, value in curves.items()}


@pytest.mark.parametrize(
    ("on", "objective", "stride", "grid"),
    [
        ("xt", "logit", 1, [6, 5, 4, 3, 2, 1, 0]),
        ("x0", "log_prob", 1, [6, 5, 4, 3, 2, 1, 0]),
        ("x0", "logit", 4, [6, 2, 0]),
    ],
)
@pytest.mark.parametrize("channels", [3, 1])
def test_equals_the_naive_evaluation(on, objective, stride, grid, channels):
    images, labels, unet, scheduler = make_case(3)
    if channels == 1:
        unet = UNet2DModel(**TINY_UNET | {"in_channels": 1, "out_channels": 1}).double().eval()
    how = {"on": on, "objective": objective, "stride": stride, "channels": channels}
    table = analyse(images, labels, unet, scheduler, classifier=seeing(make_classifier(), channels), **how)
    expected = naive_curves(images, labels, unet, on, objective, grid, channels)
    assert list(table.columns) == CURVE_COLUMNS and (table.n == len(images)).all()
    changes = {setup: expected.pop((setup, "change")) for setup in SETUPS}
    others = {(setup, "relative_sensitivity") for setup in SETUPS} | {("raw", "one_class")}
    others |= {(setup, "saturated") for setup in SETUPS if objective == "log_prob"}
    others |= {(setup, "clipped") for setup in SETUPS if on == "x0"}
    assert set(zip(table.setup, table.metric, strict=True)) == set(expected) | others
    assert sorted(set(table.t)) == grid[-2::-1]
    for (setup, metric), values in expected.items():
        # the scheduler keeps ᾱ in float32, which is felt in the short steps
        np.testing.assert_allclose(curve(table, setup, metric), values.mean(0), rtol=1e-3)
        np.testing.assert_allclose(curve(table, setup, metric, "std"), values.std(0), rtol=1e-3, atol=1e-9)
    for setup, change in changes.items():
        relative = change.mean(0) / expected[setup, "gradient_norm"].mean(0)
        np.testing.assert_allclose(curve(table, setup, "relative_sensitivity"), relative, rtol=1e-3)
        assert np.isnan(curve(table, setup, "relative_sensitivity", "std")).all()


def test_a_constant_factor_leaves_the_relative_sensitivity():
    class Halved(EMA):
        def update(self, gradient, state):
            direction, state = super().update(gradient, state)
            return direction / 2, state

    images, labels, unet, scheduler = make_case(3)
    table = analyse(images, labels, unet, scheduler, setups={"whole": EMA(0.7), "half": Halved(0.7)})
    whole, half = (curve(table, name, "gradient_sensitivity") for name in ("whole", "half"))
    np.testing.assert_allclose(half, whole / 2)
    whole, half = (curve(table, name, "relative_sensitivity") for name in ("whole", "half"))
    np.testing.assert_allclose(half, whole)


class Sure(nn.Module):
    """Brightness decides: class 1 by a margin of `margin` · (1 + mean of the image)."""

    def __init__(self, margin: float, n_logits: int = 2) -> None:
        super().__init__()
        self.weight, self.n_logits = nn.Parameter(torch.tensor(margin)), n_logits

    def forward(self, images):
        margin = self.weight * (1 + images.mean((1, 2, 3)))
        return margin[:, None] if self.n_logits == 1 else torch.stack([torch.zeros_like(margin), margin], 1)


@pytest.mark.parametrize("n_logits", [1, 2])
def test_saturation_is_counted_where_float32_knows_no_more_than_p_equal_to_1(n_logits):
    images = np.repeat(np.array([0, 20, 60, 255], dtype=np.uint8), 8 * 8 * 3).reshape(4, 8, 8, 3)
    scheduler = DDPMScheduler(num_train_timesteps=2, beta_start=1e-8, beta_end=1e-8)  # hardly any noise
    for target, shares in ((1, [0.75, 0.5, 0.0]), (0, [0.0, 0.0, 0.0])):  # a p near 0 has a gradient like any other
        for margin, share in zip((100.0, 40.0, 6.0), shares, strict=True):  # 1 − p from e^0 to e^−200
            table = analyse(images, [1] * 4, None, scheduler, classifier=Sure(margin, n_logits), target=target, on="xt")
            assert (curve(table, "raw", "saturated") == share).all(), (target, margin)
            assert (curve(table, "raw", "one_class") >= 0.75).all()
    table = analyse(images, [1] * 4, None, scheduler, classifier=Sure(40.0), target=1, on="xt", objective="logit")
    assert "saturated" not in set(table.metric)


def test_one_minus_p_is_exact():
    margins = torch.tensor([0.0, 30.0, 300.0, -5.0])
    expected = 1 / (1 + margins.double().exp())
    for logits in (margins[:, None], torch.stack([torch.zeros(4), margins], 1)):
        torch.testing.assert_close(other_probability(logits, 1), expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(other_probability(logits, 0), 1 / (1 + (-margins.double()).exp()))
    three = torch.tensor([[50.0, 0.0, 0.0]])
    np.testing.assert_allclose(other_probability(three, 0), 2 * np.exp(-50.0))


def test_clipping_is_counted_among_what_the_image_has_within_the_limits():
    class Far(nn.Module):
        """Predicts x̂_0 = 3 in the left half, and 0 in the right one."""

        config, dtype = {}, torch.float64

        def forward(self, x, _t):
            seen = 0 * x
            seen[..., :4] += 3
            return SimpleNamespace(sample=seen)

    images = np.full((2, 8, 8, 3), 100, dtype=np.uint8)
    images[1, :4] = 255  # white: rightly at the limit
    images[1, 4:, 6:] = 0
    for config, share in ({"clip_sample_range": 1.0}, (0.5 + 2 / 3) / 2), ({"clip_sample_range": 4.0}, 0.0):
        scheduler = DDPMScheduler(num_train_timesteps=2, prediction_type="sample", **config)
        table = analyse(images, [0, 0], Far(), scheduler, setups={"raw": None})
        np.testing.assert_allclose(curve(table, "raw", "clipped"), share)
    scheduler = DDPMScheduler(num_train_timesteps=2, prediction_type="sample", clip_sample=False)
    assert "clipped" not in set(analyse(images, [0, 0], Far(), scheduler, setups={"raw": None}).metric)


def test_stopped_over_and_over_and_with_a_damaged_batch_ends_with_the_same_bits(tmp_path, caplog):
    images, labels, unet, scheduler = make_case(7)
    whole = analyse(images, labels, unet, scheduler).to_csv()
    classifier, stops, seen = make_classifier(), 0, []
    classifier.register_forward_pre_hook(lambda *_: seen.append(0))
    while True:
        stop = StopAt(2 * (T + 1) - 1)  # in the second batch, of four
        try:
            cut = analyse(
                images, labels, unet, scheduler, classifier=classifier, unfinished=tmp_path, stop=stop
            ).to_csv()
            break
        except Stopped:
            stops += 1
            assert [path.name for path in sorted(tmp_path.iterdir())] == [f"{2 * i}.batch" for i in range(stops)]
    assert stops == 3 and cut == whole and len(seen) == (T + 1) * 4 + 3 * (T - 1)
    assert not analyse(
        images, labels, unet, scheduler, classifier=classifier, unfinished=tmp_path, stop=StopAt(1)
    ).empty
    part = tmp_path / "4.batch"
    part.write_bytes(part.read_bytes()[:-1])
    assert analyse(images, labels, unet, scheduler, unfinished=tmp_path).to_csv() == whole
    assert f"{part}: damaged" in caplog.text


def test_the_batch_size_changes_nothing():
    images, labels, unet, scheduler = make_case()
    whole = analyse(images, labels, unet, scheduler, batch_size=5)
    for batch_size in 1, 3:
        table = analyse(images, labels, unet, scheduler, batch_size=batch_size)
        pd.testing.assert_frame_equal(table, whole, rtol=1e-9)


def test_each_point_is_evaluated_once_and_the_unet_is_told_its_own_t():
    images, labels, unet, scheduler = make_case()
    classifier, told, seen = make_classifier(), [], []
    unet.register_forward_pre_hook(lambda _module, inputs: told.append(int(inputs[1])))
    classifier.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    analyse(images, labels, unet, scheduler, classifier=classifier, batch_size=5)
    assert told == [5, 4, 3, 2, 1, 0] and seen == [5] * (T + 1)
    told.clear()
    analyse(images, labels, unet, scheduler, on="xt")
    assert told == []


def test_on_xt_needs_no_unet_and_binary_classifiers_work():
    images, _, _, scheduler = make_case()
    classifier = make_classifier(n_logits=1)
    labels = (classifier(torch.tensor(images / 127.5 - 1).permute(0, 3, 1, 2))[:, 0] > 0).long().numpy()
    scheduler = DDPMScheduler(num_train_timesteps=2, beta_start=1e-8, beta_end=1e-8)  # hardly any noise
    for truth, share in (labels, 1.0), (1 - labels, 0.0):
        table = analyse(images, truth, None, scheduler, classifier=classifier, on="xt", setups={"raw": None})
        assert (curve(table, "raw", "accuracy") == share).all()


def test_networks_are_left_as_they_were():
    images, labels, unet, scheduler = make_case()
    classifier = make_classifier()
    unet.train()
    with torch.inference_mode():
        analyse(images, labels, unet, scheduler, classifier=classifier)
    assert all(module.training for module in unet.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in unet.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"on": "x1"}, "forward: on 'x1'"),
        ({"objective": "loss"}, "objective 'loss'"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "0 images, 3 setups"),
        ({"setups": {}}, "5 images, 0 setups"),
        ({"target": 3}, "target"),
    ],
)
def test_bad_input_is_refused(change, message):
    images, labels, unet, scheduler = make_case()
    with pytest.raises(NrcgError, match=message):
        analyse(**{"images": images, "labels": labels, "unet": unet, "scheduler": scheduler} | change)


def test_curves_are_selected_with_what_else_was_measured(tmp_path):
    images, labels, unet, scheduler = make_case(2)
    analyse(images, labels, unet, scheduler).to_csv(tmp_path / "x0.csv", index=False)
    table = analyse(images, labels, None, scheduler, on="xt", setups={"noisy": None})
    table.to_csv(tmp_path / "xt.csv", index=False)
    files = [tmp_path / "x0.csv", tmp_path / "xt.csv"]
    table = select_curves(files, ["gradient_sensitivity", "clipped"], ["noisy", "ema"])
    pairs = list(dict.fromkeys(zip(table.metric, table.setup, strict=True)))
    assert pairs == [("gradient_sensitivity", "noisy"), ("gradient_sensitivity", "ema"), ("clipped", "ema")]
    with pytest.raises(NrcgError, match="no clipped of setup 'noisy'"):
        select_curves(files, ["clipped", "gradient_sensitivity"], ["noisy", "ema"])


def test_the_verb_refuses_networks_that_are_not_of_the_images(blob_set, tmp_path):
    card = {"architecture": "mobilenet_v3_small", "n_logits": 3, "classes": ["r", "g", "x"]}
    save_classifier(tmp_path / "foreign", build_classifier("mobilenet_v3_small", 3), card)
    save_classifier(tmp_path / "own", build_classifier("mobilenet_v3_small", 3), card | {"classes": ["r", "g", "b"]})
    for size in 8, 16:
        unet = UNet2DModel(**TINY_UNET | {"sample_size": size})
        GuidedDDPMPipeline(unet=unet, scheduler=make_scheduler()).save_pretrained(tmp_path / f"ddpm{size}")

    def run(classifier, ddpm, *options):
        words = ["--data", blob_set.folder, "--classifier", tmp_path / classifier, "--ddpm", tmp_path / ddpm]
        words += ["--out", tmp_path / "t.csv", "--images", 2, "--device", "cpu", *options]
        if "--setups" not in options:
            words += ["--setups", '{"raw": null}']
        result = CliRunner().invoke(nrcg.cli.app, ["measure", "forward", *map(str, words)])
        if result.exception:
            raise result.exception

    with pytest.raises(NrcgError, match=r"foreign: classes r, g, x, but .* has r, g, b;"):
        run("foreign", "ddpm8")
    with pytest.raises(NrcgError, match=r"ddpm16: for images of 16 pixels, but those of .* have 8; train"):
        run("own", "ddpm16", "--on", "x0")
    for setups, message in {
        '{"raw": null, "raw": {"ema": {"beta": 0.9}}}': "--setups: .*a key is given twice",
        '{"smooth": {"ema": {"bet": 0.9}}}': "--setups: smooth: stabilizer ema: unknown key bet; nearest are beta",
        '{"smooth": "emma"}': "--setups: smooth: stabilizer 'emma': unknown; use one of ema, adam",
    }.items():
        with pytest.raises(NrcgError, match=message):
            run("own", "ddpm8", "--setups", setups)
    with pytest.raises(NrcgError, match="objective 'loss': unknown; use one of log_prob, logit"):
        run("own", "ddpm8", "--objective", "loss")
    assert not list(tmp_path.glob("t*"))
    run("own", "ddpm8", "--on", "x0", "--objective", "logit")
    assert "saturated" not in (tmp_path / "t.csv").read_text() and not list(tmp_path.glob("t.unfinished"))


def test_a_class_conditional_unet_is_told_its_class_or_refused():
    images, labels, unet, scheduler = make_case(3)
    with pytest.raises(NrcgError, match="unet: not class-conditional; leave class_labels out"):
        analyse(images, labels, unet, scheduler, class_label=1)
    torch.manual_seed(0)
    unet = UNet2DModel(**TINY_UNET, num_class_embeds=3).double().eval()
    with pytest.raises(NrcgError, match="unet: class-conditional; give it class_labels"):
        analyse(images, labels, unet, scheduler)
    one, two = (analyse(images, labels, unet, scheduler, class_label=label) for label in (1, 2))
    assert not np.allclose(curve(one, "raw", "gradient_norm"), curve(two, "raw", "gradient_norm"), rtol=1e-6)
