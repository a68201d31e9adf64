"""How a number looks in a table, and text that a format would read as its own."""

import pandas as pd
import pytest

from nrcg.report.text_tables import Table, cell, latex_escape, to_html, to_latex, to_markdown

NAN = float("nan")


def row(value, low=NAN, high=NAN, between=NAN, n=1000.0, features=NAN):
    found = {"value": value, "low": low, "high": high, "between": between, "n": n, "features": features}
    return pd.Series(found)


CELLS = [  # metric, row, as it is said
    ("accuracy", row(0.3412), "34.1 %"),
    ("accuracy_judge", row(0.3412, 0.2849, 0.3996), "34.1 % [28.5, 40.0]"),
    ("judge_share/cat", row(0.0, 0.0, 0.0038), "0.0 % [0.0, 0.4]"),
    ("coff_manifold_judge", row(0.5, 0.25, 0.75), "50.0 % [25.0, 75.0]"),  # a share of samples too
    ("accuracy", row(0.34, 0.31, 0.37, 0.0213), "34.0 % [31.0, 37.0] ± 2.1"),
    ("accuracy", row(0.34, between=0.0), "34.0 % ± 0.0"),
    ("cfd_judge", row(12.345, 11.9, 12.811, n=640.0, features=64.0), "12.35 [11.90, 12.81]"),
    ("cfd_judge", row(12.345, 11.9, 12.811, n=639.0, features=64.0), "12.35 [11.90, 12.81] ‡"),
    ("cfd_judge", row(12.345, 11.9, 12.811, 0.5, n=64.0, features=64.0), "12.35 [11.90, 12.81] ± 0.5 †"),
    ("fid", row(18.52, n=2048.0, features=2048.0), "18.52 †"),
    ("ckid_judge", row(-0.00123, -0.00456, 0.0021, n=9.0, features=64.0), "−0.00123 [−0.00456, 0.0021]"),  # unmarked
    ("fd_judge", row(0.98765, 0.0, 1.0), "0.988 [0.00, 1.00]"),
    ("fd_judge", row(0.00001234), "1.23e−05"),
    ("unet_evaluations", row(300.0), "300"),
    ("accuracy", row(NAN, 0.1, 0.2), "–"),
]  # fmt: skip


@pytest.mark.parametrize(("metric", "numbers", "said"), CELLS, ids=[said for *_, said in CELLS])
def test_a_cell(metric, numbers, said):
    assert cell(numbers, metric) == said


def test_a_cell_of_the_paper_has_more_digits_and_no_interval():
    assert cell(pd.Series({"value": 0.2963}), "accuracy", digits=2) == "29.63 %"
    assert cell(pd.Series({"value": 155.19}), "cfid", digits=2) == "155.19"


def test_latex_escape():
    assert latex_escape("log_prob & x̂₀ 5 % {a} #1 \\") == (r"log\_prob \& $\hat{x}_0$ 5 \% \{a\} \#1 \textbackslash{}")


def test_signs_of_a_cell_in_each_format():
    text = pd.DataFrame({"a|b": ["<x̂₀>"], "c": [cell(row(0.34, 0.31, 0.37, 0.02, n=64, features=64), "cfd_judge")]})
    table = Table("T & U", text, text, ["a < b"])
    assert "| <x̂₀>  | 0.34 [0.31, 0.37] ± 0.02 † |" in to_markdown(table) and r"a\|b" in to_markdown(table)
    assert r"0.34 [0.31, 0.37] $\pm$ 0.02 $\dagger$" in to_latex(table) and r"$<$$\hat{x}_0$$>$" in to_latex(table)
    assert "&lt;x̂₀&gt;" in to_html(table) and "0.34 [0.31, 0.37] ± 0.02 †" in to_html(table)
    assert "<h1>T &amp; U</h1>" in to_html(table) and "<li>a &lt; b</li>" in to_html(table)
