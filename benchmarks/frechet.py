"""Fréchet distance of 2 048 features: ours against pytorch-fid's own functions, in three parts.

Inception over images (random weights: those of pytorch-fid would have to be fetched), ours from an image set, theirs
from PNG files; mean and covariance of given features, ours in batches, theirs at once; and the distance.
Whether memory stays flat with the number of images is what `python -m benchmarks score-memory` shows.
"""

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytorch_fid.inception
import torch
import torchvision
from PIL import Image
from pytorch_fid.fid_score import calculate_frechet_distance

from benchmarks import plain
from benchmarks.command import run
from benchmarks.measure import Way, flops
from benchmarks.work import OURS, Reach, Settings, Work
from nrcg.datasets.imageset import write_image_set
from nrcg.evaluation.extractors import Extractor, load_extractor
from nrcg.evaluation.frechet import FeatureStatistics, GatheredStatistics, frechet_distance
from nrcg.evaluation.score import reference_statistics

AGAINST = "pytorch-fid"
NO_SLOWER = Reach(ratio=0.95)  # 5 % is what equal ways may differ by
N_IMAGES = {"cpu": 32, "cuda": 2048}
N_FEATURES, FEATURES, BATCH = 16_384, 2048, 64


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


def their_inception(weights: Path, device: torch.device) -> torch.nn.Module:
    """pytorch-fid's network; it would download its weights while it is built."""
    loader = pytorch_fid.inception.load_state_dict_from_url
    pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: torch.load(weights, weights_only=True)
    try:
        return pytorch_fid.inception.InceptionV3().to(device).eval()
    finally:
        pytorch_fid.inception.load_state_dict_from_url = loader


def inception_flops(extractor: Extractor) -> int:
    """Of one image's pass."""
    return flops(lambda: extractor(np.zeros((1, 64, 64, 3), np.uint8)))


def inception_work(settings: Settings) -> Iterator[Work]:
    n = settings.batch or N_IMAGES[settings.device.type]
    images = np.random.default_rng(0).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder / "weights.pth")
        files = [folder / f"{i:06d}.png" for i in range(n)]
        for path, image in zip(files, images, strict=True):
            Image.fromarray(image).save(path)
        train = np.zeros(n)  # the split and the labels
        write_image_set(folder / "set", images, train, train, name="noise", classes=["noise"], seed=0, parameters={})
        extractor = load_extractor("inception", weights=folder / "weights.pth", device=settings.device)
        inception = their_inception(folder / "weights.pth", settings.device)
        batch, workers = min(BATCH, n), min(os.cpu_count() or 1, 8)  # as pytorch-fid's command line chooses them
        theirs = partial(
            plain.inception_statistics, files, inception, batch=batch, workers=workers, device=settings.device
        )
        yield Work(
            name="Inception statistics",
            size=f"{n} images of 64×64",
            amount=n,
            unit="image",
            ways={
                AGAINST: lambda: theirs,
                OURS: lambda: partial(reference_statistics, folder / "set", extractor, batch_size=batch),
            },
            against=AGAINST,
            reach=NO_SLOWER,
            floor="an Inception pass",
            flops=inception_flops(extractor),
            repeats=min(settings.repeats, 3),
        )


def our_statistics(features: np.ndarray) -> FeatureStatistics:
    """As scoring takes them in, batch by batch."""
    gathered = GatheredStatistics(features.shape[1])
    for start in range(0, len(features), BATCH):
        gathered.update(features[start : start + BATCH])
    return gathered.result()


def distance_ways(a: FeatureStatistics, b: FeatureStatistics) -> dict[str, Way]:
    return {
        AGAINST: lambda: calculate_frechet_distance(a.mean, a.cov, b.mean, b.cov),
        OURS: lambda: frechet_distance(a, b),
    }


def feature_works(settings: Settings) -> Iterator[Work]:
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(N_FEATURES, FEATURES)) * rng.uniform(0.1, 2, FEATURES) for _ in range(2)]
    common = {"against": AGAINST, "reach": NO_SLOWER}
    yield Work(
        name="statistics of features",
        size=f"{N_FEATURES} × {FEATURES}, float64",
        amount=N_FEATURES,
        unit="image",
        ways={
            AGAINST: lambda: partial(plain.feature_statistics, features[0]),
            OURS: lambda: partial(our_statistics, features[0]),
        },
        floor="a matrix product",
        repeats=settings.repeats,
        **common,
    )
    ways = distance_ways(*(our_statistics(part) for part in features))
    yield Work(
        name="Fréchet distance",
        size=f"{FEATURES} features",
        amount=1,
        unit="distance",
        ways={name: partial(lambda way: way, way) for name, way in ways.items()},
        floor="a matrix root",
        repeats=2,
        warm=False,
        **common,
    )


def works(settings: Settings) -> Iterator[Work]:
    yield from inception_work(settings)
    yield from feature_works(settings)


def main(arguments: list[str]) -> None:
    run("frechet", __doc__, [works], arguments)
