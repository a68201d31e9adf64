"""Does the memory of scoring grow with the number of samples?

Each count is scored in a process of its own, by `nrcg.evaluation.score.score`, from shards of 1 024 samples of 64×64 on
disk, against statistics of 2 048 features. The feature network is a stand-in of Inception's output size (pooled pixels
times a fixed random matrix): Inception's own memory depends on the batch, not on the count, and it would take
hours here. The distance itself is left out: its matrix root needs 1.1 GB whatever the count, and would hide the rest.

Seen on two CPU cores: 955 MB at 1 000, at 10 000 and at 50 176 samples.

Floor: the float64 sums, 2048² × 8 bytes = 34 MB a statistic, and a batch of images; neither depends on the count.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from nrcg.io.files import sha256

COUNTS = (1_000, 10_000, 50_176)
SHARD, SIZE, FEATURES = 1_024, 64, 2_048


def write_shards(folder: Path, n: int) -> list[Path]:
    """Noise in the format of `nrcg sample`."""
    rng, paths = np.random.default_rng(0), []
    for start in range(0, n, SHARD):
        stop = min(start + SHARD, n)
        path = folder / f"shard_{start // SHARD:03d}.npy"
        np.save(path, rng.integers(0, 256, (stop - start, SIZE, SIZE, 3), dtype=np.uint8))
        card = {"seeds": [start, stop], "diverged": [], "sha256": sha256(path)}
        path.with_suffix(".json").write_text(json.dumps(card))
        paths.append(path)
    return paths


def measure(paths: list[Path], results: "multiprocessing.Queue") -> None:
    """Score the shards; put the peak resident memory in MB and the seconds."""
    import torch
    from torch.nn.functional import avg_pool2d

    from nrcg.evaluation import score as module
    from nrcg.evaluation.extractors import Extractor
    from nrcg.evaluation.frechet import FeatureStatistics
    from nrcg.models.classifier import build_classifier

    matrix = torch.randn(3 * 16 * 16, FEATURES, generator=torch.manual_seed(0))
    extractor = Extractor("inception", FEATURES, lambda x: avg_pool2d(x, 4).flatten(1) @ matrix, "cpu")
    reference = FeatureStatistics.empty(FEATURES)
    reference.update(np.random.default_rng(1).normal(size=(2 * FEATURES, FEATURES)))
    classifier = (build_classifier("mobilenet_v3_small", 3).eval(), {"classes": ["a", "b", "c"]})
    started = time.monotonic()
    references = {"inception": (extractor, reference, reference)}
    module.frechet_distance = lambda *_: 0.0
    module.score(paths, target=0, guiding=classifier, judge=classifier, references=references)
    results.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, time.monotonic() - started))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks score-memory", description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    context, rows = multiprocessing.get_context("spawn"), []
    for n in options.counts:
        with tempfile.TemporaryDirectory() as folder:
            results = context.Queue()
            process = context.Process(target=measure, args=(write_shards(Path(folder), n), results))
            process.start()
            megabytes, seconds = results.get()
            process.join()
        rows.append({"samples": n, "peak_mb": round(megabytes), "seconds": round(seconds)})
        print(f"{n:>7} samples: peak {megabytes:6.0f} MB, {seconds:5.0f} s", flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")
