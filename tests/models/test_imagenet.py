"""EfficientNet-Lite0, an ImageNet classifier that never saw our data, and the study of how it guides."""

import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from environment_yml import ROOT

import nrcg
from experiments import imagenet_guides
from experiments.imagenet_guides import Variant
from nrcg.datasets.sportballs import SportBalls
from nrcg.io.images import to_float
from nrcg.models.classifier import predictions, save_classifier

CONFIG = yaml.safe_load((ROOT / "config/imagenet_guides.yaml").read_text())["datasets"]["guides"]


@pytest.fixture(scope="module")
def classifier():
    given = CONFIG["classifiers"]["EfficientNet-Lite0"]
    return nrcg.adapt(imagenet_guides.load(), **given["input"], outputs=given["outputs"])


def test_it_names_the_balls_that_the_config_draws(classifier):
    balls = SportBalls(**CONFIG["images"])
    assert balls.check() == classifier.classes
    images = np.stack([balls.image(i) for i in range(90)])
    right = (predictions(classifier(to_float(images)).detach()).numpy() == np.arange(90) % 3).mean()
    assert right > 0.8  # guessing: 0.33


def test_the_study_reports_other_seeds_than_it_tunes_on(tmp_path, monkeypatch, classifier):
    variants = {"plain": Variant((2.0, 5.0), steps=2), "shifted": Variant((5.0,), size=64, shifts=(-1, 1), steps=2)}
    monkeypatch.setattr(imagenet_guides, "VARIANTS", variants)
    seeds, draw = [], imagenet_guides.draw
    monkeypatch.setattr(imagenet_guides, "draw", lambda *given: seeds.append(given[-1]) or draw(*given))
    card = {"architecture": "resnet14_judge", "n_logits": 3, "classes": classifier.classes}
    save_classifier(tmp_path / "judge", nrcg.models.architectures.build_classifier("resnet14_judge", 3), card)
    words = ["--judge", str(tmp_path / "judge"), "--out", str(tmp_path / "out.csv"), "--tuning", "2", "--reported", "3"]
    monkeypatch.setattr(sys, "argv", ["imagenet_guides", *words])
    imagenet_guides.main()
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table["variant"]) == ["plain", "shifted"] and set(table["n"]) == {3}
    assert table["low"].le(table["judge"]).all() and table["judge"].le(table["high"]).all()
    assert [len(each) for each in seeds] == [2, 2, 3, 2, 3]
    assert not set(seeds[0]) & set(seeds[2])


def test_a_shift_moves_the_image(classifier):
    value, images = nrcg.ClassValue(classifier, 0, "logit"), to_float(SportBalls(**CONFIG["images"]).image(0)[None])
    shifted = imagenet_guides.Shifted(value, (-2, 2))(images).item()
    moved = [np.roll(images.numpy(), (down, right), (2, 3)) for down in (-2, 2) for right in (-2, 2)]
    for image, (down, right) in zip(moved, [(d, r) for d in (-2, 2) for r in (-2, 2)], strict=True):
        image[:, :, slice(0, 2) if down > 0 else slice(-2, None)] = 1.0
        image[:, :, :, slice(0, 2) if right > 0 else slice(-2, None)] = 1.0
    expected = np.mean([value(images.new_tensor(image)).item() for image in moved])
    assert shifted == pytest.approx(expected, abs=1e-4)
