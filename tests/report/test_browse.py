"""The page that shows the samples of one point at a time: which points, and every pixel of theirs."""

import json
import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nrcg.errors import NrcgError
from nrcg.report.browse import LINES, write_browser

SETUPS = Path(__file__).parents[2] / "config" / "setups.yaml"
POINTS = [("nonrobust_x0", 15), ("robust", 2.5), ("nonrobust_x0", 3), ("unconditional", None)]


@pytest.fixture
def points(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (len(POINTS), 5, 8, 8, 3), dtype=np.uint8)
    for i, own in enumerate(images):
        np.save(tmp_path / f"{i}.npy", own)
        (tmp_path / f"{i}.json").write_text('{"seeds": [20, 25], "diverged": []}')
    return [{"setup": setup, "scale": scale, "shard": f"{tmp_path}/{i}.npy"} for i, (setup, scale) in enumerate(POINTS)]


def shown(page):
    """The sheets of a page, by setup and scale."""
    found = json.loads(re.search(r"const points = (.*); //", page.read_text())[1])
    return {setup: {scale: np.asarray(Image.open(BytesIO(b64decode(uri.partition(",")[2]))).convert("RGB"))
                    for scale, uri in scales.items()} for setup, scales in found.items()}  # fmt: skip


def test_every_point_is_on_the_page_pixel_by_pixel(tmp_path, points):
    page = tmp_path / "page.html"
    write_browser([page], points=points, setups=SETUPS, n=3, columns=2, title="A < B", note="one\ntwo")
    sheets = shown(page)
    assert [(setup, list(scales)) for setup, scales in sheets.items()] == [
        ("unconditional", ["none"]), ("robust", ["s = 2.5"]), ("non-robust + x̂₀", ["s = 15", "s = 3"]),
    ]  # fmt: skip
    images = np.load(tmp_path / "1.npy")
    sheet = np.full((17, 17, 3), LINES, np.uint8)
    sheet[:8, :8], sheet[:8, 9:], sheet[9:, :8] = images[:3]
    np.testing.assert_array_equal(sheets["robust"]["s = 2.5"], sheet)
    html = page.read_text()
    assert "<h1>A &lt; B</h1>" in html and "<p>one</p>" in html and "row by row from seed 20." in html
    assert not re.search("https?:", html)  # it works without a network


def test_what_cannot_be_shown_is_refused(tmp_path, points):
    with pytest.raises(NrcgError, match="browse: n 0: must be a whole number"):
        write_browser([tmp_path / "page.html"], points=points, setups=SETUPS, n=0)
    with pytest.raises(NrcgError, match=r"page\.png: pages are written as \.html"):
        write_browser([tmp_path / "page.png"], points=points, setups=SETUPS)
    with pytest.raises(NrcgError, match="holds 'rubust'"):
        write_browser([tmp_path / "page.html"], points=[points[0] | {"setup": "rubust"}], setups=SETUPS)
