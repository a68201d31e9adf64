"""Does the memory of scoring grow with the number of samples?

Each count is scored in a process of its own, from a shard of samples of 64×64 on disk. The feature network is a
stand-in of Inception's output size (pooled pixels times a fixed random matrix): Inception's own memory depends on the
batch, not on the count, and it would take hours here. The distance itself is left out: its matrix root needs 1.1 GB
whatever the count, and would hide the rest.

Floor: the float64 sums, 2048² × 8 bytes = 34 MB a statistic, and a batch of images; neither depends on the count.
"""

import multiprocessing
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from nrcg.evaluation import score as module
from nrcg.evaluation.extractors import Extractor
from nrcg.evaluation.frechet import FeatureStatistics
from nrcg.io.arrays import write_array_batches
from nrcg.io.files import sha256, write_json
from nrcg.models.classifier import build_classifier

COUNTS = (1_000, 10_000, 50_176)
SIZE, FEATURES = 64, 2_048


def write_shard(path: Path, n: int) -> Path:
    """Noise in the format of `nrcg sample`."""
    rng = np.random.default_rng(0)
    batches = (rng.integers(0, 256, (min(1024, n - i), SIZE, SIZE, 3), dtype=np.uint8) for i in range(0, n, 1024))
    write_array_batches(path, batches, (n, SIZE, SIZE, 3))
    write_json(path.with_suffix(".json"), {"seeds": [0, n], "diverged": [], "sha256": sha256(path)})
    return path


def measure(path: Path) -> float:
    """Score the shard; the peak resident memory of this process in MB."""
    matrix = torch.randn(3 * 16 * 16, FEATURES, generator=torch.manual_seed(0))
    extractor = Extractor(FEATURES, lambda x: avg_pool2d(x, 4).flatten(1) @ matrix)
    reference = FeatureStatistics(FEATURES)
    classifier = (build_classifier("mobilenet_v3_small", 3).eval(), {"classes": ["a", "b", "c"]})
    module.metrics = {"none": lambda *_: 0.0}
    references = {"inception": (extractor, reference, reference)}
    module.score([path], target=0, guiding=classifier, judge=classifier, references=references)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main(counts: Sequence[int] = COUNTS) -> None:
    for n in counts:
        with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
            megabytes = pool.apply(measure, [write_shard(Path(folder, "a.npy"), n)])
            print(f"{n:>7} samples: peak {megabytes:6.0f} MB", flush=True)
