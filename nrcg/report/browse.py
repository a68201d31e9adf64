"""The samples of every point on one page, one point at a time: chosen by setup and by scale."""

import json
from base64 import b64encode
from html import escape
from importlib.resources import files
from io import BytesIO
from string import Template

import numpy as np
from PIL import Image

from nrcg.checks import check, whole
from nrcg.io.files import write_text
from nrcg.io.shards import Shard
from nrcg.plots import figures
from nrcg.plots.samples import LINES, PAD, Point, same_size
from nrcg.plots.setups import known_setups, read_setups
from nrcg.plots.style import File, with_suffix
from nrcg.registry import call

PAGE = Template((files("nrcg.report") / "browse.html").read_text("utf-8"))
EXACT = 64  # pixels up to which images are kept as they are; larger ones are compressed


@figures.register("browse")
def write_browser(
    outputs: list[str], *, points: list[dict], setups: File, n: int = 48, columns: int = 8, title: str = "",
    note: str = "",
) -> None:  # fmt: skip
    """The first samples of every point on one page (HTML), which shows a point at a time: by its setup and its scale.

    Args:
        points: {"setup": name, "scale": number or null, "shard": path} of each point.
        n: at most this many samples per point, `columns` per row.
    """
    check("browse", {"n": n, "columns": columns}, {"n": whole(1), "columns": whole(1)})
    given = [call(Point, "points", point) for point in points]
    shards = same_size([Shard.open(point.shard) for point in given])
    sheets: dict[str, dict[str, str]] = {}
    for setup in known_setups(read_setups(setups), [point.setup for point in given], "points", setups):
        for point, shard in zip(given, shards, strict=True):
            if point.setup == setup.name:
                scale = "none" if point.scale is None else f"s = {point.scale:g}"
                sheets.setdefault(setup.label, {})[scale] = _image(shard.images[:n], columns)
    first = shards[0].seeds.start if shards else 0
    notes = [f"The first samples of each point, at most {n}, row by row from seed {first}.", *note.splitlines()]
    lines = "\n".join(f"<p>{escape(line)}</p>" for line in notes)
    # </ would end the script
    page = PAGE.substitute(title=escape(title), note=lines, points=json.dumps(sheets).replace("</", "<\\/"))
    for path in with_suffix(outputs, "pages", [".html"]):
        write_text(path, page)


def _image(images: np.ndarray, columns: int) -> str:
    """Images, uint8 N×H×W×3, in rows on a grey sheet, as a data URI."""
    (height, width), rows = images.shape[1:3], -(-len(images) // columns)
    sheet = np.full((rows * (height + PAD) - PAD, columns * (width + PAD) - PAD, 3), LINES, np.uint8)
    for i, image in enumerate(images):
        sheet[i // columns * (height + PAD) :, i % columns * (width + PAD) :][:height, :width] = image
    file = BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", lossless=max(height, width) <= EXACT, quality=90)
    return f"data:image/webp;base64,{b64encode(file.getvalue()).decode()}"
