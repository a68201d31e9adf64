"""The tables of unguided and guided samples, and of all points: numbers by hand, marks, trainings and real images."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scored import EMA, EXAMPLE, LOGPROB, add_scores, edit, rows_of, values_of, write_scores

from nrcg.errors import NrcgError
from nrcg.report.tables import write_all_points, write_table

ROOT = Path(__file__).parents[2]
SETUPS = ROOT / "config" / "setups.yaml"
PAPER = ROOT / "config" / "paper_results.tsv"
LABEL = "non-robust + x̂₀ + EMA 0.99, s = 15"


@pytest.fixture
def points_csv(tmp_path):
    rows = [row for setup, scale, *values, lost in EXAMPLE
            for row in rows_of(setup, scale, values_of(*values), lost=lost, features=64)]  # fmt: skip
    return write_scores(tmp_path / "points.csv", rows)


@pytest.fixture
def with_robust(points_csv):
    """The best setup is not the paper's, and another classifier guides it."""
    add_scores(points_csv, rows_of("robust", 3, values_of(0.77, 1.0, 1.0), features=64))
    add_scores(points_csv, rows_of("unconditional", "", {"accuracy/robust": 0.46}))
    return points_csv


def table(csv, *outputs, **more):
    write_table(outputs, csv=csv, setups=SETUPS, target="baseball", paper=PAPER, **more)
    return [close(path.read_text("utf-8")) for path in outputs]


def close(markdown: str) -> str:
    """Without the spaces that align a table's columns."""
    return re.sub(r" +", " ", markdown)


def test_table_holds_ours_and_the_papers(tmp_path, points_csv):
    outputs = [tmp_path / f"table2{suffix}" for suffix in (".csv", ".md", ".tex", ".html")]
    _, markdown, latex, html = table(points_csv, *outputs, note="small\n<run>")
    shares = "34.0 % [28.5, 40.0] | 99.0 % [96.9, 99.7] | 29.63 % | 91.05 %"
    assert f"| accuracy (guiding classifier) | {shares} |" in markdown
    distances = "60.00 [58.80, 61.20] ‡ | 5.25 [5.14, 5.36] ‡ | – | – |"
    assert f"| FD to target class (judge) [judge, 64 features] | {distances}" in markdown
    assert "| cFID | – | – | 155.19 | 18.52 |" in markdown  # the paper's alone
    assert "| samples n | 256 | 256 | – | – |" in markdown and "| diverged | 0 | 0 |" in markdown
    assert "it is not FID" in markdown and "‡ Small sample" in markdown and "†" not in markdown
    assert "- Scales were chosen on the reported samples" in markdown and "±" not in markdown
    assert markdown.endswith("- small\n- <run>\n")
    assert r"$\hat{x}_0$ + EMA 0.99, s = 15" in latex and r"34.0 \% [28.5, 40.0]" in latex
    assert latex.index(r"\toprule") < latex.index(r"\midrule") < latex.index(r"\bottomrule")
    data = pd.read_csv(outputs[0]).set_index("metric")
    assert data.loc["cfd_judge", ["best", "best_low", "best_n", "features"]].tolist() == [5.25, 5.145, 256, 64]
    assert data.loc["cfid", "paper_best"] == 18.52 and np.isnan(data.loc["cfid", "best"])
    assert "<h1>sportballs, target baseball" in html and "<li>&lt;run&gt;</li>" in html
    assert html.count("<tr") == 1 + len(data) + 2 and "tr :nth-child(2), tr :nth-child(3)" in html
    cells = re.findall("<td[^>]*>(.*?)</td>", html)
    assert cells[:3] == ["accuracy (guiding classifier)", "34.0 % [28.5, 40.0]", "99.0 % [96.9, 99.7]"]


