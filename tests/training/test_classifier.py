import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from nrcg.errors import NrcgError
from nrcg.io.images import to_float
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import features, load_classifier, predictions
from nrcg.rng import keyed_generator
from nrcg.training import classifier as module
from nrcg.training.classifier import ClassifierTraining, train_classifier
from nrcg.training.common import noised

SCHEDULER = {"num_train_timesteps": 10, "beta_end": 0.2}
# Batches of 4: enough steps to tell the classes apart on any processor
JUDGE = ClassifierTraining(
    "resnet18_judge", max_epochs=8, batch_size=4, learning_rate=1e-3, warmup_steps=2, min_epochs=7
)


def run(data, out, settings=JUDGE):
    train_classifier(
        data, out, scheduler=SCHEDULER, settings=settings, checkpoint=out / "c.pt", device=torch.device("cpu")
    )


@pytest.fixture(scope="module")
def judge(blob_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    run(blob_set.folder, folder)
    return folder


def test_judge_learns_and_its_card_and_log_say_so(judge, blob_set):
    model, card = load_classifier(judge)
    valid = blob_set.indices("valid")
    with torch.no_grad():
        guesses = predictions(model(to_float(blob_set.images[valid])))
    accuracy = (guesses.numpy() == blob_set.labels[valid]).mean()
    assert accuracy > 0.9 and accuracy == pytest.approx(card["valid_accuracy"])
    assert card["classes"] == ["r", "g", "b"] and card["data_digest"] == blob_set.card["digest"]
    log = pd.read_csv(judge / "log.csv")
    assert len(log) == 8 and log["valid_accuracy"].iloc[-1] == pytest.approx(accuracy)
    assert log["valid_accuracy_noisy"].iloc[-1] < accuracy


def test_interrupted_training_ends_with_the_same_bits(judge, blob_set, tmp_path, monkeypatch):
    original = module._Trainer.train_epoch

    def killed_in_the_third_epoch(self, stop):
        if len(self.rows) == 2:
            raise KeyboardInterrupt
        original(self, stop)

    monkeypatch.setattr(module._Trainer, "train_epoch", killed_in_the_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(blob_set.folder, tmp_path)
    monkeypatch.setattr(module._Trainer, "train_epoch", original)
    run(blob_set.folder, tmp_path)
    whole, resumed = load_file(judge / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_training_stops_when_nothing_is_gained(blob_set, tmp_path):
    settings = ClassifierTraining(max_epochs=6, batch_size=16, learning_rate=0.0, min_epochs=2, robust=True)
    run(blob_set.folder, tmp_path, settings)
    # three epochs: the third is the first that may be compared and gains nothing (BatchNorm moves the accuracy little)
    assert 3 <= json.loads((tmp_path / "card.json").read_text())["epochs"] < 6


def test_robust_training_sees_noise_and_clean_training_does_not(blob_set, tmp_path, monkeypatch):
    learning = []
    monkeypatch.setattr(module, "noised", lambda *given: learning.append(torch.is_grad_enabled()) or noised(*given))
    for robust in (False, True):
        learning.clear()
        run(blob_set.folder, tmp_path, ClassifierTraining(max_epochs=1, batch_size=32, robust=robust))
        assert any(learning) == robust and not all(learning)  # the validation sees it always


def test_noise_is_equation_2(blob_set):
    x0 = to_float(blob_set.images[:4]).double()
    x_t, noise, t = noised(module.build_scheduler(SCHEDULER), x0, "noise", 3)
    generator = keyed_generator("noise", 3)
    assert torch.equal(t, torch.randint(10, (4,), generator=generator))
    assert torch.equal(noise, torch.randn(x0.shape, generator=generator))
    bar = torch.cumprod(1 - torch.linspace(1e-4, 0.2, 10, dtype=torch.float64), 0)[t].view(-1, 1, 1, 1)
    assert torch.allclose(x_t, bar.sqrt() * x0 + (1 - bar).sqrt() * noise, atol=1e-6)


def test_features_are_what_the_judge_decides_on(judge):
    model, _ = load_classifier(judge)
    x = torch.rand(5, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        f = features(model, x)
        assert f.shape == (5, 64)
        assert torch.allclose(model.fc[2](f.relu()), model(x))


def test_weights_that_do_not_fit_are_refused_in_one_line(judge, tmp_path):
    with pytest.raises(NrcgError, match="no such file"):
        load_classifier(tmp_path)
    card = json.loads((judge / "card.json").read_text())
    for damage in (lambda b: b[: len(b) // 2], lambda b: b""):
        shutil.copytree(judge, tmp_path / "copy", dirs_exist_ok=True)
        weights = tmp_path / "copy" / "model.safetensors"
        weights.write_bytes(damage(weights.read_bytes()))
        with pytest.raises(NrcgError, match=r"^[^\n]*its SHA-256 differs from that in .*card\.json[^\n]*$"):
            load_classifier(tmp_path / "copy")
        unsealed = {key: value for key, value in card.items() if key != "sha256"}
        (tmp_path / "copy" / "card.json").write_text(json.dumps(unsealed))
        with pytest.raises(NrcgError, match=r"^[^\n]*not weights of resnet18_judge [^\n]*$"):
            load_classifier(tmp_path / "copy")
    shutil.copytree(judge, tmp_path / "copy", dirs_exist_ok=True)
    (tmp_path / "copy" / "card.json").write_text(json.dumps({**card, "architecture": "mobilenet_v3_small"}))
    with pytest.raises(NrcgError, match="not weights of mobilenet_v3_small"):
        load_classifier(tmp_path / "copy")
    with pytest.raises(NrcgError, match="unknown"):
        build_classifier("resnet99", 3)


def test_binary_predictions_follow_the_sign():
    assert predictions(torch.tensor([[-1.0], [2.0]])).tolist() == [0, 1]


def test_a_training_that_diverges_says_so(blob_set, tmp_path):
    with pytest.raises(NrcgError, match=r"diverged in epoch 1: .* lower learning_rate"):
        run(blob_set.folder, tmp_path, ClassifierTraining(max_epochs=1, batch_size=16, learning_rate=1e30))
    assert not list(tmp_path.iterdir())
