"""Reference features: the training images of a data set as seen by an extractor, for comparison with samples."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nrcg.errors import NrcgError
from nrcg.evaluation.comparison import Real
from nrcg.evaluation.frechet import FeatureStatistics
from nrcg.io.arrays import UNREADABLE
from nrcg.io.files import atomic

PARTS = ("all", "target")
KEYS = {"n": np.int64, "mean": np.float64, "scatter": np.float64, "pool": np.float32, "radii": np.float32,
        "reach": np.float64, "root": np.float64, "alike": np.float64}  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """Real images of all classes and of the target class."""

    all: Real
    target: Real

    def save(self, path: str | Path) -> None:
        arrays = {}
        for part, real in zip(PARTS, (self.all, self.target), strict=True):
            values = (*real.statistics.merged(), real.pool, real.radii, real.reach, real.root, real.alike)
            arrays |= {f"{part}_{key}": np.asarray(value, KEYS[key]) for key, value in zip(KEYS, values, strict=True)}
        with atomic(path) as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Reference":
        """Read a file of `save`."""
        try:
            with np.load(path, allow_pickle=False) as arrays:  # the format has one checksum per array
                parts = [{key: arrays[f"{part}_{key}"] for key in KEYS} for part in PARTS]
        except FileNotFoundError:
            raise NrcgError(f"{path}: no such file") from None
        except (*UNREADABLE, OSError, LookupError, AttributeError, NotImplementedError, zlib.error) as error:
            raise NrcgError(f"{path}: not a complete reference ({error}); delete it and make it again") from None
        for found in parts:
            dim = found["mean"].shape
            fits = len(dim) == 1 and found["scatter"].shape == 2 * dim and found["pool"].shape[1:] == dim
            fits = fits and found["root"].shape == 2 * dim and found["radii"].shape == found["pool"].shape[:1]
            if not fits or any(found[key].dtype != t or not np.isfinite(found[key]).all() for key, t in KEYS.items()):
                raise NrcgError(f"{path}: not a reference of finite numbers; delete it and make it again")
        return cls(*map(_real, parts))


def _real(found: dict[str, np.ndarray]) -> Real:
    statistics = FeatureStatistics.of(int(found["n"]), found["mean"], found["scatter"])
    return Real(statistics, found["pool"], found["radii"], float(found["reach"]), found["root"], float(found["alike"]))
