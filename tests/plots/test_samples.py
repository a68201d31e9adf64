"""Sample grids and side-by-side samples: every pixel in its place."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scored import add_scores, rows_of, write_scores

from nrcg.errors import NrcgError
from nrcg.plots.samples import LINES, plot_grid, plot_side_by_side

SETUPS = Path(__file__).parents[2] / "config" / "setups.yaml"
FREE, X0 = ("unconditional", None), "nonrobust_x0"


def make_shard(folder: Path, name: str, start: int, n: int = 6, size: int = 8, diverged: tuple[int, ...] = ()) -> Path:
    images = np.random.default_rng(start).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    np.save(folder / f"{name}.npy", images)
    (folder / f"{name}.json").write_text(json.dumps({"seeds": [start, start + n], "diverged": list(diverged)}))
    return folder / f"{name}.npy"


def find_block(page: np.ndarray, block: np.ndarray) -> bool:
    """Whether `block` stands in `page` pixel by pixel."""
    starts = np.argwhere((page[: -block.shape[0], : -block.shape[1]] == block[0, 0]).all(axis=-1))
    return any(np.array_equal(page[y : y + block.shape[0], x : x + block.shape[1]], block) for y, x in starts)


def side_by_side(folder: Path, shards: dict, tuning=(), **changes):
    """The figure of shards by (setup, scale), with distances that grow with the scale."""
    rows = [row for setup, scale in shards for row in rows_of(setup, scale or "", {"cfd_judge": scale or 1}, n=8)]
    write_scores(folder / "scores.csv", rows)
    add_scores(folder / "scores.csv", rows_of("real", "", {"cfd_judge": 0.1}) + list(tuning))
    points = [{"setup": setup, "scale": scale, "shard": str(path)} for (setup, scale), path in shards.items()]
    arguments = {"csv": folder / "scores.csv", "setups": SETUPS, "points": points} | changes
    return plot_side_by_side([folder / "x.png"], **arguments)


def test_side_by_side_shows_each_setup_at_its_best_scale(tmp_path):
    keys = [(X0, 15), (X0, 3), ("robust", 2), FREE]
    shards = {key: make_shard(tmp_path, f"s{i}", 0, size=8) for i, key in enumerate(keys)}
    fig = side_by_side(tmp_path, shards, n=2)
    labels = ["unconditional", "robust, s = 2", "non-robust + $\\hat{x}_0$,\ns = 3"]  # in the order of the setups
    assert [text.get_text() for text in fig.axes[0].texts] == [*labels, "seed 0", "1"]
    tuning = [row for scale, value in ((15, 1.0), (3, 2.0)) for row in rows_of(
        X0, scale, {"cfd_judge": value}, seeds="tuning", half=None)]  # fmt: skip
    judged = rows_of(X0, 15, {"accuracy_judge": 0.934}) + rows_of("unconditional", "", {"accuracy_judge": 0.36})
    few = {key: shards[key] for key in keys if key[0] != "robust"}
    fig = side_by_side(tmp_path, few, tuning, n=2)
    assert fig.axes[0].texts[1].get_text() == "non-robust + $\\hat{x}_0$,\ns = 15"  # the nearest of those samples
    fig = side_by_side(tmp_path, few, [*tuning, *judged], n=2)
    texts = [text.get_text().replace("\n", " ") for text in fig.axes[0].texts[:2]]
    assert texts == ["unconditional; judge 36 %", "non-robust + $\\hat{x}_0$, s = 15; judge 93 %"]
    points = [{"setup": X0, "scale": 15, "shard": "s0.npy"}]
    with pytest.raises(NrcgError, match=f"no shard of {X0} at scale 3; add it"):
        side_by_side(tmp_path, {(X0, 15): 0, (X0, 3): 0}, points=points)


def test_grid_is_pixel_exact_and_in_order_of_seeds(tmp_path):
    late, early = make_shard(tmp_path, "late", 6), make_shard(tmp_path, "early", 0)
    outputs = [tmp_path / "grid.png", tmp_path / "grid.pdf"]
    plot_grid(outputs, shards=[late, early], n=7, columns=4, title="T", note="N")
    assert outputs[1].read_bytes().startswith(b"%PDF")
    page = np.asarray(Image.open(outputs[0]).convert("RGB"))
    # 4 columns of 8 pixels and 5 separators are 37 pixels; 41 times that is the first to reach 1500.
    images = np.concatenate([np.load(early), np.load(late)])[:7]
    sheet = np.full((19, 37, 3), LINES, np.uint8)
    for i, image in enumerate(images):
        sheet[1 + i // 4 * 9 :, 1 + i % 4 * 9 :][:8, :8] = image
    sheet[10:, 28:] = 255  # where there is no eighth image, there is no frame
    assert find_block(page, sheet.repeat(41, axis=0).repeat(41, axis=1))


def test_diverged_samples_are_framed(tmp_path):
    shards = {FREE: make_shard(tmp_path, "a", 4), (X0, 3): make_shard(tmp_path, "b", 4, n=9, diverged=(5, 8, 12))}
    fig = side_by_side(tmp_path, shards, n=10)
    ax = fig.axes[0]
    labels = ["unconditional", "non-robust + $\\hat{x}_0$,\ns = 3"]
    assert [text.get_text() for text in ax.texts[:3]] == [*labels, "seed 4"]
    assert len(ax.texts) == 2 + 6  # as many columns as the shortest row has
    # second row, second and fifth column; the frame runs along the middle of the separators
    assert [patch.get_xy() for patch in ax.patches] == [(9.5, 9.5), (36.5, 9.5)]
    assert "Red frame" in fig.texts[-1].get_text()


def test_grids_refuse_what_does_not_fit(tmp_path):
    a, b = make_shard(tmp_path, "a", 0), make_shard(tmp_path, "b", 6)
    with pytest.raises(NrcgError, match=r"b\.npy: seeds start at 6"):
        side_by_side(tmp_path, {FREE: a, (X0, 3): b})
    with pytest.raises(NrcgError, match="side_by_side: n 0: must be a whole number"):
        side_by_side(tmp_path, {FREE: a}, n=0)
    with pytest.raises(NrcgError, match="points: unknown key seed; nearest are "):
        side_by_side(tmp_path, {FREE: a}, points=[{"setup": "robust", "shard": "a.npy", "seed": 1}])
    with pytest.raises(NrcgError, match=r"big\.npy: images differ in size"):
        plot_grid([tmp_path / "x.png"], shards=[a, make_shard(tmp_path, "big", 6, size=9)])
    (tmp_path / "b.json").write_text('{"seeds": [6, 20], "diverged": []}')
    with pytest.raises(NrcgError, match=r"b\.npy: 6 images.*\[6, 20\]"):
        plot_grid([tmp_path / "x.png"], shards=[b])
    (tmp_path / "b.json").unlink()
    with pytest.raises(NrcgError, match=r"b\.json: no such file"):
        plot_grid([tmp_path / "x.png"], shards=[b])
