"""The page of findings: what it says around the claims, how scales were chosen, whose labels, and what is refused."""

import re

import pandas as pd
import pytest
from world import EMA99, ROLES, SETUPS, World

from nrcg.errors import NrcgError


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def page_of(world, name="f.md", **changes) -> str:
    world.write([world.folder / name], **changes)
    return re.sub(" +", " ", (world.folder / name).read_text("utf-8"))


def test_page(world, tmp_path):
    world.curves.pop(2)
    world.shares = {"a|b": 0.1, "b": 0.45, "c": 0.45}
    world.note = "a note\nof <two> lines"
    world.write([tmp_path / "f.md", tmp_path / "f.html", tmp_path / "f.tex"], title="Findings: SportBalls")
    page = re.sub(" +", " ", (tmp_path / "f.md").read_text())
    counts = "22 claims: 18 supported, 1 not supported, 0 undecided, 3 not measured."
    assert f"\n\na note\n\nof <two> lines\n\n{counts}\n\n| verdict |" in page
    assert page.startswith("# Findings: SportBalls\n") and "baseball, with 256 samples per point" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 24 and all(line.replace("\\|", "").count("|") == 5 for line in rows)
    assert sum(row.startswith("| not measured |") for row in rows) == 3 and r"a\|b 10.0 %" in page
    html = (tmp_path / "f.html").read_text("utf-8")
    assert html.count("<tr") == 23 and html.count("<td>not measured</td>") == 3 and "a|b 10.0 %" in html
    assert '<meta charset="utf-8">' in html and "<h1>Findings: SportBalls</h1>" in html and "x̂₀" in html
    assert "<p>of &lt;two&gt; lines</p>" in html and "…" not in html  # pandas shortens long cells
    assert not re.search(r"src=|href=|@import|url\(", html)  # needs no other file
    assert re.findall("<th>(.*?)</th>", html) == ["verdict", "claim", "measured", "our threshold"]
    assert r"\begin{tabular}{llll}" in (tmp_path / "f.tex").read_text()


def test_the_page_says_that_thresholds_are_ours_and_when_a_claim_is_undecided(world):
    page = page_of(world)
    assert "- Thresholds are ours; the paper gives none." in page and "| our threshold |" in page
    assert "undecided at this number of samples otherwise" in page
    assert "≥ 90.0 % by the judge" in page and "{" not in page  # every limit is filled in


def test_scales_are_chosen_on_other_samples_where_there_are_any_and_the_page_says_how(world):
    few = "\n\nScales were chosen on the reported samples, so scores at the best scales are optimistic.\n\n"
    assert few in page_of(world)
    world.tuning = {(setup, scale): 1.0 + (scale != 30) for setup, scale in world.points if scale != ""}
    assert "\n\nScales were chosen on 100 other samples per point.\n\n" in page_of(world)
    findings = world.findings()
    measured = findings.loc["robust", "measured"]  # of the samples reported
    assert "at s = 30: 94.0 % [90.4, 96.3] baseball by the judge" in measured
    assert "FD to target class (judge) 20 [19.6, 20.4]" in measured
    assert (
        findings.loc["inside", "verdict"] == "not supported"
        and "robust 30 of 3–30" in findings.loc["inside", "measured"]
    )
    assert "non-robust + x̂₀ + EMA 0.99: 30" in findings.loc["adam scales", "measured"]


def test_where_no_scale_was_chosen_nothing_is_said_of_it(world, tmp_path):
    world.points = {key: row for key, row in world.points.items() if key[1] in ("", 10)}
    assert "Scales were chosen" not in page_of(world) and "\n\n\n" not in page_of(world)
    world.write([tmp_path / "f.html"])
    assert "<p></p>" not in (tmp_path / "f.html").read_text()


def test_numbers_of_samples_are_those_of_points_not_of_metrics(world, tmp_path):
    table = pd.read_csv(world.scores(), dtype=str, keep_default_na=False)
    few = table[table["metric"] == "cfd_judge"].assign(metric="ckid_judge", n="64")  # it takes the first samples alone
    table.loc[table["scale"] == "", "n"] = "512"
    pd.concat([table, few]).to_csv(tmp_path / "more.csv", index=False)
    assert "with 256 or 512 samples per point" in page_of(world, scores=tmp_path / "more.csv")


