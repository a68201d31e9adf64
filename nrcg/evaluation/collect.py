"""Join what many jobs made into the one file that a figure is drawn from. Needs no torch, so that it starts fast."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.io.arrays import write_array
from nrcg.io.files import read_card, read_json, read_lines, sha256, write_json
from nrcg.io.shards import open_shards, verify

CURVE_COLUMNS = ["setup", "metric", "t", "mean", "std", "n"]
SCORE_COLUMNS = ["metric", "value", "stderr", "n", "n_diverged", "features"]
POINT = ["dataset", "setup", "scale"]


def select_curves(tables: Sequence[str | Path], metrics: Sequence[str], setups: Sequence[str]) -> pd.DataFrame:
    """The rows of `metrics` for `setups`, in the order of both, from CSV files of `forward_analysis`.

    Every setup must have the first metric; the others are taken where they were measured. Raises NrcgError for a file
    that is missing or not such a table, and for a setup without the first metric.
    """
    frames = []
    for path in tables:
        text = read_lines(path)
        try:
            frame = pd.read_csv(io.StringIO(text))
        except ValueError as error:
            reason = str(error).strip()
            raise NrcgError(f"{path}: not a table of curves ({reason}); run the forward analysis again") from None
        if list(frame.columns) != CURVE_COLUMNS:
            raise NrcgError(f"{path}: columns {list(frame.columns)}, expected {CURVE_COLUMNS}")
        frames.append(frame)
    curves = dict(list(pd.concat(frames).groupby(["metric", "setup"])))
    if missing := [setup for setup in setups if (metrics[0], setup) not in curves]:
        raise NrcgError(f"{tables[0]} and others: no {metrics[0]} of setup {missing[0]!r}")
    wanted = [(metric, setup) for metric in metrics for setup in setups]
    return pd.concat([curves[key] for key in wanted if key in curves], ignore_index=True)


def collect_scores(parts: Sequence[tuple[str, str, float | None, str | Path]]) -> pd.DataFrame:
    """Join scores of many points, sorted by data set, setup and scale; columns POINT + SCORE_COLUMNS.

    parts   (dataset, setup, scale, CSV file of `score`'s rows); scale None where there is none, sorted first

    Raises NrcgError for a file that is missing or has other columns.
    """
    tables = [
        _read_scores(path).assign(dataset=dataset, setup=setup, scale=np.nan if scale is None else float(scale))
        for dataset, setup, scale, path in parts
    ]
    if not tables:
        return pd.DataFrame(columns=POINT + SCORE_COLUMNS)
    table = pd.concat(tables, ignore_index=True)[POINT + SCORE_COLUMNS]
    return table.sort_values(POINT, kind="stable", na_position="first", ignore_index=True)


def given_scores(path: str | Path, dataset: str) -> pd.DataFrame:
    """The rows of `dataset` in a table that `collect_scores` made, in whichever run.

    Raises NrcgError for a file that is missing or has other columns, and for one without such rows.
    """
    table = _read_scores(path, POINT + SCORE_COLUMNS, "name a scores.csv of a run")
    rows = table[table["dataset"] == dataset]
    if rows.empty:
        raise NrcgError(f"{path}: no scores of {dataset!r}; it has {', '.join(map(str, table['dataset'].unique()))}")
    return rows


def _read_scores(
    path: str | Path, columns: Sequence[str] = SCORE_COLUMNS, remedy: str = "delete it and score again"
) -> pd.DataFrame:
    text = read_lines(path)
    try:
        table = pd.read_csv(io.StringIO(text), dtype={"features": "Int64"})
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise NrcgError(f"{path}: not a table of scores ({str(error).strip()}); {remedy}") from None
    if list(table.columns) != list(columns):
        raise NrcgError(f"{path}: columns {list(table.columns)}, expected {columns}; {remedy}")
    return table


def keep_first(shards: Sequence[str | Path], out: str | Path, n: int) -> None:
    """Write the first `n` samples of a point, by seed, as one shard: `out`, NAME.npy, with its card NAME.json.

    shards  sample shards that follow each other without a gap; what they share of their cards goes on the new one

    Raises NrcgError for a shard that is missing or does not fit, and for a gap between seeds.
    """
    verify([path for path in shards if "sha256" in read_card(Path(path).with_suffix(".json"))])
    opened = open_shards(shards)
    seeds = [seed for shard in opened for seed in shard.seeds]
    if len(seeds) != seeds[-1] - seeds[0] + 1:
        raise NrcgError(f"{opened[0].path} and others: their seeds have a gap; name shards that follow each other")
    images = np.concatenate([shard.images for shard in opened])[:n]
    diverged = np.concatenate([shard.diverged for shard in opened])[:n]
    write_array(out, images)
    cards = [read_json(shard.path.with_suffix(".json")) for shard in opened]
    shared = {key: value for key, value in cards[0].items() if all(card.get(key) == value for card in cards)}
    own = {
        "seeds": [seeds[0], seeds[0] + len(images)],
        "diverged": [seeds[0] + int(i) for i in np.flatnonzero(diverged)],
        "sha256": sha256(out),
    }
    write_json(Path(out).with_suffix(".json"), {**shared, **own})
