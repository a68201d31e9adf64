"""Traces of samples on disk: NAME.npy with x̂_0 over time, NAME.csv with one row per step and sample, NAME.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.io.arrays import read_array, write_array
from nrcg.io.files import read_card, require_digest, sha256, write_json
from nrcg.io.tables import read_table, write_table

MEASURED = ("gradient_norm", "gradient_cosine", "direction_norm", "direction_cosine", "clipped")
COLUMNS = ("step", "time", "seed", *MEASURED)


@dataclass(frozen=True, eq=False)
class TraceFile:
    """Measurements along the trajectories of consecutive seeds, and pictures of the first of them."""

    path: Path
    table: pd.DataFrame  # COLUMNS, one row per step and seed; NaN if not measured
    frames: np.ndarray  # uint8 (F + 1)×K×H×W×3, a memory map: x̂_0 at F steps, then the samples
    times: list[float]  # F: t / T of each frame but the last
    seeds: range  # K, of the frames
    n_seeds: int  # of the table
    diverged: list[int]  # seeds whose trajectory became non-finite
    total: int  # T

    @classmethod
    def open(cls, path: str | Path) -> "TraceFile":
        """Open NAME.npy, its table and its card; NrcgError names the file that is missing or does not fit."""
        path, place = Path(path), Path(path).with_suffix(".json")
        card = read_card(place, seeds=list, times=list, diverged=list, num_train_timesteps=int, sha256=dict)
        for suffix in (".npy", ".csv"):
            require_digest(path.with_suffix(suffix), card["sha256"].get(suffix), place)
        frames, table = read_array(path), read_table(path.with_suffix(".csv"), numbers=COLUMNS)
        (start, stop), times = card["seeds"], card["times"]
        if frames.dtype != np.uint8 or frames.ndim != 5 or len(frames) != len(times) + 1:
            raise NrcgError(f"{path}: {frames.dtype} {frames.shape}, not frames at {len(times)} times; trace it again")
        shown = range(start, start + frames.shape[1])
        return cls(path, table, frames, times, shown, stop - start, card["diverged"], card["num_train_timesteps"])


def write_trace(
    out: str | Path, frames: np.ndarray, times: np.ndarray, measured: Mapping[str, np.ndarray], card: dict[str, Any]
) -> None:
    """Write NAME.npy, NAME.csv beside it, and last NAME.json: `card` and the digests of both.

    Args:
        frames: uint8 (F + 1)×K×H×W×3.
        times: t / T of each of S steps.
        measured: float S×N by name, of MEASURED.
        card: `seeds` [start, stop] of N samples; `times` of F frames.
    """
    out, (start, stop) = Path(out), card["seeds"]
    rows: dict[str, Any] = {"step": np.arange(len(times)).repeat(stop - start), "time": times.repeat(stop - start)}
    rows["seed"] = np.tile(np.arange(start, stop), len(times))
    rows |= {name: measured[name].ravel() if name in measured else np.nan for name in MEASURED}
    write_array(out, frames)
    write_table(out.with_suffix(".csv"), pd.DataFrame(rows))
    digests = {suffix: sha256(out.with_suffix(suffix)) for suffix in (".npy", ".csv")}
    write_json(out.with_suffix(".json"), {**card, "sha256": digests})
