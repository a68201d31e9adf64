"""The comparison with the paper: every number of it, ours of the same point or the reason why there is none."""

import re
from pathlib import Path

import pandas as pd
import pytest
from scored import add_scores, rows_of, write_scores

from nrcg.errors import NrcgError
from nrcg.report.tables import write_comparison

ROOT = Path(__file__).parents[2]
SETUPS = ROOT / "config" / "setups.yaml"
PAPER = ROOT / "config" / "paper_results.tsv"
EMA = "nonrobust_x0_ema0.99"
LABEL = "non-robust + x̂₀ + EMA 0.99"

SPORTBALLS = [  # the paper's: 29.63 %, 54.37, 155.19 unconditional; 91.05 %, 69.64, 18.52 at s = 15
    ("unconditional", "", "accuracy", 0.34, 50176, 0),
    ("unconditional", "", "fid", 50.0, 50176, 0),
    ("unconditional", "", "cfid", 160.25, 50176, 0),
    (EMA, 15, "accuracy", 0.90, 4096, 3),
    (EMA, 15, "fid", 70.0, 4096, 3),
    (EMA, 15, "cfid", 18.5, 2048, 0),
    ("robust", 15, "cfid", 1.0, 50176, 0),  # the paper says nothing of it
]
CELEBA = [
    ("unconditional", "", "accuracy", 0.5567, 50176, 0),
    ("unconditional", "", "fd_judge", 17.0, 50176, 0),  # no FID
    (EMA, 100, "accuracy", 0.99, 50176, 0),  # another scale than the paper's 150
]


def scores(path, dataset, points):
    rows = []
    for setup, scale, metric, value, n, lost in points:
        features = 64 if metric.endswith("_judge") else 2048
        rows += rows_of(setup, scale, {metric: value}, n=n, lost=lost, features=features, dataset=dataset)
    return write_scores(path, rows)


@pytest.fixture
def both(tmp_path):
    return [scores(tmp_path / "s.csv", "sportballs", SPORTBALLS), scores(tmp_path / "c.csv", "celeba", CELEBA)]


def compare(tmp_path, files, suffix, weights=None, **options):
    path = tmp_path / f"comparison{suffix}"
    weights = {"sportballs": "trained here", "celeba": "the authors'"} if weights is None else weights
    write_comparison([path], scores=files, paper=PAPER, setups=SETUPS, weights=weights, **options)
    return path


def test_numbers_by_hand(tmp_path, both):
    table = pd.read_csv(compare(tmp_path, both, ".csv"))
    paper = pd.read_csv(PAPER, sep="\t")
    for column in ("dataset", "setup", "scale", "metric"):
        pd.testing.assert_series_equal(table[column], paper[column])  # every number, in the paper's order
    assert table["paper"].tolist() == paper["value"].tolist()
    ours = table[table["dataset"] == "sportballs"].set_index(["setup", "metric"])
    expected = {
        ("unconditional", "accuracy"): (0.34, 0.0437, 50176),
        ("unconditional", "fid"): (50.0, -4.37, 50176),
        ("unconditional", "cfid"): (160.25, 5.06, 50176),
        (EMA, "accuracy"): (0.90, -0.0105, 4096),
        (EMA, "fid"): (70.0, 0.36, 4096),
        (EMA, "cfid"): (18.5, -0.02, 2048),
    }
    for key, numbers in expected.items():
        assert ours.loc[key, ["ours", "difference", "n"]].tolist() == pytest.approx(list(numbers))
    assert ours.loc[(EMA, "fid"), ["low", "high"]].tolist() == pytest.approx([68.6, 71.4])
    assert ours.loc[(EMA, "accuracy"), ["low", "high"]].tolist() == pytest.approx([0.8904, 0.9088], abs=1e-4)
    assert ours["n_diverged"].tolist() == [0, 0, 0, 3, 3, 0]
    assert set(ours["state"]) == {"measured"} and set(ours["weights"]) == {"trained here"}