def test_inception_decides_the_best_scale_where_measured(world):
    world.distance = "cfid"
    assert "(by cFID)" in world.findings("adam scales").loc["adam scales", "measured"]


def test_a_role_that_no_setup_has_is_not_measured(world):
    roles = {role: name for role, name in ROLES.items() if role not in ("ema", "adam")}
    findings = world.findings(roles=roles)
    absent = {"ema level", "adam worse", "ema", "ema own", "logit", "adam scales", "celeba"}
    assert set(findings.index[findings["verdict"] == "not measured"]) == absent
    assert findings.loc["ema", "claim"] == "Guidance with non-robust + x̂₀ + EMA steers."
    with pytest.raises(NrcgError, match="roles: unknown key emma; nearest are ema, "):
        world.findings(roles={"emma": EMA99})
    with pytest.raises(NrcgError, match=r"roles: ema: column 'setup' holds 'gone', which is not in .*setups\.yaml"):
        world.findings(roles={"ema": "gone"})


def test_claims_take_labels_from_the_setups_and_setups_from_the_roles(world, tmp_path):
    changed = SETUPS.read_text().replace("nonrobust_x0_ema0.99:", "mine:").replace("x̂₀ + EMA 0.99\n", "x̂₀ + MINE\n")
    (tmp_path / "setups.yaml").write_text(changed)
    world.curves[4]["mine"] = world.curves[4].pop(EMA99)
    world.more[4, "relative_sensitivity"]["mine"] = world.more[4, "relative_sensitivity"].pop(EMA99)
    world.points = {("mine" if key[0] == EMA99 else key[0], key[1]): row for key, row in world.points.items()}
    findings = world.findings(roles=ROLES | {"ema": "mine"}, setups=tmp_path / "setups.yaml")
    assert findings.loc["ema", "claim"] == "Guidance with non-robust + x̂₀ + MINE steers."
    assert set(findings["verdict"].drop("celeba")) == {"supported"}


def test_both_measures_are_quoted_and_compared_with_the_same_classifier(world):
    measured = world.findings("robust").loc["robust", "measured"]
    assert "at s = 10: 99.0 % [96.9, 99.7] baseball by the judge" in measured
    assert "98.0 % by its own classifier (unguided 35.0 %)" in measured  # by the robust one, not 34 %
    assert "98.0 % by its own classifier (unguided 34.0 %)" in world.findings("ema").loc["ema", "measured"]
    world.robust_unguided = None
    assert "not measured by its own classifier" in world.findings("robust").loc["robust", "measured"]


def test_a_card_without_an_accuracy_is_said_and_a_wrong_one_refused(world):
    world.clean["robust"] = None  # imported
    measured = world.findings("robust own").loc["robust own", "measured"]
    assert "the card of the robust classifier has no accuracy on clean images" in measured
    world.clean["robust"] = "0.9"
    with pytest.raises(NrcgError, match=r"robust\.json: valid_accuracy '0\.9': must be a finite number"):
        world.findings()


def test_bad_input_is_named(world, tmp_path):
    with pytest.raises(NrcgError, match=r"f\.txt: tables are written as"):
        world.write([tmp_path / "f.txt"])
    figures = world.figures()
    with pytest.raises(NrcgError, match=r"figure 5 .*figure1\.csv"):
        world.findings(figures={"5": figures["1"]})
    with pytest.raises(NrcgError, match=r"figure1\.csv: column 'metric' must hold 'logit_sensitivity'"):
        world.findings(figures={"2": figures["1"]})
    with pytest.raises(NrcgError, match=r"gone\.csv: no such file"):
        world.findings(figures={"1": tmp_path / "gone.csv"})
    for broken in ({"t": 3}, {"t": ""}, {"setup": "unheard"}):
        path = tmp_path / "broken.csv"
        pd.read_csv(figures["1"]).assign(**broken).to_csv(path, index=False)
        with pytest.raises(NrcgError, match=r"broken\.csv"):
            world.findings(figures={"1": path})
