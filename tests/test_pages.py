"""The pages of docs/results show what their shipped scores say."""

import pytest
from environment_yml import ROOT

from experiments.pages import PAGES, draw


@pytest.mark.parametrize("name", PAGES)
def test_figures_and_table_are_made_of_the_shipped_scores(tmp_path, name):
    assert draw(name, tmp_path) == (ROOT / PAGES[name]["page"]).read_text("utf-8")
    for figure in PAGES[name]["figures"]:
        made, shipped = tmp_path / figure, ROOT / figure
        if made.suffix == ".md":
            assert made.read_text("utf-8") == shipped.read_text("utf-8")
        else:
            assert made.stat().st_size > 20_000 and shipped.is_file()