def test_rows_for_reading(tmp_path, both):
    page = re.sub(" +", " ", compare(tmp_path, both, ".md", title="T", note="a note").read_text())
    inception = "Inception (pytorch-fid), 2048 features"
    for row in (
        "| sportballs | unconditional | – | accuracy (guiding classifier) | 29.63 % | 34.00 % [33.59, 34.42] "
        "| +4.37 pp | 50176 | the guiding classifier | trained here |",
        f"| sportballs | unconditional | – | FID | 54.37 | 50.00 [49.00, 51.00] | −4.37 | 50176 | {inception} "
        "| trained here |",
        f"| sportballs | {LABEL} | 15 | FID | 69.64 | 70.00 [68.60, 71.40] ‡ | +0.36 | 4096 (3 diverged) "
        f"| {inception} | trained here |",
        f"| sportballs | {LABEL} | 15 | cFID | 18.52 | 18.50 [18.13, 18.87] † | −0.02 | 2048 | {inception} "
        "| trained here |",
        "| celeba | unconditional | – | accuracy (guiding classifier) | 55.67 % | 55.67 % [55.23, 56.10] "
        "| +0.00 pp | 50176 | the guiding classifier | the authors' |",
        # what there is not: FD (judge) is no FID, s = 100 is not s = 150, and nothing of CelebA-HQ
        "| celeba | unconditional | – | FID | 17.68 | not measured | – | – | – | – |",
        f"| celeba | {LABEL} | 150 | accuracy (guiding classifier) | 99.99 % | not run | – | – | – | – |",
        "| celebahq | unconditional | – | cFID | 49.70 | not run | – | – | – | – |",
    ):
        assert f"\n{row}\n" in page
    assert "18 numbers: 7 measured, 2 not measured, 9 not run here." in page
    assert "† n ≤" in page and "‡ Small" in page and "torchvision" in page and "50 176 samples, 1 024" in page
    assert page.startswith("# T\n") and page.endswith("a note\n") and "17.00" not in page


def test_a_run_with_the_judges_distances_alone(tmp_path):
    rows = [(*row[:2], {"fid": "fd_judge", "cfid": "cfd_judge"}.get(row[2], row[2]), *row[3:]) for row in SPORTBALLS]
    files = [scores(tmp_path / "s.csv", "sportballs", rows)]
    table = pd.read_csv(compare(tmp_path, files, ".csv")).query("dataset == 'sportballs'")
    assert table["state"].tolist() == ["measured", "not measured", "not measured"] * 2
    assert table["ours"].dropna().tolist() == [0.34, 0.90]
    page = compare(tmp_path, files, ".md").read_text()
    assert "An FD (judge) is not an FID." in page and "†" not in page and "2048" not in page


def test_several_trainings_are_one_number_and_tuning_samples_and_real_images_none(tmp_path):
    path = scores(tmp_path / "s.csv", "sportballs", SPORTBALLS)
    add_scores(path, rows_of(EMA, 15, {"accuracy": 0.80, "fid": 74.0}, n=4096, features=2048, repeat=2))
    add_scores(path, rows_of(EMA, 15, {"accuracy": 0.10, "fid": 10.0}, n=512, half=None, seeds="tuning"))
    add_scores(path, rows_of("real", "", {"accuracy": 1.0, "fid": 0.5}, n=512, features=2048))
    page = re.sub(" +", " ", compare(tmp_path, [path], ".md").read_text())
    assert "| FID | 69.64 | 72.00 [70.98, 73.02] ± 2.74 ‡ | +2.36 | 4096 (3 diverged) |" in page
    assert "| 91.05 % | 85.00 % [84.21, 85.76] ± 7.05 | −6.05 pp | 8192 (3 diverged) |" in page
    assert "- ±: standard deviation between training runs" in page and "real" not in page


def test_a_blank_value_is_not_measured(tmp_path):
    rows = [(*row[:3], "", *row[4:]) if row[2] == "fid" else row for row in SPORTBALLS]
    table = pd.read_csv(compare(tmp_path, [scores(tmp_path / "s.csv", "sportballs", rows)], ".csv"))
    assert table.query("dataset == 'sportballs' and metric == 'fid'")["state"].tolist() == ["not measured"] * 2


def test_one_file_with_both_data_sets_gives_the_same_page(tmp_path, both):
    apart = compare(tmp_path, both, ".md").read_text()
    pd.concat([pd.read_csv(path, dtype=str) for path in both]).to_csv(tmp_path / "all.csv", index=False)
    assert compare(tmp_path, [tmp_path / "all.csv"], ".md").read_text() == apart


def test_latex_has_a_column_for_each_heading(tmp_path, both):
    latex = compare(tmp_path, both, ".tex").read_text()
    assert r"\begin{tabular}{llrlrrrrll}" in latex and r"$-$4.37" in latex and r"34.00 \% [33.59, 34.42]" in latex
    body = latex[latex.index(r"\toprule") : latex.index(r"\bottomrule")]
    assert all(line.count(" & ") == 9 for line in body.splitlines() if line.endswith(r"\\"))


def test_bad_input_is_named(tmp_path, both):
    with pytest.raises(NrcgError, match="weights: no entry for data set 'celeba'"):
        compare(tmp_path, both, ".csv", weights={"sportballs": "trained here"})
    with pytest.raises(NrcgError, match=r"again\.csv: data set 'celeba' is also in another file"):
        compare(tmp_path, [*both, scores(tmp_path / "again.csv", "celeba", CELEBA)], ".csv")
    with pytest.raises(NrcgError, match=r"gone\.csv: no such file"):
        compare(tmp_path, [tmp_path / "gone.csv"], ".csv")
    with pytest.raises(NrcgError, match=r"comparison\.txt: tables are written as"):
        compare(tmp_path, both, ".txt")
