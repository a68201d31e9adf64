"""What no one would call a sample of the target class is told from its images by the numbers that are shown.

SportBalls at 32×32 as EfficientNet-Lite0 sees them; nothing was trained on these images.
"""

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from nrcg.datasets.sportballs import SportBalls
from nrcg.evaluation.comparison import Pair
from nrcg.evaluation.extractors import extractors
from nrcg.evaluation.features import reference
from nrcg.evaluation.metrics import metrics
from nrcg.evaluation.score import Point, score
from nrcg.evaluation.uncertainty import Z95

N = 48  # samples
SHOWN = ["fd", "kid", "precision", "recall", "density", "coverage", "off_manifold"]
LARGE_IS_BAD = ["fd", "kid", "off_manifold"]


def shreds(target, other):
    """Made of N images of the target class, and N of another one."""
    random = np.random.default_rng(0)
    made = {
        "uniform noise": random.integers(0, 256, target.shape),
        "noisy": target + random.normal(0, 40, target.shape),
        "blurred": gaussian_filter(target.astype(float), (0, 1, 1, 0)),
        "blank": np.full(target.shape, 255),
        "copies of one": np.repeat(target[:1], N, axis=0),
        "of another class": other,
    }
    return {name: images.clip(0, 255).astype(np.uint8) for name, images in made.items()}


def far_off(value, known, metric):
    """Whether a number is worse than that of real images by three of its standard errors."""
    error = (known["high"] - known["low"]) / 2 / Z95
    return (value - known["value"]) * (1 if metric in LARGE_IS_BAD else -1) > 3 * error


def test_shreds_have_bad_numbers(tmp_path):
    kind, extractor = SportBalls(n=450, size=32, ball_pixels=16, positions=16), extractors["efficientnet_lite0"](None)
    kind.make(tmp_path)
    real = reference(tmp_path, extractor, target=0, batch_size=64)

    def more(label, start):
        """N images of a class that are not in the set."""
        return np.stack([kind.image(3 * i + label) for i in range(150 + start, 150 + start + N)])

    def features(images):
        return extractor(images).astype(np.float32)

    target = more(0, 0)
    verdicts = pd.DataFrame({"seed": range(N), "diverged": False, "guiding": "a", "judge": "a"})
    how = {"target": "a", "classes": ["a"], "references": {"it": real}, "chosen": SHOWN}
    table = score(Point(verdicts, {"it": features(target)}), **how).set_index("metric")
    known, found = {metric: table.loc[f"c{metric}_it"] for metric in SHOWN}, {}
    for name, images in {"real": more(0, N), **shreds(target, more(1, 0))}.items():
        pair = Pair.of(features(images), real.target)
        found[name] = [metric for metric in SHOWN if far_off(metrics[metric](pair), known[metric], metric)]
    assert found.pop("real") == []
    assert len(found) == 6 and all(len(bad) >= 2 for bad in found.values()), found