def test_table_compares_the_papers_setup_though_another_is_our_best(tmp_path, with_robust):
    markdown, _ = table(with_robust, tmp_path / "t.md", tmp_path / "t.csv")
    lines = markdown.splitlines()
    assert lines[2] == (
        f"| metric | unconditional | {LABEL} | our best: robust, s = 3 | paper: unconditional | paper: {LABEL} |"
    )
    # each accuracy beside that of the unguided samples by the same classifier
    shares = "34.0 % [28.5, 40.0] | 99.0 % [96.9, 99.7] | – | 29.63 % | 91.05 %"
    assert f"| accuracy (guiding classifier) | {shares} |" in lines
    assert "| accuracy (robust classifier) | 46.0 % [40.0, 52.1] | – | 77.0 % [71.5, 81.7] | – | – |" in lines
    data = pd.read_csv(tmp_path / "t.csv").set_index("metric")
    assert data.loc["cfd_judge", ["ours", "best"]].tolist() == [5.25, 1.0]
    assert set(data["ours_setup"]) == {EMA} and set(data["best_setup"]) == {"robust"}


def test_scales_of_a_table_are_those_of_the_tuning_samples(tmp_path, with_robust):
    for setup, scale, distance in ((EMA, 3, 1.0), (EMA, 15, 9.0), ("robust", 3, 7.0), (LOGPROB, 3, 8.0)):
        add_scores(with_robust, rows_of(setup, scale, {"cfd_judge": distance}, n=40, half=None, seeds="tuning"))
    (markdown,) = table(with_robust, tmp_path / "t.md")
    label = "non-robust + x̂₀ + EMA 0.99, s = 3"
    assert f"| metric | unconditional | {label} | paper: unconditional | paper: {LABEL} |" in markdown  # it is the best
    assert "| FD to target class (judge) [judge, 64 features] | 60.00 [58.80, 61.20] ‡ | 20.00 [" in markdown
    assert "- Scales were chosen on 40 other samples per point." in markdown


def test_the_spread_between_trainings_stands_apart_and_is_explained(tmp_path, points_csv):
    for repeat, share in ((2, 0.79), (3, 0.59)):
        add_scores(points_csv, rows_of(EMA, 15, values_of(share, share, 5.25), repeat=repeat, features=64))
    markdown, _ = table(points_csv, tmp_path / "t.md", tmp_path / "t.csv")
    # 99, 79 and 59 %: standard deviation 20 points, less the error of sampling; Wilson's of 79 % of 768
    (row,) = re.findall(r"\| accuracy \(guiding classifier\) \|.*", markdown)
    assert "79.0 % [76.0, 81.7] ± 19.9 |" in row and "34.0 % [28.5, 40.0] |" in row
    assert "- ±: standard deviation between training runs of the guiding classifier" in markdown
    assert "| samples n | 256 | 768 |" in markdown
    (row,) = re.findall(r"\| FD to target class \(judge\) .*", markdown)
    assert "5.25 [5.19, 5.31] ± 0.00 ‡" in row  # of each training there are 256 samples


@pytest.mark.parametrize(("n", "mark"), [("64", "†"), ("65", "‡"), ("640", "")])
def test_table_marks_too_few_samples(tmp_path, points_csv, n, mark):
    edit(points_csv, "n", lambda table: table["n"] != "", n)
    write_all_points([tmp_path / "all.md"], csv=points_csv, setups=SETUPS)
    text = (tmp_path / "all.md").read_text()
    assert {char for char in "†‡" if char in text} == set(mark)


def test_all_points_in_order(tmp_path, points_csv):
    outputs = [tmp_path / "all.csv", tmp_path / "all.md"]
    write_all_points(outputs, csv=points_csv, setups=SETUPS)
    found = pd.read_csv(outputs[0])
    assert found["setup"].tolist() == ["unconditional", "nonrobust", EMA, EMA, LOGPROB, LOGPROB]
    assert found["n_diverged"].tolist() == [0, 100, 0, 0, 0, 0]
    assert found["cfd_judge"].tolist() == [60, 900, 20, 5.25, 25, 5.5]
    rows = [line.split(" | ") for line in close(outputs[1].read_text()).splitlines() if line.startswith("| ")]
    assert len(rows) == 7 and [row[1] for row in rows] == ["scale", "–", "3 *", "3", "15 *", "3", "15 *"]


