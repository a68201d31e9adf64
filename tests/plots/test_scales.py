"""Scores against the guidance scale, the contrast with the judge, and what all figures share: bytes, style, errors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn import both, is_png_and_pdf, legend, small_print
from scipy.stats import binomtest
from scored import EMA, LOGPROB, add_scores, edit, rows_of, write_example

from nrcg.errors import NrcgError
from nrcg.evaluation.uncertainty import wilson
from nrcg.plots.scales import plot_contrast, plot_scales
from nrcg.plots.setups import read_setups
from nrcg.plots.style import styled

ROOT = Path(__file__).parents[2]
SETUPS = ROOT / "config" / "setups.yaml"
PAPER = ROOT / "config" / "paper_results.tsv"


@pytest.fixture
def points_csv(tmp_path):
    return write_example(tmp_path / "points.csv")


def test_scales_share_with_the_papers_point(tmp_path, points_csv):
    outputs = both(tmp_path, "figure8a")
    fig = plot_scales(outputs, csv=points_csv, metric="accuracy", setups=SETUPS, paper=PAPER)
    assert is_png_and_pdf(outputs)
    assert legend(fig) == [
        "unconditional",
        "non-robust",
        r"non-robust + $\hat{x}_0$ + EMA 0.99",
        r"non-robust + $\hat{x}_0$ + EMA 0.99 (log p)",
        "hollow: some samples diverged",
        "unconditional (paper)",
        r"non-robust + $\hat{x}_0$ + EMA 0.99 (paper)",
    ]
    ax = fig.axes[0]
    assert ax.get_xscale() == "log" and ax.get_yscale() == "linear"
    star = [line for line in ax.lines if line.get_marker() == "*"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in star] == [(15, 0.9105)]
    levels = {line.get_linestyle(): line.get_ydata()[0] for line in ax.lines if list(line.get_xdata()) == [0, 1]}
    assert levels == {"--": 0.34, ":": 0.2963}  # unconditional: ours and the paper's, across the axes
    assert "unguided level: 95 % intervals: Wilson for shares" in small_print(fig) and "dots" not in small_print(fig)


def test_each_classifier_has_its_own_unconditional_level(tmp_path, points_csv):
    add_scores(points_csv, rows_of("robust", 3, {"accuracy": 0.6, "accuracy_judge": 0.9}))
    add_scores(points_csv, rows_of("unconditional", "", {"accuracy/robust": 0.46}))
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="accuracy", setups=SETUPS)
    assert legend(fig)[:3] == ["unconditional (non-robust classifier)", "unconditional (robust classifier)", "robust"]
    with styled(None):
        blue = read_setups(SETUPS)["robust"].color
    levels = [line for line in fig.axes[0].lines if line.get_linestyle() == "--"]
    assert [(line.get_ydata()[0], line.get_color()) for line in levels] == [(0.34, "black"), (0.46, blue)]
    (first, dashes), (second, others) = (line._dash_pattern for line in levels)  # in turns, if they were equal
    assert dashes == others and dashes[0] == dashes[1] == pytest.approx(abs(second - first))
    fig = plot_scales([tmp_path / "j.png"], csv=points_csv, metric="accuracy_judge", setups=SETUPS)
    assert not any("classifier" in label for label in legend(fig))  # the judge is one for all


def test_bars_of_a_share_of_one_have_a_length(tmp_path, points_csv):
    for column, value in (("value", "1.0"), ("low", "0.98522"), ("high", "1.0")):
        edit(points_csv, column, lambda table: table["scale"] == "15", value)
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="accuracy", setups=SETUPS)
    ends = [segment[:, 1] for bars in fig.axes[0].collections for segment in bars.get_segments()
            if segment[1, 1] == 1.0]  # fmt: skip
    assert len(ends) == 2 and all(low == pytest.approx(0.98522) for low, _ in ends)


def test_wilson_is_scipys():
    for hits, n in ((0, 48), (48, 48), (1, 3), (117, 256), (50176, 50176)):
        expected = binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-7)
    assert np.isnan(wilson(0.5, np.nan)).all()


def test_points_of_equal_scale_and_share_do_not_hide_each_other(tmp_path, points_csv):
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="accuracy", setups=SETUPS)
    data = {line.get_color(): line.get_xdata() for line in fig.axes[0].lines if len(line.get_xdata()) == 2}
    with styled(None):
        setups = read_setups(SETUPS)
    logit, log_prob = data[setups[EMA].color], data[setups[LOGPROB].color]
    assert logit[0] == log_prob[0] == 3  # 0.8 and 0.9 lie apart anyway
    assert logit[1] < 15 < log_prob[1] and log_prob[1] / logit[1] == pytest.approx(1.06)


@pytest.mark.parametrize(("n", "mark", "note"), [("64", " †", "covariance is singular"), ("65", " ‡", "Small sample"),
                                                 ("640", "", None)])  # fmt: skip
def test_distances_of_few_samples_are_marked_in_the_figure(tmp_path, points_csv, n, mark, note):
    edit(points_csv, "n", lambda table: table["scale"] == "15", n)
    edit(points_csv, "n", lambda table: table["scale"] != "15", "640")
    add_scores(points_csv, rows_of("real", "", {"cfd_judge": 0.5}, n=int(n), features=64))
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="cfd_judge", setups=SETUPS)
    labels = legend(fig)
    assert labels[:2] == ["unconditional", "non-robust"] and labels[2].endswith(f"EMA 0.99{mark}")
    assert labels[-2] == f"real images{mark} (n = {n})"
    assert (note is None) == (not any(sign in small_print(fig) for sign in "†‡")) and (note or "") in small_print(fig)


def test_the_distance_to_all_images_says_how_to_read_it(tmp_path, points_csv):
    edit(points_csv, "metric", lambda table: table["metric"] == "cfd_judge", "fd_judge")
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="fd_judge", setups=SETUPS)
    assert "Better steering increases the distance to all images" in small_print(fig)


def test_scales_distance_is_logarithmic_only_over_decades(tmp_path, points_csv):
    draw = {"setups": SETUPS, "paper": PAPER}
    wide = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="cfd_judge", **draw)
    assert wide.axes[0].get_yscale() == "log"
    assert not any("(paper)" in label for label in legend(wide))  # the paper has no judge
    edit(points_csv, "low", lambda table: table["metric"] == "cfd_judge", "1e-12")
    cut = plot_scales([tmp_path / "c.png"], csv=points_csv, metric="cfd_judge", **draw)
    assert cut.axes[0].get_ylim()[0] > wide.axes[0].get_ylim()[0] / 1.5
    assert "reach farther down are cut off" in small_print(cut) and "cut off" not in small_print(wide)
    edit(points_csv, "value", lambda table: table["value"] == "900.0", "90.0")
    narrow = plot_scales([tmp_path / "b.png"], csv=points_csv, metric="cfd_judge", **draw)
    assert narrow.axes[0].get_yscale() == "linear"
    wide.canvas.draw()
    ticks = [text.get_text() for text in wide.axes[0].get_yticklabels(which="both") if text.get_text()]
    assert {"10", "100"} <= set(ticks) and not any("^" in text or "times" in text for text in ticks)  # plain numbers


def test_contrast_puts_own_classifier_above_judge(tmp_path, points_csv):
    outputs = both(tmp_path, "contrast")
    fig = plot_contrast(outputs, csv=points_csv, compared=[EMA, LOGPROB], setups=SETUPS, target="baseball")
    assert is_png_and_pdf(outputs)
    assert legend(fig)[:2] == ["baseball by the guiding classifier", "baseball by the judge"]
    logit, logprob = fig.axes
    for ax, own, judge in ((logit, [0.80, 0.99], [0.78, 0.97]), (logprob, [0.90, 0.99], [0.60, 0.70])):
        lines = [line for line in ax.lines if list(line.get_xdata()) == [3, 15] and line.get_linestyle() != "None"]
        assert [(line.get_linestyle(), list(line.get_ydata())) for line in lines] == [(":", own), ("-", judge)]
    assert ax.lines[-1].get_ydata()[0] == 0.33  # unconditional, by the judge
    edit(points_csv, "scale", lambda table: (table["setup"] == LOGPROB) & (table["scale"] == "15"), "150")
    fig = plot_contrast(outputs, csv=points_csv, compared=[EMA, LOGPROB], setups=SETUPS, target="baseball", title="T")
    left, right = (ax.get_xlim() for ax in fig.axes)
    assert left == right and left[0] < 3 and right[1] > 150 and fig.get_suptitle() == "T"
    assert [ax.get_title(loc="left") for ax in fig.axes] == [
        "non-robust + x̂₀ + EMA 0.99",
        "non-robust + x̂₀ + EMA 0.99 (log p)",
    ]
    four = plot_contrast(outputs, csv=points_csv, compared=[EMA, LOGPROB] * 2, setups=SETUPS, target="baseball").axes
    assert [ax.get_xlabel() != "" for ax in four if ax.get_visible()] == [False, True, True, True]
    with pytest.raises(NrcgError, match="compared: no setup"):
        plot_contrast(outputs, csv=points_csv, compared=[], setups=SETUPS, target="baseball")


def test_same_data_same_bytes_in_another_process(tmp_path, points_csv):
    outputs = both(tmp_path, "first")
    again = both(tmp_path, "second")
    plot_scales(outputs, csv=points_csv, metric="accuracy", setups=SETUPS, title="x̂₀")
    code = (
        "import sys; from nrcg.plots.scales import plot_scales\n"
        "plot_scales(sys.argv[3:], csv=sys.argv[1], metric='accuracy', setups=sys.argv[2], title='x̂₀')"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", code, points_csv, SETUPS, *again], check=True, env=env)
    for a, b in zip(outputs, again, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_another_style_changes_the_figure(tmp_path, points_csv):
    style = tmp_path / "mine.mplstyle"
    style.write_text("figure.figsize: 4, 3\naxes.prop_cycle: cycler('color', ['FF0000'])\n")
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="accuracy", setups=SETUPS, style=style)
    assert fig.get_figwidth() == 4 and fig.get_figheight() > 3  # legend and small print come on top
    with pytest.raises(NrcgError, match=r"none\.mplstyle"):
        plot_scales(
            [tmp_path / "a.png"], csv=points_csv, metric="accuracy", setups=SETUPS, style=tmp_path / "none.mplstyle"
        )


def test_errors_name_file_and_column(tmp_path, points_csv):
    draw = {"setups": SETUPS}
    out = [tmp_path / "x.png"]
    with pytest.raises(NrcgError, match=r"gone\.csv: no such file"):
        plot_scales(out, csv=tmp_path / "gone.csv", metric="accuracy", **draw)
    with pytest.raises(NrcgError, match=r"points\.csv: column 'metric' has no value for 'fid'"):
        plot_scales(out, csv=points_csv, metric="fid", **draw)
    with pytest.raises(NrcgError, match=r"x\.svg: figures are written as \.png, \.pdf"):
        plot_scales([tmp_path / "x.svg"], csv=points_csv, metric="accuracy", **draw)
    with pytest.raises(NrcgError, match=r"'celeba'"):
        plot_scales(out, csv=points_csv, metric="accuracy", dataset="celeba", **draw)
    points_csv.write_text(points_csv.read_text().replace(LOGPROB, "robst"))
    with pytest.raises(NrcgError, match=r"points\.csv: column 'setup' holds 'robst', which is not in .*setups\.yaml"):
        plot_scales(out, csv=points_csv, metric="accuracy", **draw)
    assert not out[0].exists()


def test_bars_are_the_intervals_of_the_file_and_none_where_it_has_none(tmp_path, points_csv):
    edit(points_csv, "low", lambda table: table["scale"] == "3", "")
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="cfd_judge", setups=SETUPS)
    bars = sorted(list(segment[:, 1]) for found in fig.axes[0].collections for segment in found.get_segments())
    expected = [[5.145, 5.355], [5.39, 5.61], [20.0, 20.4], [25.0, 25.5], [900.0, 918.0]]  # the last three: s = 3
    np.testing.assert_allclose(bars, expected)
    for end in ("low", "high"):
        edit(points_csv, end, lambda table: table["scale"] != "none", "")
    fig = plot_scales([tmp_path / "b.png"], csv=points_csv, metric="cfd_judge", setups=SETUPS)
    assert "Bars" not in small_print(fig)


def test_trainings_are_dots_about_their_mean(tmp_path, points_csv):
    add_scores(points_csv, rows_of(EMA, 15, {"cfd_judge": 7.25}, repeat=2, features=64))
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="cfd_judge", setups=SETUPS)
    with styled(None):
        color = read_setups(SETUPS)[EMA].color
    drawn = [
        (line.get_marker() == ".", line.get_xydata().tolist())
        for line in fig.axes[0].lines
        if line.get_color() == color and line.get_marker() not in ("_", "|")
    ]  # those are caps of bars
    assert (True, [[3, 20.0], [15, 5.25], [15, 7.25]]) in drawn and (False, [[3, 20.0], [15, 6.25]]) in drawn
    assert "means over training runs of the guiding classifier; dots: single runs" in small_print(fig)


def test_real_images_are_a_level_in_view_and_tuning_samples_are_not_drawn(tmp_path, points_csv):
    add_scores(points_csv, rows_of("real", "", {"cfd_judge": 0.5, "accuracy": 0.99}, n=700, features=64))
    add_scores(points_csv, rows_of(EMA, 3, {"cfd_judge": 2.0}, half=None, seeds="tuning"))
    edit(points_csv, "value", lambda table: table["value"] == "900.0", "90.0")
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="cfd_judge", setups=SETUPS)
    ax = fig.axes[0]
    levels = [line for line in ax.lines if list(line.get_xdata()) == [0, 1]]
    assert [line.get_ydata()[0] for line in levels] == [60.0, 0.5] and legend(fig)[-2] == "real images (n = 700)"
    assert ax.get_ylim()[0] < 0.5 and ax.get_yscale() == "log"  # with them, distances span decades
    assert not any(2.0 in line.get_ydata() for line in ax.lines)


def test_a_share_of_samples_far_from_all_images_has_the_axis_of_a_share(tmp_path, points_csv):
    rows = [row for scale in (3, 15) for row in rows_of(EMA, scale, {"coff_manifold_judge": 0.1 / scale})]
    add_scores(points_csv, rows)
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="coff_manifold_judge", setups=SETUPS)
    assert (
        fig.axes[0].get_ylim() == (-0.02, 1.03) and fig.axes[0].get_ylabel() == "off-manifold to target class\n(judge)"
    )
