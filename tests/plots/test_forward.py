"""Curves along the forward process, and of trainings."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn import both, is_png_and_pdf, legend, small_print
from scored import EMA

from nrcg.errors import NrcgError
from nrcg.plots.forward import plot_forward
from nrcg.plots.setups import read_setups
from nrcg.plots.style import styled
from nrcg.plots.training import plot_classifier_logs, plot_ddpm_log

ROOT = Path(__file__).parents[2]
SETUPS = ROOT / "config" / "setups.yaml"


def add_rows(path: Path, rows: list) -> None:
    pd.DataFrame(rows).to_csv(path, mode="a", header=False, index=False)


@pytest.fixture
def forward_csv(tmp_path):
    def make(metric: str) -> Path:
        rows = [
            (setup, metric, t, 1.0 / t / (1 + i), 3.0 / t, 64)  # std above mean: mean − std has no logarithm
            for i, setup in enumerate(["nonrobust_x0", "robust", "nonrobust"])
            for t in range(1, 21)
        ]
        path = tmp_path / f"{metric}.csv"
        pd.DataFrame(rows, columns=["setup", "metric", "t", "mean", "std", "n"]).to_csv(path, index=False)
        return path

    return make


def test_accuracy_curve(tmp_path, forward_csv):
    outputs = both(tmp_path, "figure1")
    fig = plot_forward(outputs, csv=forward_csv("accuracy"), setups=SETUPS, chance=1 / 3, title="T", note="N")
    assert is_png_and_pdf(outputs)
    assert legend(fig) == ["robust", "non-robust", r"non-robust + $\hat{x}_0$", "guessing"]
    ax = fig.axes[0]
    assert ax.get_yscale() == "linear" and ax.get_xticks()[0] == 1
    assert ax.lines[3].get_ydata()[0] == 1 / 3
    np.testing.assert_allclose(ax.lines[2].get_ydata(), 1 / np.arange(1, 21))
    low, high = np.array([path.get_extents().intervaly for path in ax.collections[2].get_paths()])[0]
    np.testing.assert_allclose([low, high], [0.017697, 1], rtol=1e-2)  # Wilson's of 1/20 and of 1, n = 64
    assert "95 % Wilson intervals. 64 images, 20 values of t." in small_print(fig) and not ax.texts


def test_a_plateau_where_all_images_are_given_one_class_is_named(tmp_path, forward_csv):
    path = forward_csv("accuracy")
    share = [("nonrobust", "one_class", t, 1.0 if t > 8 else 0.5, 0.0, 64) for t in range(1, 21)]
    add_rows(path, share)
    ax = plot_forward([tmp_path / "f.png"], csv=path, setups=SETUPS).axes[0]
    (word,) = ax.texts
    assert word.get_text() == "always one class" and word.get_position()[0] == (9 + 20) / 2
    assert word.get_color() == ax.lines[1].get_color()


def test_sensitivity_band_fits_a_log_axis(tmp_path, forward_csv):
    fig = plot_forward([tmp_path / "f.png"], csv=forward_csv("gradient_sensitivity"), setups=SETUPS)
    ax = fig.axes[0]
    assert ax.get_yscale() == "log" and len(ax.lines) == len(ax.collections) == 3 and len(fig.axes) == 1
    low, high = np.array([path.get_extents().intervaly for path in ax.collections[2].get_paths()])[0]
    # nonrobust_x0: mean 1/t, std 3/t; over all t the band spans from 1/4 of the last mean to 4 times the first
    np.testing.assert_allclose([low, high], [1 / 20 / 4, 4])


@pytest.mark.parametrize("reason", ["saturated", "clipped"])
def test_where_gradients_mean_nothing_is_shaded_named_pale_and_out_of_the_axis(tmp_path, forward_csv, reason):
    path = forward_csv("gradient_sensitivity")
    table = pd.read_csv(path)
    table.loc[(table.setup == "nonrobust_x0") & (table.t > 12), "mean"] = 1e-14
    table.to_csv(path, index=False)
    setups = ["nonrobust_x0", "robust", "nonrobust"]
    add_rows(path, [(setup, "relative_sensitivity", t, 0.1, np.nan, 64) for setup in setups for t in range(1, 21)])
    add_rows(path, [("nonrobust_x0", reason, t, 0.97 if t > 12 else 0.49, 0.1, 64) for t in range(1, 21)])
    fig = plot_forward([tmp_path / "f.png"], csv=path, setups=SETUPS)
    assert [ax.get_ylabel() for ax in fig.axes] == ["gradient sensitivity", "relative sensitivity"]
    words = {"saturated": "1 − p is below 10⁻⁶", "clipped": r"most of $\hat{x}_0$ (apart"}[reason]
    assert re.search(rf"excluded from claims: t = 13–20 \(non-robust \+ .*\): {re.escape(words)}", small_print(fig))
    for ax in fig.axes:
        (span,) = ax.patches
        assert span.get_x() == 12.5 and span.get_x() + span.get_width() == 20.5
        pale, line = ax.lines[2:]
        assert pale.get_alpha() < 0.5 and len(pale.get_ydata()) == 20 and np.isnan(line.get_ydata()[12:]).all()
        assert ax.get_ylim()[0] > 1e-3  # though a curve goes down to 1e-14
    assert legend(fig) == ["robust", "non-robust", r"non-robust + $\hat{x}_0$"]


def test_values_that_vanish_lie_below_the_axis_and_the_small_print_says_so(tmp_path, forward_csv):
    path = forward_csv("gradient_sensitivity")
    table = pd.read_csv(path)
    fig = plot_forward([tmp_path / "f.png"], csv=path, setups=SETUPS)
    assert "lie below the axis" not in small_print(fig)
    table.loc[(table.setup == "nonrobust") & (table.t > 12), "mean"] = 1e-14
    table.to_csv(path, index=False)
    fig = plot_forward([tmp_path / "f.png"], csv=path, setups=SETUPS)
    assert "Values more than 3 decades below the median of all lie below the axis." in small_print(fig)
    assert fig.axes[0].get_ylim()[0] == pytest.approx(table["mean"].median() / 1000 / 1.3)


def test_small_print_of_a_stabiliser_says_over_how_many_steps_it_ran(tmp_path):
    path = tmp_path / "figure4.csv"
    rows = [(EMA, "gradient_sensitivity", t, 1.0, 0.1, 64) for t in range(1, 101)]
    pd.DataFrame(rows, columns=["setup", "metric", "t", "mean", "std", "n"]).to_csv(path, index=False)
    fig = plot_forward([tmp_path / "f.png"], csv=path, setups=SETUPS)
    assert "EMA 0.9606 over 100 steps: weights sum to 0.98, as over the paper's 400." in small_print(fig)


def test_a_file_without_t_and_a_suffix_of_another_kind_are_refused(tmp_path, forward_csv):
    path = forward_csv("accuracy")
    with pytest.raises(NrcgError, match=r"x\.svg: figures are written as \.png, \.pdf"):
        plot_forward([tmp_path / "x.svg"], csv=path, setups=SETUPS)
    pd.read_csv(path).drop(columns="t").to_csv(path, index=False)
    with pytest.raises(NrcgError, match=r"accuracy\.csv: no column 't'"):
        plot_forward([tmp_path / "x.png"], csv=path, setups=SETUPS)
    assert not (tmp_path / "x.png").exists()


def test_training_curves(tmp_path):
    log = pd.DataFrame({"step": range(1, 201), "images": range(64, 64 * 201, 64), "loss": [0.5, 1.5] * 100, "lr": 1e-3})
    log.to_csv(tmp_path / "ddpm.csv", index=False)
    outputs = both(tmp_path, "ddpm")
    fig = plot_ddpm_log(outputs, csv=tmp_path / "ddpm.csv")
    assert is_png_and_pdf(outputs) and fig.axes[0].get_yscale() == "log"
    raw, smooth = (line.get_ydata() for line in fig.axes[0].lines)
    np.testing.assert_allclose(smooth[10:-10], 1.0)  # a window of four
    assert set(raw) == {0.5, 1.5}

    epochs = {"epoch": [1, 2], "train_loss": [1, 0.5], "valid_loss": [1.1, 0.7]}
    epochs |= {"valid_accuracy": [0.8, 0.9], "valid_accuracy_noisy": [0.4, 0.5]}
    pd.DataFrame(epochs).to_csv(tmp_path / "c.csv", index=False)
    pd.DataFrame(epochs).iloc[:1].to_csv(tmp_path / "one.csv", index=False)
    logs = {"nonrobust": tmp_path / "c.csv", "robust": tmp_path / "c.csv", "judge": tmp_path / "one.csv"}
    fig = plot_classifier_logs([tmp_path / "c.png"], logs=logs, setups=SETUPS, title="T", note="N")
    assert legend(fig) == ["non-robust", "robust", "judge", "on validation images", "on training images"]
    assert [len(ax.lines) for ax in fig.axes] == [6, 3, 3]
    with styled(None):
        setups = read_setups(SETUPS)
    looks = [(line.get_color(), line.get_marker()) for line in fig.axes[1].lines]
    assert looks[:2] == [(setups[name].color, setups[name].marker) for name in ("nonrobust", "robust")]
    assert looks[2] == ("black", "*")  # one epoch is one point, which a line alone would not show
    assert fig.get_suptitle() == "T" and "N" in small_print(fig)
