import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests compare bits; the networks are tiny anyway

import shutil

import numpy as np
import pytest
import torch
import torchvision
from environment_yml import ROOT
from published_layouts import make_celeba, make_celebahq, make_published_ddpm

from nrcg.datasets.imageset import ImageSet, write_image_set

TINY_UNET = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": [8, 16],
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
}

# What `make test-fast` leaves out: tests that take long by their file or a fixture. `pytest --durations=0` measures.
SLOW_FILES = {
    "cli/test_console.py",
    "evaluation/test_fid.py",
    "evaluation/test_shreds.py",
    "evaluation/test_uncertainty.py",
    "report/test_findings.py",
    "report/test_plan.py",
    "runtime/test_memory.py",
    "runtime/test_preemption.py",
    "runtime/test_warm.py",
    "test_benchmarks.py",
    "test_robustness.py",
    "test_pretended_cuda.py",
    "test_sampling.py",
    "test_speed.py",
    "test_tutorials.py",
    "test_wheel.py",
    "training/test_classifier.py",
    "training/test_ddpm.py",
    "training/test_distributed.py",
}
SLOW_FIXTURES = {"checkout", "inception_weights"}


def pytest_collection_modifyitems(items):
    """Mark each test by what it starts, and as fast where it is no slow one; files that take longest come first."""
    for item in items:
        fixtures, path = set(item.fixturenames), item.path.relative_to(ROOT / "tests")
        if path.parts[0] == "workflow" or "checkout" in fixtures:
            item.add_marker("workflow")
        if path.name == "test_slurm.py":
            item.add_marker("slurm")
        slow = any(item.get_closest_marker(name) for name in ("workflow", "slurm", "gpu"))
        if not slow and str(path) not in SLOW_FILES and not fixtures & SLOW_FIXTURES:
            item.add_marker("fast")
    longest = ("test_workflow.py", "test_slurm.py", "test_distributed.py", "test_config_checks.py")
    items.sort(key=lambda item: longest.index(item.path.name) if item.path.name in longest else len(longest))


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def blob_set(tmp_path_factory) -> ImageSet:
    """96 images of 8×8 in three classes that a small network can tell apart: red, green or blue on grey."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 3
    images = rng.integers(100, 140, (96, 8, 8, 3), dtype=np.uint8)
    for i, label in enumerate(labels):
        images[i, 2:6, 2:6, label] = 250
    folder = tmp_path_factory.mktemp("blobs")
    split = (np.arange(96) >= 64).astype(np.uint8)
    write_image_set(folder, images, labels, split, name="blobs", classes=["r", "g", "b"], seed=0, parameters={})
    return ImageSet.open(folder)


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """A random Inception whose batch norms were fitted to noise, so that its features are neither zero nor huge."""
    torch.manual_seed(0)
    network = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 299, 299) * 2 - 1)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with the project's config and data in the published layouts; no test writes into the project."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "config", folder / "config")
    (folder / "resources").symlink_to(ROOT / "resources")
    make_celeba(folder / "data/celeba")
    make_celebahq(folder / "data/celeba-hq-256x256")
    make_published_ddpm(folder / "data/ddpm-celebahq-256")
    return folder
