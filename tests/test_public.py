"""What a user of the library reaches from `import nrcg`."""

import subprocess
import sys

import pytest
import torch
from pipelines import draw, make_pipeline

import nrcg
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import save_classifier


def test_public_names_are_listed_and_there():
    assert set(nrcg.__all__) <= set(dir(nrcg))
    assert {"load_classifier", "speed", "GuidedDDPMPipeline", "ClassifierGuidance", "EMA", "Adam"} <= set(nrcg.__all__)
    assert all(getattr(nrcg, name) is not None for name in nrcg.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Emma'"):
        _ = nrcg.Emma


def test_importing_the_package_imports_no_torch_and_speed_needs_no_import_of_its_own():
    code = "import sys, nrcg; dir(nrcg); assert 'torch' not in sys.modules; nrcg.speed.prepare"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_folder_of_the_same_name_is_not_the_package(tmp_path):
    """A script may lie beside a clone, which is a folder `nrcg` without an __init__.py."""
    (tmp_path / "nrcg").mkdir()
    assert subprocess.run([sys.executable, "-c", "import nrcg; nrcg.speed"], cwd=tmp_path).returncode == 0


def test_bad_input_is_a_value_error():
    assert issubclass(nrcg.NrcgError, ValueError)


def test_a_classifiers_folder_guides(tmp_path):
    torch.manual_seed(0)
    model = build_classifier("mobilenet_v3_small", 3)
    card = {"architecture": "mobilenet_v3_small", "classes": ["r", "g", "b"], "n_logits": 3}
    save_classifier(tmp_path, model, card)
    classifier = nrcg.load_classifier(tmp_path)
    assert not classifier.training and classifier.card.items() >= card.items()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(classifier(images), model.eval()(images))
    guidance = nrcg.ClassifierGuidance(classifier, target=classifier.card["classes"].index("g"), scale=5.0)
    assert draw(make_pipeline(), guidance).images.shape == (2, 3, 8, 8)
    with pytest.raises(nrcg.NrcgError, match=r"card\.json: no such file"):
        nrcg.load_classifier(tmp_path / "none")
