"""Figures and tables: what they show, that they are the same bytes twice, and what bad input says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from nrcg.errors import NrcgError
from nrcg.evaluation.uncertainty import wilson
from nrcg.io.tables import read_paper, read_points, read_table
from nrcg.plots.forward import plot_forward
from nrcg.plots.scales import plot_contrast, plot_scales
from nrcg.plots.setups import best_setup, metric_label, read_setups
from nrcg.plots.style import styled
from nrcg.plots.training import plot_classifier_logs, plot_ddpm_log
from nrcg.report.tables import write_all_points, write_table
from nrcg.report.text_tables import latex_escape

ROOT = Path(__file__).parents[2]
SETUPS = ROOT / "config" / "setups.yaml"
PAPER = ROOT / "config" / "paper_results.tsv"
EMA, LOGPROB = "nonrobust_x0_ema0.99", "nonrobust_x0_ema0.99_logprob"


def both(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}.png", folder / f"{name}.pdf"]


def is_png_and_pdf(paths: list[Path]) -> bool:
    return paths[0].read_bytes().startswith(b"\x89PNG") and paths[1].read_bytes().startswith(b"%PDF")


def legend(fig) -> list[str]:
    return [text.get_text() for text in fig.legends[0].get_texts()]


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


POINTS = [  # setup, scale, accuracy, accuracy by the judge, cfd_judge, diverged
    ("unconditional", "", 0.34, 0.33, 60.0, 0),
    (EMA, 3, 0.80, 0.78, 20.0, 0),
    (EMA, 15, 0.99, 0.97, 5.25, 0),
    (LOGPROB, 3, 0.90, 0.60, 25.0, 0),
    (LOGPROB, 15, 0.99, 0.70, 5.5, 0),
    ("nonrobust", 3, 0.30, 0.10, 900.0, 100),
]


@pytest.fixture
def points_csv(tmp_path):
    rows = []
    for setup, scale, own, judge, distance, lost in POINTS:
        for metric, value in (("accuracy", own), ("accuracy_judge", judge), ("judge_share/baseball", judge)):
            rows.append(("sportballs", setup, scale, metric, value, 0.02, 256, lost, ""))
        rows.append(("sportballs", setup, scale, "cfd_judge", distance, "", 256, lost, 64))
    path = tmp_path / "points.csv"
    columns = ["dataset", "setup", "scale", "metric", "value", "stderr", "n", "n_diverged", "features"]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return path


def edit(path: Path, column: str, rows, value) -> None:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[rows(table), column] = value
    table.to_csv(path, index=False)


# --- the tables in config/ -------------------------------------------------------------------------------------------


def test_setups_have_distinct_looks_in_row_order():
    with styled(None):
        setups = read_setups(SETUPS)
    looks = list(setups.values())
    assert looks[0].name == "unconditional" and (looks[0].color, looks[0].linestyle) == ("black", "--")
    assert len(looks) > 8
    assert looks.pop().name == "nonrobust_x0_ema0.99_of1000"  # of CelebA-HQ, where no other is drawn
    assert len({(look.color, look.linestyle) for look in looks}) == len({look.marker for look in looks}) == len(looks)
    assert len({look.color for look in looks[:8]}) == 8  # the paper's setups, and log p, differ in colour alone
    assert {looks[i].linestyle for i in range(1, 7)} == {"-"} and setups[LOGPROB].linestyle == "-."
    assert {look.linestyle for look in looks[8:]} == {":"}


ROW = "{label: a, classifier: c}"
WRONG = {
    "setups: [": "cannot be read as YAML",
    "[1, 2]": "write a row for each setup",
    "1: {}": "write a row for each setup",
    f"a: {ROW}\na: {ROW}": "cannot be read as YAML (a stands there twice",
    "a: text": "a: 'text'; give an object",
    "a: {label: a}": "a: no key classifier",
    "a: {label: 3, classifier: c}": "a: label 3: must be a name",
    "a: {label: a, classifier: c, guidence: {}}": "a: unknown key guidence; nearest are guidance",
    "a: {label: a, classifier: c, guidance: xt}": "a: guidance 'xt': must be an object",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_row_of_the_setups_is_named(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(NrcgError, match=rf"s\.yaml: {re.escape(WRONG[text])}"):
        read_setups(tmp_path / "s.yaml")


def test_what_a_row_says_decides_its_look(tmp_path):
    guidances = [
        "{}",
        "{jacobian: true}",
        "{jacobian: false}",
        "{every: 2}",
        "{interval: [0, 3]}",
        "{objective: logit}",
    ]
    rows = [f"{i}a: {{label: '{i}', classifier: c, guidance: {text}}}" for i, text in enumerate(guidances)]
    (tmp_path / "s.yaml").write_text("\n".join([*rows, f"free: {ROW}"]))
    setups = read_setups(tmp_path / "s.yaml")
    assert [setup.linestyle for setup in setups.values()] == ["-", "-", ":", ":", ":", "-.", "--"]
    assert [setup.guided for setup in setups.values()] == [True] * 6 + [False] and setups["free"].color == "black"
    assert read_setups(SETUPS)[EMA].stabilizer == {"ema": {"beta": 0.99, "steps": 400}}
    assert setups["0a"].stabilizer is None


def test_a_distance_is_named_after_its_extractor():
    labels = {"fid": "FID", "cfid": "cFID", "fd_dino": "FD (dino)", "cfd_dino": "FD to target class (dino)"}
    labels |= {"accuracy/robust": "accuracy (robust classifier)", "judge_share/a/b": "share of a/b (judge)"}
    assert {name: metric_label(name) for name in labels} == labels


def test_paper_numbers():
    paper = read_paper(PAPER, "sportballs").set_index(["setup", "metric"])
    assert paper.loc[(EMA, "cfid"), "value"] == 18.52 and paper.loc[(EMA, "cfid"), "scale"] == 15
    assert paper.loc[("unconditional", "accuracy"), "value"] == 0.2963
    assert len(read_table(PAPER, text=("dataset",))) == 18


# --- curves ----------------------------------------------------------------------------------------------------------


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
    words = {"saturated": "1 − p is below 10⁻⁶", "clipped": r"most of $\hat{x}_0$ is clipped"}[reason]
    assert re.search(rf"left out of claims: t = 13–20 \(non-robust \+ .*\): {re.escape(words)}", small_print(fig))
    for ax in fig.axes:
        (span,) = ax.patches
        assert span.get_x() == 12.5 and span.get_x() + span.get_width() == 20.5
        pale, line = ax.lines[2:]
        assert pale.get_alpha() < 0.5 and len(pale.get_ydata()) == 20 and np.isnan(line.get_ydata()[12:]).all()
        assert ax.get_ylim()[0] > 1e-3  # though a curve goes down to 1e-14
    assert legend(fig) == ["robust", "non-robust", r"non-robust + $\hat{x}_0$"]


def test_small_print_of_a_stabiliser_says_over_how_many_steps_it_ran(tmp_path):
    path = tmp_path / "figure4.csv"
    rows = [(EMA, "gradient_sensitivity", t, 1.0, 0.1, 64) for t in range(1, 101)]
    pd.DataFrame(rows, columns=["setup", "metric", "t", "mean", "std", "n"]).to_csv(path, index=False)
    fig = plot_forward([tmp_path / "f.png"], csv=path, setups=SETUPS)
    assert "EMA 0.9606 over 100 steps: weights sum to 0.98, as over the paper's 400." in small_print(fig)


# --- scales ----------------------------------------------------------------------------------------------------------


def close(markdown: str) -> str:
    """Without the spaces that align a table's columns."""
    return re.sub(r" +", " ", markdown)