def test_points_of_the_chosen_scales_with_some_metrics(tmp_path, points_csv):
    write_all_points([tmp_path / "all.csv"], csv=points_csv, setups=SETUPS)
    shown = {"metrics": ["cfd_judge", "accuracy"], "chosen": True}
    write_all_points([tmp_path / "few.csv"], csv=points_csv, setups=SETUPS, **shown)
    every, few = (pd.read_csv(tmp_path / f"{name}.csv").set_index("setup") for name in ("all", "few"))
    assert list(few.columns) == ["scale", "n", "n_diverged", "cfd_judge", "accuracy"]
    guided = every[every["scale"].notna()]
    nearest = guided.groupby(level="setup")["cfd_judge"].min()
    assert few["scale"].isna().sum() == 1 and len(few) == 1 + len(nearest) < len(every)
    assert (few["cfd_judge"][few["scale"].notna()] == nearest.reindex(few.index[few["scale"].notna()])).all()


def test_real_images_are_the_last_row_of_all_points_and_in_no_other_table(tmp_path, points_csv):
    add_scores(points_csv, rows_of("real", "", values_of(1.0, 0.95, 0.5), n=80, features=64))
    write_all_points([tmp_path / "all.csv", tmp_path / "all.md"], csv=points_csv, setups=SETUPS)
    last = pd.read_csv(tmp_path / "all.csv").iloc[-1]
    assert last[["setup", "n", "accuracy_judge", "cfd_judge"]].tolist() == ["real", 80, 0.95, 0.5]
    text = close((tmp_path / "all.md").read_text())
    row = [line for line in text.splitlines() if line.startswith("|")][-1]
    assert row.startswith("| real images | – | 80 | – | 100.0 % [95.4, 100.0] | 95.0 % [")
    assert "- Real images: held-out images of the target class" in text
    (markdown,) = table(points_csv, tmp_path / "t.md")
    assert "real" not in markdown.lower()
    add_scores(points_csv, rows_of("rejection", "", values_of(1.0, 0.9, 2.0), n=40, features=64))
    write_all_points([tmp_path / "all.csv"], csv=points_csv, setups=SETUPS)
    assert pd.read_csv(tmp_path / "all.csv")["setup"].tolist()[-2:] == ["rejection", "real"]


def test_no_note_is_blank(tmp_path, points_csv):
    edit(points_csv, "setup", lambda table: table["scale"] == "3", "gone")
    found = pd.read_csv(points_csv, dtype=str, keep_default_na=False)
    found[found["setup"] != "gone"].to_csv(points_csv, index=False)  # one scale of each setup: nothing was chosen
    (markdown,) = table(points_csv, tmp_path / "t.md")
    write_all_points([tmp_path / "all.md"], csv=points_csv, setups=SETUPS)
    for text in (markdown, (tmp_path / "all.md").read_text()):
        assert "Scales were chosen" not in text and "- \n" not in text and "\n-\n" not in text


def test_what_a_table_cannot_do_without(tmp_path, points_csv):
    first = pd.read_csv(points_csv, dtype=str, keep_default_na=False)
    first[first["metric"] != "cfd_judge"].to_csv(points_csv, index=False)
    with pytest.raises(NrcgError, match=r"points\.csv: no guided point has a value for cfid or cfd_NAME"):
        table(points_csv, tmp_path / "t.md")
    first[first["scale"] != ""].to_csv(points_csv, index=False)
    with pytest.raises(NrcgError, match=r"points\.csv: no unconditional point .* of sportballs; sample and score it"):
        table(points_csv, tmp_path / "t.md")
    assert not (tmp_path / "t.md").exists()
