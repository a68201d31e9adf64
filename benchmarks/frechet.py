"""Fréchet distance of 2 048 features: ours against pytorch-fid's own functions, in three parts.

Inception over images (random weights: those of pytorch-fid would have to be fetched), ours from an image set, theirs
from PNG files; mean and covariance of given features, ours in batches, theirs at once; and the distance.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytorch_fid.inception
import torch
import torchvision
from PIL import Image
from pytorch_fid.fid_score import calculate_activation_statistics, calculate_frechet_distance

from benchmarks.measure import FLOOR, OURS, PLAIN, Settings, Work
from nrcg.datasets.imageset import write_image_set
from nrcg.evaluation.extractors import extractors
from nrcg.evaluation.frechet import FeatureStatistics, frechet_distance
from nrcg.evaluation.score import reference_statistics

N_FEATURES, FEATURES, BATCH = 16_384, 2048, 64
NO_SLOWER = {"ratio": 0.95}  # 5 % is what equal ways may differ by


def write_weights(path: Path) -> None:
    """A random Inception in pytorch-fid's layout; its batch norms fit noise, so that no feature becomes denormal."""
    torch.manual_seed(0)
    network = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 299, 299) * 2 - 1)
    torch.save(network.state_dict(), path)


def their_inception(folder: Path, device: torch.device) -> torch.nn.Module:
    """pytorch-fid's network; it would download its weights while it is built."""
    loader = pytorch_fid.inception.load_state_dict_from_url
    pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: torch.load(folder / "weights.pth")
    try:
        return pytorch_fid.inception.InceptionV3().to(device).eval()
    finally:
        pytorch_fid.inception.load_state_dict_from_url = loader


def our_statistics(features: np.ndarray) -> FeatureStatistics:
    """As scoring takes them in, batch by batch."""
    statistics = FeatureStatistics(features.shape[1])
    for start in range(0, len(features), BATCH):
        statistics.update(features[start : start + BATCH])
    statistics.merged()
    return statistics


def their_statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.mean(features, axis=0), np.cov(features, rowvar=False)


def works(settings: Settings) -> Iterator[Work]:
    device, n = settings.device, settings.batch or {"cpu": 32, "cuda": 2048}[settings.device.type]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder / "weights.pth")
        files = [folder / f"{i:06d}.png" for i in range(n)]
        for path, image in zip(files, images, strict=True):
            Image.fromarray(image).save(path)
        train = np.zeros(n)  # the split and the labels
        write_image_set(folder / "set", images, train, train, name="noise", classes=["noise"], seed=0, parameters={})
        extractor, theirs = extractors["inception"](folder / "weights.pth", device), their_inception(folder, device)
        batch, workers = min(BATCH, n), min(os.cpu_count() or 1, 8)  # as pytorch-fid's command line chooses them
        ways = {
            PLAIN: lambda: calculate_activation_statistics(files, theirs, batch, FEATURES, device, workers),
            OURS: lambda: reference_statistics(folder / "set", extractor, batch_size=batch),
            FLOOR: lambda: [extractor(images[i : i + batch]) for i in range(0, n, batch)],
        }
        repeats = min(settings.repeats, 3)
        yield Work(f"Inception statistics, {n} images of 64×64", ways, "Inception passes", NO_SLOWER, repeats)
    one, two = (rng.normal(size=(N_FEATURES, FEATURES)) * rng.uniform(0.1, 2, FEATURES) for _ in range(2))
    ways = {
        PLAIN: lambda: their_statistics(one),
        OURS: lambda: our_statistics(one),
        FLOOR: lambda: one.T @ one,
    }
    name = f"statistics of {N_FEATURES} × {FEATURES} features"
    yield Work(name, ways, "a matrix product", NO_SLOWER, settings.repeats)
    ours, theirs = [our_statistics(part) for part in (one, two)], (*their_statistics(one), *their_statistics(two))
    ways = {
        PLAIN: lambda: calculate_frechet_distance(*theirs),
        OURS: lambda: frechet_distance(*ours),
        FLOOR: lambda: np.linalg.eigh(theirs[1]),
    }
    yield Work(f"Fréchet distance, {FEATURES} features", ways, "eigenvectors of one covariance", NO_SLOWER, 2)