def small_print(fig) -> str:
    return " ".join(" ".join(text.get_text() for text in fig.texts).split())


def add(path: Path, *rows: str) -> None:
    path.write_text(path.read_text() + "".join(f"{row}\n" for row in rows))


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
    assert "95 % Wilson intervals" in small_print(fig)


def test_each_classifier_has_its_own_unconditional_level(tmp_path, points_csv):
    add(points_csv, "sportballs,robust,3,accuracy,0.6,0.02,256,0,", "sportballs,robust,3,accuracy_judge,0.9,0,256,0,",
        "sportballs,unconditional,,accuracy/robust,0.46,0.02,256,0,")  # fmt: skip
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="accuracy", setups=SETUPS)
    assert legend(fig)[:3] == ["unconditional", "unconditional (robust classifier)", "robust"]
    with styled(None):
        blue = read_setups(SETUPS)["robust"].color
    levels = [line for line in fig.axes[0].lines if line.get_linestyle() == "--"]
    assert [(line.get_ydata()[0], line.get_color()) for line in levels] == [(0.34, "black"), (0.46, blue)]
    fig = plot_scales([tmp_path / "j.png"], csv=points_csv, metric="accuracy_judge", setups=SETUPS)
    assert not any("classifier" in label for label in legend(fig))  # the judge is one for all


def test_bars_of_a_share_of_one_have_a_length(tmp_path, points_csv):
    edit(points_csv, "value", lambda table: table["scale"] == "15", "1.0")
    edit(points_csv, "stderr", lambda table: table["scale"] == "15", "0.0")
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="accuracy", setups=SETUPS)
    ends = [segment[:, 1] for bars in fig.axes[0].collections for segment in bars.get_segments()
            if segment[1, 1] == 1.0]  # fmt: skip
    assert len(ends) == 2 and all(low == pytest.approx(0.98522, abs=1e-4) for low, _ in ends)


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
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="cfd_judge", setups=SETUPS)
    labels = legend(fig)
    assert labels[:2] == ["unconditional", "non-robust"] and labels[2].endswith(f"EMA 0.99{mark}")
    assert (note is None) == (not any(sign in small_print(fig) for sign in "†‡")) and (note or "") in small_print(fig)


