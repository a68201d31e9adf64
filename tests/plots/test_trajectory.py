"""Trajectories: frames in their places, curves that are medians of what was measured, and animations."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nrcg.errors import NrcgError
from nrcg.io.traces import MEASURED, write_trace
from nrcg.plots.style import MILLISECONDS
from nrcg.plots.trajectory import plot_trajectory, plot_trajectory_curves

SETUPS = Path(__file__).parents[2] / "config" / "setups.yaml"
STEPS, SEEDS, TOTAL = 10, 5, 100
FACTOR = 41  # 4 columns of 8 pixels and 5 separators are 37 pixels; 41 times that is the first to reach 1500
TIMES = np.arange(90, -1, -10) / TOTAL


def make_trace(folder, setup, scale, *, guided=True, diverged=(), seed=0, shown=3, **changes):
    """A trace of random frames and measurements: its entry among the arguments, its frames and what it holds."""
    random = np.random.default_rng(seed)
    kept = np.linspace(0, STEPS - 1, 5).round().astype(int)
    frames = random.integers(0, 256, (len(kept) + 1, shown, 8, 8, 3), dtype=np.uint8)
    names = MEASURED if guided else ("clipped",)
    measured = {name: random.random((STEPS, SEEDS)) for name in names}
    for name in names:
        if name.endswith("_cosine"):
            measured[name][0] = np.nan
    for seed in diverged:
        for values in measured.values():
            values[:, seed] = np.inf
    measured |= {name: value for name, value in changes.items() if name in MEASURED}
    card = {
        "seeds": [0, SEEDS],
        "times": TIMES[kept].tolist(),
        "diverged": list(diverged),
        "num_train_timesteps": TOTAL,
    }
    write_trace(folder / f"{setup}.npy", frames, TIMES, measured, card | changes.get("card", {}))
    return {"setup": setup, "scale": scale, "trace": str(folder / f"{setup}.npy")}, frames, measured


def find(page, image):
    """Row and column of an enlarged image in the page, pixel by pixel."""
    block = image.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1)
    for y, x in np.argwhere((page == block[0, 0]).all(axis=-1)):
        if np.array_equal(page[y : y + len(block), x : x + len(block)], block):
            return int(y), int(x)
    raise AssertionError("not on the page")


def test_a_strip_is_pixel_exact_in_the_order_of_setups_and_times(tmp_path):
    robust, frames, _ = make_trace(tmp_path, "robust", 3, seed=1)
    free, others, _ = make_trace(tmp_path, "unconditional", None, guided=False, seed=2)
    fig = plot_trajectory([tmp_path / "a.png"], traces=[robust, free], setups=SETUPS, columns=4, n=2)
    page = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    shown = [0, 2, 3, 5]  # of five frames and the sample
    places = [[find(page, each[k, seed]) for k in shown] for each in (others, frames) for seed in range(2)]
    assert all(row == sorted(row, key=lambda place: place[1]) and len({y for y, _ in row}) == 1 for row in places)
    assert [row[0][0] for row in places] == sorted(row[0][0] for row in places)
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert texts == ["unconditional", "", "robust, s = 3", "", "t = 90", "50", "20", "sample"]
    assert "from top to bottom: 0, 1." in fig.texts[-1].get_text()


def test_curves_are_medians_over_the_samples_that_did_not_diverge(tmp_path):
    robust, _, measured = make_trace(tmp_path, "robust", 3, diverged=(1,))
    free, _, clipped = make_trace(tmp_path, "unconditional", None, guided=False, seed=4)
    fig = plot_trajectory_curves([tmp_path / "a.png"], traces=[robust, free], setups=SETUPS)
    names = ["gradient_norm", "direction_norm", "gradient_cosine", "direction_cosine", "clipped"]
    for name, ax in zip(names, fig.axes, strict=False):
        lines = [line for line in ax.lines if len(line.get_xdata()) > 2]
        kept = np.delete(measured[name], 1, axis=1) * (3 if name == "direction_norm" else 1)
        first = 1 if name.endswith("_cosine") else 0
        np.testing.assert_allclose(lines[-1].get_xdata(), TIMES[first:])
        np.testing.assert_allclose(lines[-1].get_ydata(), np.median(kept, axis=1)[first:])
        assert len(lines) == (2 if name == "clipped" else 1)
    np.testing.assert_allclose(fig.axes[4].lines[0].get_ydata(), np.median(clipped["clipped"], axis=1))
    assert fig.axes[0].get_xlim() == (0.9, 0) and "5 samples" in fig.texts[-1].get_text()
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend == ["unconditional", "robust, s = 3"]


def test_a_vanished_gradient_does_not_stretch_the_axis(tmp_path):
    lengths = np.ones((STEPS, SEEDS))
    lengths[5:] = [1e-30, 1e-30, 0, 0, 0]
    trace, _, _ = make_trace(tmp_path, "robust", 3, gradient_norm=lengths)
    ax = plot_trajectory_curves([tmp_path / "a.png"], traces=[trace], setups=SETUPS).axes[0]
    assert 1e-5 < ax.get_ylim()[0] < 1e-4 and ax.get_ylim()[1] < 10
    assert ax.lines[0].get_ydata()[5:] == pytest.approx(1e-4)


def test_setups_without_guidance_alone_have_a_figure(tmp_path):
    free, _, _ = make_trace(tmp_path, "unconditional", None, guided=False)
    plot_trajectory_curves([tmp_path / "a.png", tmp_path / "a.pdf"], traces=[free], setups=SETUPS)
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("suffix", ["webp", "gif"])
def test_it_moves_from_the_first_time_to_the_sample(tmp_path, suffix):
    trace, _, _ = make_trace(tmp_path, "robust", 3)
    outputs = [tmp_path / f"a.{suffix}", tmp_path / "a.png"]
    plot_trajectory(outputs, traces=[trace], setups=SETUPS, title="T")
    with Image.open(outputs[0]) as movie:
        assert movie.n_frames == 6 and movie.info["loop"] == 0 and movie.format == suffix.upper()
        durations = []
        for k in range(movie.n_frames):
            movie.seek(k)
            movie.load()
            durations.append(movie.info["duration"])
    assert durations == [MILLISECONDS] * 5 + [20 * MILLISECONDS] and outputs[1].exists()


def test_what_does_not_fit_is_named(tmp_path):
    out = [tmp_path / "a.png"]
    robust, _, _ = make_trace(tmp_path, "robust", 3)
    other, _, _ = make_trace(tmp_path, "nonrobust", 5, card={"times": [0.5, 0.4, 0.3, 0.2, 0.1]})
    with pytest.raises(NrcgError, match=r"nonrobust\.npy: times, seeds or sizes differ from .*robust\.npy"):
        plot_trajectory(out, traces=[robust, other], setups=SETUPS)
    with pytest.raises(NrcgError, match="no traces; name at least one"):
        plot_trajectory(out, traces=[], setups=SETUPS)
    with pytest.raises(NrcgError, match="trajectory: columns 1: must be a whole number of at least 2"):
        plot_trajectory(out, traces=[robust], setups=SETUPS, columns=1)
    with pytest.raises(NrcgError, match=r"holds 'rubust', which is not in"):
        plot_trajectory(out, traces=[{**robust, "setup": "rubust"}], setups=SETUPS)
    with pytest.raises(NrcgError, match=r"none\.json: no such file"):
        plot_trajectory(out, traces=[{**robust, "trace": str(tmp_path / "none.npy")}], setups=SETUPS)
    with pytest.raises(NrcgError, match=r"a\.webp: figures are written as \.png, \.pdf"):
        plot_trajectory_curves([tmp_path / "a.webp"], traces=[robust], setups=SETUPS)
    Path(robust["trace"]).write_bytes(b"damaged")
    with pytest.raises(NrcgError, match=r"robust\.npy: its SHA-256 differs from that in .*robust\.json"):
        plot_trajectory(out, traces=[robust], setups=SETUPS)
