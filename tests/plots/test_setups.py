"""Setups and metrics as figures show them, and the paper's numbers."""

import re
from pathlib import Path

import pytest
from scored import EMA, LOGPROB

from nrcg.errors import NrcgError
from nrcg.io.tables import read_paper, read_table
from nrcg.plots.setups import extractor_of, is_share, metric_label, read_setups
from nrcg.plots.style import styled

ROOT = Path(__file__).parents[2]
SETUPS = ROOT / "config" / "setups.yaml"
PAPER = ROOT / "config" / "paper_results.tsv"


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
    "[1, 2]": "write one row per setup",
    "1: {}": "write one row per setup",
    f"a: {ROW}\na: {ROW}": "cannot be read as YAML (duplicate key a",
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


LABELS = {  # of a metric, whose features it is of, and whether it is a share
    "fid": ("FID", "Inception", False),
    "cfid": ("cFID", "Inception", False),
    "fid_infinity": ("FID∞", "Inception", False),
    "fd_dino": ("FD (dino)", "dino", False),
    "cfd_dino": ("FD to target class (dino)", "dino", False),
    "cfd_infinity_my_net": ("FD∞ to target class (my_net)", "my_net", False),
    "kid_inception": ("KID (Inception)", "Inception", False),
    "coff_manifold_judge": ("off-manifold to target class (judge)", "judge", True),
    "precision_judge": ("precision (judge)", "judge", True),
    "cdensity_judge": ("density to target class (judge)", "judge", False),
    "accuracy": ("accuracy (guiding classifier)", "", True),
    "accuracy/robust": ("accuracy (robust classifier)", "", True),
    "accuracy/nonrobust": ("accuracy (non-robust classifier)", "", True),
    "accuracy_judge": ("accuracy (judge)", "", True),
    "judge_share/a/b": ("share of a/b (judge)", "", True),
    "unet_evaluations": ("U-Net evaluations", "", False),
    "mine": ("mine", "", False),
}


def test_a_metric_is_named_after_its_extractor():
    assert {name: (metric_label(name), extractor_of(name), is_share(name)) for name in LABELS} == LABELS


def test_paper_numbers():
    paper = read_paper(PAPER, "sportballs").set_index(["setup", "metric"])
    assert paper.loc[(EMA, "cfid"), "value"] == 18.52 and paper.loc[(EMA, "cfid"), "scale"] == 15
    assert paper.loc[("unconditional", "accuracy"), "value"] == 0.2963
    assert len(read_table(PAPER, text=("dataset",))) == 18