def test_the_distance_to_all_images_says_how_to_read_it(tmp_path, points_csv):
    edit(points_csv, "metric", lambda table: table["metric"] == "cfd_judge", "fd_judge")
    fig = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="fd_judge", setups=SETUPS)
    assert "is expected of better steering" in small_print(fig)


def test_scales_distance_is_logarithmic_only_over_decades(tmp_path, points_csv):
    draw = {"setups": SETUPS, "paper": PAPER}
    wide = plot_scales([tmp_path / "a.png"], csv=points_csv, metric="cfd_judge", **draw)
    assert wide.axes[0].get_yscale() == "log"
    assert not any("(paper)" in label for label in legend(wide))  # the paper has no judge
    edit(points_csv, "value", lambda table: table["value"] == "900.0", "90.0")
    narrow = plot_scales([tmp_path / "b.png"], csv=points_csv, metric="cfd_judge", **draw)
    assert narrow.axes[0].get_yscale() == "linear"


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
    with pytest.raises(NrcgError, match="compared: 1 setups; give two"):
        plot_contrast(outputs, csv=points_csv, compared=[EMA], setups=SETUPS, target="baseball")


# --- tables ----------------------------------------------------------------------------------------------------------


def test_best_setup(points_csv):
    points = read_points(points_csv)
    assert best_setup(points, "points.csv") == (EMA, 15)  # not LOGPROB with 5.5, and not the unconditional row
    inception = points[points["metric"] == "cfd_judge"].assign(metric="cfid")
    inception.loc[inception["setup"] == LOGPROB, "value"] = 1.0
    both = pd.concat([points, inception])
    assert best_setup(both, "points.csv") == (LOGPROB, 3)  # Inception decides where it is there
    other = points.replace({"metric": {"cfd_judge": "cfd_mine"}})
    assert best_setup(other, "points.csv") == (EMA, 15)
    with pytest.raises(NrcgError, match=r"points\.csv: no guided point has a value for cfid or cfd_NAME"):
        best_setup(points[points["metric"] != "cfd_judge"], "points.csv")


def test_table_holds_ours_and_the_papers(tmp_path, points_csv):
    outputs = [tmp_path / f"table2{suffix}" for suffix in (".csv", ".md", ".tex", ".html")]
    write_table(outputs, csv=points_csv, setups=SETUPS, target="baseball", paper=PAPER, note="small\n<run>")
    markdown, latex = close(outputs[1].read_text()), outputs[2].read_text()
    shares = "34.0 % [28.5, 40.0] | 99.0 % [96.9, 99.7] | 29.63 % | 91.05 %"
    assert f"| accuracy (guiding classifier) | {shares} |" in markdown
    assert "| FD to target class (judge) [judge, 64 features] | 60.00 ‡ | 5.25 ‡ | – | – |" in markdown
    assert "| cFID | – | – | 155.19 | 18.52 |" in markdown  # the paper's alone
    assert "| samples n | 256 | 256 | – | – |" in markdown and "| diverged | 0 | 0 |" in markdown
    assert "it is not FID" in markdown and "‡ Small sample" in markdown and "†" not in markdown
    assert markdown.endswith("- small\n- <run>\n")
    assert r"$\hat{x}_0$ + EMA 0.99, s = 15" in latex and r"34.0 \% [28.5, 40.0]" in latex
    assert latex.index(r"\toprule") < latex.index(r"\midrule") < latex.index(r"\bottomrule")
    data = pd.read_csv(outputs[0]).set_index("metric")
    assert data.loc["cfd_judge", ["best", "best_n", "features"]].tolist() == [5.25, 256, 64]
    assert data.loc["cfid", "paper_best"] == 18.52 and np.isnan(data.loc["cfid", "best"])
    html = outputs[3].read_text("utf-8")
    assert "<h1>sportballs, target baseball" in html and "<li>&lt;run&gt;</li>" in html
    assert html.count("<tr") == 1 + len(data) + 2 and "tr :nth-child(2), tr :nth-child(3)" in html
    cells = re.findall("<td[^>]*>(.*?)</td>", html)
    assert cells[:3] == ["accuracy (guiding classifier)", "34.0 % [28.5, 40.0]", "99.0 % [96.9, 99.7]"]


