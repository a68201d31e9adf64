"""Figures and tables: what they show, that they are the same bytes twice, and what bad input says."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nrcg.errors import NrcgError
from nrcg.plots.curves import plot_forward
from nrcg.plots.reading import read_paper, read_points, read_table
from nrcg.plots.scales import plot_contrast, plot_scales
from nrcg.plots.style import read_setups, styled
from nrcg.plots.tables import best_setup, write_all_points, write_table
from nrcg.plots.text_tables import latex_escape
from nrcg.plots.training import plot_classifier_logs, plot_ddpm_log

ROOT = Path(__file__).parent.parent
SETUPS = ROOT / "config" / "setups.tsv"
PAPER = ROOT / "config" / "paper_results.tsv"
EMA, LOGPROB = "nonrobust_x0_ema0.99", "nonrobust_x0_ema0.99_logprob"


def both(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}.png", folder / f"{name}.pdf"]


def is_png_and_pdf(paths: list[Path]) -> bool:
    return paths[0].read_bytes().startswith(b"\x89PNG") and paths[1].read_bytes().startswith(b"%PDF")


def legend(fig) -> list[str]:
    return [text.get_text() for text in fig.legends[0].get_texts()]


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
    assert len({(look.color, look.linestyle) for look in looks}) == len({look.marker for look in looks}) == len(looks)
    assert len({look.color for look in looks[:8]}) == 8  # the paper's setups, and log p, differ in colour alone
    assert {looks[i].linestyle for i in range(1, 7)} == {"-"} and setups[LOGPROB].linestyle == "-."
    assert {look.linestyle for look in looks[8:]} == {":"}


def test_paper_numbers():
    paper = read_paper(PAPER, "sportballs").set_index(["setup", "metric"])
    assert paper.loc[(EMA, "cfid"), "value"] == 18.52 and paper.loc[(EMA, "cfid"), "scale"] == 15
    assert paper.loc[("unconditional", "accuracy"), "value"] == 0.2963
    assert len(read_table(PAPER, text=("dataset",))) == 18


# --- curves ----------------------------------------------------------------------------------------------------------


def test_accuracy_curve(tmp_path, forward_csv):
    outputs = both(tmp_path, "figure1")
    fig = plot_forward(forward_csv("accuracy"), outputs, setups_tsv=SETUPS, chance=1 / 3, title="T", note="N")
    assert is_png_and_pdf(outputs)
    assert legend(fig) == ["robust", "non-robust", r"non-robust + $\hat{x}_0$", "guessing"]
    ax = fig.axes[0]
    assert ax.get_yscale() == "linear" and not ax.collections
    assert ax.lines[3].get_ydata()[0] == 1 / 3
    np.testing.assert_allclose(ax.lines[2].get_ydata(), 1 / np.arange(1, 21))


def test_sensitivity_band_fits_a_log_axis(tmp_path, forward_csv):
    fig = plot_forward(forward_csv("gradient_sensitivity"), [tmp_path / "f.png"], setups_tsv=SETUPS)
    ax = fig.axes[0]
    assert ax.get_yscale() == "log" and len(ax.lines) == len(ax.collections) == 3
    low, high = np.array([path.get_extents().intervaly for path in ax.collections[2].get_paths()])[0]
    # nonrobust_x0: mean 1/t, std 3/t; over all t the band spans from 1/4 of the last mean to 4 times the first
    np.testing.assert_allclose([low, high], [1 / 20 / 4, 4])


# --- scales ----------------------------------------------------------------------------------------------------------


def test_scales_share_with_the_papers_point(tmp_path, points_csv):
    outputs = both(tmp_path, "figure8a")
    fig = plot_scales(points_csv, "accuracy", outputs, setups_tsv=SETUPS, paper_csv=PAPER)
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


def test_scales_distance_is_logarithmic_only_over_decades(tmp_path, points_csv):
    draw = {"setups_tsv": SETUPS, "paper_csv": PAPER}
    wide = plot_scales(points_csv, "cfd_judge", [tmp_path / "a.png"], **draw)
    assert wide.axes[0].get_yscale() == "log"
    assert not any("(paper)" in label for label in legend(wide))  # the paper has no judge
    edit(points_csv, "value", lambda table: table["value"] == "900.0", "90.0")
    narrow = plot_scales(points_csv, "cfd_judge", [tmp_path / "b.png"], **draw)
    assert narrow.axes[0].get_yscale() == "linear"


def test_contrast_puts_own_classifier_above_judge(tmp_path, points_csv):
    outputs = both(tmp_path, "contrast")
    fig = plot_contrast(points_csv, outputs, setups_tsv=SETUPS, target_name="baseball")
    assert is_png_and_pdf(outputs)
    assert legend(fig)[:2] == ["satisfies its own classifier", "is a baseball\n(says the judge)"]
    logit, logprob = fig.axes
    for ax, own, judge in ((logit, [0.80, 0.99], [0.78, 0.97]), (logprob, [0.90, 0.99], [0.60, 0.70])):
        lines = [line for line in ax.lines if list(line.get_xdata()) == [3, 15] and line.get_linestyle() != "None"]
        assert [(line.get_linestyle(), list(line.get_ydata())) for line in lines] == [(":", own), ("-", judge)]
    assert ax.lines[-1].get_ydata()[0] == 0.33  # unconditional, by the judge


# --- tables ----------------------------------------------------------------------------------------------------------


def test_best_setup(points_csv):
    points = read_points(points_csv)
    assert best_setup(points) == (EMA, 15)  # not LOGPROB with 5.5, and not the unconditional row
    inception = points[points["metric"] == "cfd_judge"].assign(metric="cfid")
    inception.loc[inception["setup"] == LOGPROB, "value"] = 1.0
    assert best_setup(pd.concat([points, inception])) == (LOGPROB, 3)  # Inception decides where it is there
    with pytest.raises(NrcgError, match="no guided point has a value for fid"):
        best_setup(points, "fid")


def test_table_holds_ours_and_the_papers(tmp_path, points_csv):
    outputs = [tmp_path / f"table2{suffix}" for suffix in (".csv", ".md", ".tex")]
    write_table(points_csv, outputs, setups_tsv=SETUPS, target_name="baseball", paper_csv=PAPER, note="small run")
    markdown, latex = outputs[1].read_text(), outputs[2].read_text()
    assert "| accuracy (guiding classifier) | 34.0 ± 2.0 % | 99.0 ± 2.0 % | 29.63 % | 91.05 % |" in markdown
    assert "| FD to target class (judge) [judge, 64 features] | 60.00 ‡ | 5.25 ‡ | – | – |" in markdown
    assert "| cFID | – | – | 155.19 | 18.52 |" in markdown  # the paper's alone
    assert "| samples n | 256 | 256 | – | – |" in markdown and "| diverged | 0 | 0 |" in markdown
    assert "it is not FID" in markdown and "‡ small sample" in markdown and "†" not in markdown
    assert markdown.endswith("small run\n")
    assert r"$\hat{x}_0$ + EMA 0.99, s = 15" in latex and r"34.0 $\pm$ 2.0 \%" in latex
    assert latex.index(r"\toprule") < latex.index(r"\midrule") < latex.index(r"\bottomrule")
    data = pd.read_csv(outputs[0]).set_index("metric")
    assert data.loc["cfd_judge", ["best", "best_n", "features"]].tolist() == [5.25, 256, 64]
    assert data.loc["cfid", "paper_best"] == 18.52 and np.isnan(data.loc["cfid", "best"])


@pytest.mark.parametrize(("n", "mark"), [("64", "†"), ("65", "‡"), ("640", "")])
def test_table_marks_too_few_samples(tmp_path, points_csv, n, mark):
    edit(points_csv, "n", lambda table: table["n"] != "", n)
    write_all_points(points_csv, [tmp_path / "all.md"], setups_tsv=SETUPS)
    text = (tmp_path / "all.md").read_text()
    assert {char for char in "†‡" if char in text} == set(mark)


def test_all_points_in_order(tmp_path, points_csv):
    outputs = [tmp_path / "all.csv", tmp_path / "all.md"]
    write_all_points(points_csv, outputs, setups_tsv=SETUPS)
    table = pd.read_csv(outputs[0])
    assert table["setup"].tolist() == ["unconditional", "nonrobust", EMA, EMA, LOGPROB, LOGPROB]
    assert table["n_diverged"].tolist() == [0, 100, 0, 0, 0, 0]
    assert table["cfd_judge"].tolist() == [60, 900, 20, 5.25, 25, 5.5]
    assert outputs[1].read_text().count("\n| ") == 7  # header and six points


def test_latex_escape():
    assert latex_escape("log_prob & x̂₀ 5 % {a} #1 \\") == (r"log\_prob \& $\hat{x}_0$ 5 \% \{a\} \#1 \textbackslash{}")


# --- training --------------------------------------------------------------------------------------------------------


def test_training_curves(tmp_path):
    log = pd.DataFrame({"step": range(1, 201), "images": range(64, 64 * 201, 64), "loss": [0.5, 1.5] * 100, "lr": 1e-3})
    log.to_csv(tmp_path / "ddpm.csv", index=False)
    outputs = both(tmp_path, "ddpm")
    fig = plot_ddpm_log(tmp_path / "ddpm.csv", outputs)
    assert is_png_and_pdf(outputs) and fig.axes[0].get_yscale() == "log"
    raw, smooth = (line.get_ydata() for line in fig.axes[0].lines)
    np.testing.assert_allclose(smooth[10:-10], 1.0)  # a window of four
    assert set(raw) == {0.5, 1.5}

    epochs = {"epoch": [1, 2], "train_loss": [1, 0.5], "valid_loss": [1.1, 0.7]}
    epochs |= {"valid_accuracy": [0.8, 0.9], "valid_accuracy_noisy": [0.4, 0.5]}
    pd.DataFrame(epochs).to_csv(tmp_path / "c.csv", index=False)
    logs = [("robust", tmp_path / "c.csv"), ("judge", tmp_path / "c.csv")]
    fig = plot_classifier_logs(logs, [tmp_path / "c.png"])
    assert legend(fig) == ["robust", "judge", "validation", "training", "noised validation"]
    assert [len(ax.lines) for ax in fig.axes] == [4, 4]


# --- files and errors ------------------------------------------------------------------------------------------------


def test_same_data_same_bytes_in_another_process(tmp_path, points_csv):
    outputs = both(tmp_path, "first")
    again = both(tmp_path, "second")
    plot_scales(points_csv, "accuracy", outputs, setups_tsv=SETUPS, title="x̂₀")
    code = (
        "import sys; from nrcg.plots.scales import plot_scales\n"
        "plot_scales(sys.argv[1], 'accuracy', sys.argv[3:], setups_tsv=sys.argv[2], title='x̂₀')"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", code, points_csv, SETUPS, *again], check=True, env=env)
    for a, b in zip(outputs, again, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_another_style_changes_the_figure(tmp_path, points_csv):
    style = tmp_path / "mine.mplstyle"
    style.write_text("figure.figsize: 4, 3\naxes.prop_cycle: cycler('color', ['FF0000'])\n")
    fig = plot_scales(points_csv, "accuracy", [tmp_path / "a.png"], setups_tsv=SETUPS, style=style)
    assert tuple(fig.get_size_inches()) == (4, 3)
    with pytest.raises(NrcgError, match=r"none\.mplstyle"):
        plot_scales(points_csv, "accuracy", [tmp_path / "a.png"], setups_tsv=SETUPS, style=tmp_path / "none.mplstyle")


def test_errors_name_file_and_column(tmp_path, points_csv, forward_csv):
    draw = {"setups_tsv": SETUPS}
    out = [tmp_path / "x.png"]
    with pytest.raises(NrcgError, match=r"gone\.csv: no such file"):
        plot_scales(tmp_path / "gone.csv", "accuracy", out, **draw)
    with pytest.raises(NrcgError, match=r"points\.csv: column 'metric' has no value for 'fid'"):
        plot_scales(points_csv, "fid", out, **draw)
    with pytest.raises(NrcgError, match=r"points\.csv: no column 't'"):
        plot_forward(points_csv, out, **draw)
    with pytest.raises(NrcgError, match=r"x\.svg: figures are written as \.png or \.pdf"):
        plot_forward(forward_csv("accuracy"), [tmp_path / "x.svg"], **draw)
    with pytest.raises(NrcgError, match=r"'celeba'"):
        plot_scales(points_csv, "accuracy", out, dataset="celeba", **draw)
    first = points_csv.read_text()
    for column, value, message in (
        ("value", "many", "column 'value' holds 'many'"),
        ("scale", "-1", "column 'scale' must be positive"),
        ("dataset", "other", "column 'dataset' holds sportballs, other"),
    ):
        edit(points_csv, column, lambda table: table["scale"] == "15", value)
        with pytest.raises(NrcgError, match=rf"points\.csv: {message}"):
            plot_scales(points_csv, "accuracy", out, **draw)
        points_csv.write_text(first)
    points_csv.write_text(first.replace(LOGPROB, "robst"))
    with pytest.raises(
        NrcgError, match=r"points\.csv: column 'setup' holds 'robst', which .*setups\.tsv does not list"
    ):
        plot_scales(points_csv, "accuracy", out, **draw)
    points_csv.write_text(first + first.splitlines()[1] + "\n")
    with pytest.raises(NrcgError, match="twice"):
        read_points(points_csv)
    assert not out[0].exists()