def test_table_compares_the_papers_setup_though_another_is_our_best(tmp_path, points_csv):
    add(points_csv, "sportballs,robust,3,accuracy,0.77,0,256,0,", "sportballs,robust,3,accuracy_judge,1.0,0,256,0,",
        "sportballs,robust,3,cfd_judge,1.0,,256,0,64",
        "sportballs,unconditional,,accuracy/robust,0.46,0.02,256,0,")  # fmt: skip
    outputs = [tmp_path / "t.md", tmp_path / "t.csv"]
    write_table(outputs, csv=points_csv, setups=SETUPS, target="baseball", paper=PAPER)
    lines = close(outputs[0].read_text()).splitlines()
    label = "non-robust + x̂₀ + EMA 0.99, s = 15"
    assert lines[2] == (
        f"| metric | unconditional | {label} | our best: robust, s = 3 | paper: unconditional | paper: {label} |"
    )
    # each accuracy beside that of the unguided samples by the same classifier
    shares = "34.0 % [28.5, 40.0] | 99.0 % [96.9, 99.7] | – | 29.63 % | 91.05 %"
    assert f"| accuracy (guiding classifier) | {shares} |" in lines
    assert "| accuracy (robust classifier) | 46.0 % [40.0, 52.1] | – | 77.0 % [71.5, 81.7] | – | – |" in lines
    data = pd.read_csv(outputs[1]).set_index("metric")
    assert data.loc["cfd_judge", ["ours", "best"]].tolist() == [5.25, 1.0]
    assert set(data["ours_setup"]) == {EMA} and set(data["best_setup"]) == {"robust"}


@pytest.mark.parametrize(("n", "mark"), [("64", "†"), ("65", "‡"), ("640", "")])
def test_table_marks_too_few_samples(tmp_path, points_csv, n, mark):
    edit(points_csv, "n", lambda table: table["n"] != "", n)
    write_all_points([tmp_path / "all.md"], csv=points_csv, setups=SETUPS)
    text = (tmp_path / "all.md").read_text()
    assert {char for char in "†‡" if char in text} == set(mark)


def test_all_points_in_order(tmp_path, points_csv):
    outputs = [tmp_path / "all.csv", tmp_path / "all.md"]
    write_all_points(outputs, csv=points_csv, setups=SETUPS)
    table = pd.read_csv(outputs[0])
    assert table["setup"].tolist() == ["unconditional", "nonrobust", EMA, EMA, LOGPROB, LOGPROB]
    assert table["n_diverged"].tolist() == [0, 100, 0, 0, 0, 0]
    assert table["cfd_judge"].tolist() == [60, 900, 20, 5.25, 25, 5.5]
    assert close(outputs[1].read_text()).count("\n| ") == 7  # header and six points


def test_latex_escape():
    assert latex_escape("log_prob & x̂₀ 5 % {a} #1 \\") == (r"log\_prob \& $\hat{x}_0$ 5 \% \{a\} \#1 \textbackslash{}")


# --- training --------------------------------------------------------------------------------------------------------


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


# --- files and errors ------------------------------------------------------------------------------------------------


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


def test_errors_name_file_and_column(tmp_path, points_csv, forward_csv):
    draw = {"setups": SETUPS}
    out = [tmp_path / "x.png"]
    with pytest.raises(NrcgError, match=r"gone\.csv: no such file"):
        plot_scales(out, csv=tmp_path / "gone.csv", metric="accuracy", **draw)
    with pytest.raises(NrcgError, match=r"points\.csv: column 'metric' has no value for 'fid'"):
        plot_scales(out, csv=points_csv, metric="fid", **draw)
    with pytest.raises(NrcgError, match=r"points\.csv: no column 't'"):
        plot_forward(out, csv=points_csv, **draw)
    with pytest.raises(NrcgError, match=r"x\.svg: figures are written as \.png, \.pdf"):
        plot_forward([tmp_path / "x.svg"], csv=forward_csv("accuracy"), **draw)
    with pytest.raises(NrcgError, match=r"'celeba'"):
        plot_scales(out, csv=points_csv, metric="accuracy", dataset="celeba", **draw)
    first = points_csv.read_text()
    for column, value, message in (
        ("value", "many", "column 'value' holds 'many'"),
        ("scale", "-1", "column 'scale' must be positive"),
        ("dataset", "other", "column 'dataset' holds sportballs, other"),
    ):
        edit(points_csv, column, lambda table: table["scale"] == "15", value)
        with pytest.raises(NrcgError, match=rf"points\.csv: {message}"):
            plot_scales(out, csv=points_csv, metric="accuracy", **draw)
        points_csv.write_text(first)
    points_csv.write_text(first.replace(LOGPROB, "robst"))
    with pytest.raises(
        NrcgError, match=r"points\.csv: column 'setup' holds 'robst', which .*setups\.yaml does not list"
    ):
        plot_scales(out, csv=points_csv, metric="accuracy", **draw)
    points_csv.write_text(first + first.splitlines()[1] + "\n")
    with pytest.raises(NrcgError, match="twice"):
        read_points(points_csv)
    assert not out[0].exists()
