"""Before and after guidance: which seeds are shown and counted, against a plain recomputation, and pixel by pixel."""

import json
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from drawn import find
from PIL import Image

from nrcg.errors import NrcgError
from nrcg.plots.before_after import plot_before_after
from nrcg.plots.style import GREY

CLASSES = ["cat", "dog", "emu"]
SIZE = 8


class Side:
    """Samples of one point with random verdicts, in as many shards as `edges` say."""

    def __init__(self, folder, name, edges, diverged=(), seed=0):
        random = np.random.default_rng(seed)
        self.seeds = range(edges[0], edges[-1])
        self.images = random.integers(0, 256, (len(self.seeds), SIZE, SIZE, 3), dtype=np.uint8)
        self.csv, self.shards = folder / f"{name}.csv", []
        for start, stop in pairwise(edges):
            path = folder / f"{name}_{start}.npy"
            np.save(path, self.images[start - edges[0] : stop - edges[0]])
            lost = [seed for seed in diverged if start <= seed < stop]
            path.with_suffix(".json").write_text(json.dumps({"seeds": [start, stop], "diverged": lost}))
            self.shards.insert(0, path)  # out of order
        own, judge = random.choice(CLASSES, (2, len(self.seeds)))
        blank = np.isin(self.seeds, list(diverged))
        self.table = pd.DataFrame(
            {"seed": self.seeds, "diverged": blank, "guiding": np.where(blank, "", own),
             "judge": np.where(blank, "", judge)}
        )  # fmt: skip
        self.write()

    def write(self):
        self.table.to_csv(self.csv, index=False)

    def said(self, column="guiding"):
        return dict(zip(self.table["seed"], self.table[column], strict=True))

    def image(self, seed):
        return self.images[seed - self.seeds.start]


@pytest.fixture
def sides(tmp_path):
    before = Side(tmp_path, "before", [0, 20, 40, 50], diverged=(1, 22), seed=1)
    return before, Side(tmp_path, "after", [0, 16, 32], diverged=(2, 9, 14), seed=2)


def draw(sides, outputs, **options):
    before, after = sides
    options = {"target": "cat", "verdicts_before": before.csv, "verdicts_after": after.csv} | options
    return plot_before_after(outputs, before=before.shards, after=after.shards, **options)


def texts(fig):
    """(text, bold) of the annotations in the axes by place: row labels, captions and seeds."""
    return [(text.get_text(), text.get_weight() == "bold") for text in fig.axes[0].texts]


def small_print(fig):
    return " ".join(fig.texts[-1].get_text().split())


def others(before, after, target="cat"):
    return [seed for seed in range(32) if before.said()[seed] not in ("", target)]


@pytest.mark.parametrize("n", [1, 4, 8])
def test_shows_the_first_seeds_of_another_class_and_their_verdicts(tmp_path, sides, n):
    _, after = sides
    shown = others(*sides)[:n]
    expected = []
    for side in sides:
        for seed in shown:
            own, judge = side.said()[seed], side.said("judge")[seed]
            expected.append((own or "diverged", own == "cat"))
            if judge != own:
                expected.append((f"judge: {judge}", judge == "cat"))
    expected += [(label, False) for name in ("unguided", "guided") for label in (name, "guiding classifier:")]
    expected += [(f"seed {seed}" if seed == shown[0] else str(seed), False) for seed in shown]
    fig = draw(sides, [tmp_path / "f.png"], n=n)
    assert texts(fig) == expected
    frames = [after.said()[seed] == "" for seed in shown]
    assert len(fig.axes[0].patches) == sum(frames)


def test_counts_all_seeds_drawn_both_ways(tmp_path, sides):
    _, after = sides
    chosen = others(*sides)
    own = sum(after.said()[seed] == "cat" for seed in chosen)
    judge = sum(after.said("judge")[seed] == "cat" for seed in chosen)
    assert 0 < own != judge and len(chosen) > 3
    text = small_print(draw(sides, [tmp_path / "f.png"], n=3, note="a note"))
    assert text.startswith(
        f"Of 32 seeds, the guiding classifier assigns {len(chosen)} to another class than cat without guidance. "
        f"With guidance, it assigns {own} of these {len(chosen)} to cat; the judge assigns {judge} of the "
        f"{len(chosen)} to cat. Shown: the first 3 of the {len(chosen)}, by seed. Below each "
        "sample: its class according to the guiding classifier; bold: cat."
    )
    assert "a note" in text


def test_another_column_decides(tmp_path, sides):
    random = np.random.default_rng(7)
    for side in sides:
        mine = np.where(side.table["diverged"], "", random.choice(CLASSES, len(side.table)))
        side.table = side.table.assign(mine=mine)
        side.write()
    before, after = sides
    chosen = [seed for seed in range(32) if before.said("mine")[seed] not in ("", "cat")]
    own = sum(after.said("mine")[seed] == "cat" for seed in chosen)
    said = small_print(draw(sides, [tmp_path / "f.png"], classifier="mine"))
    assert f"the mine classifier assigns {len(chosen)} to" in said and f"it assigns {own} of these" in said
    chosen = [seed for seed in range(32) if before.said("judge")[seed] not in ("", "cat")]
    fig = draw(sides, [tmp_path / "f.png"], classifier="judge")  # counted once, and agrees with itself
    assert f"the judge assigns {len(chosen)} to" in small_print(fig) and "; the judge" not in small_print(fig)
    assert not any(text.startswith("judge: ") for text, _ in texts(fig))


def test_samples_are_pixel_exact_and_the_target_stands_out(tmp_path, sides):
    fig = draw(sides, [tmp_path / "f.png", tmp_path / "f.pdf"], n=6, title="x̂₀")
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    page = np.asarray(Image.open(tmp_path / "f.png").convert("RGB"))
    factor = -(-1500 // (6 * (SIZE + 1) + 1))
    places = [[find(page, side.image(seed), factor) for seed in others(*sides)[:6]] for side in sides]
    (top, left), (below, _) = places[0][0], places[1][0]
    steps = [left + i * (SIZE + 1) * factor for i in range(6)]
    assert places == [[(top, x) for x in steps], [(below, x) for x in steps]]
    assert below > top + (SIZE + 2) * factor  # between them stand the classes
    looks = {(text.get_weight(), text.get_color()) for text in fig.axes[0].texts[:12]}
    assert looks == {("bold", "black"), ("normal", GREY)}


def test_no_text_is_wider_than_its_sample_or_on_another(tmp_path, sides):
    for side in sides:
        names = {"cat": "female with very long hair", "dog": "Wearing_Lipstick", "emu": "unsmiling"}
        side.table = side.table.replace(names)
        side.write()
    fig = draw(sides, [tmp_path / "f.png"], n=10, target="female with very long hair")
    renderer = fig.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in [*fig.axes[0].texts, fig.texts[-1]]]
    for i, a in enumerate(boxes):
        assert a.x0 >= 0 and a.x1 <= fig.bbox.x1 and a.y0 >= 0
        for b in boxes[i + 1 :]:  # lines of one paragraph may touch
            assert min(a.x1, b.x1) <= max(a.x0, b.x0) or min(a.y1, b.y1) - max(a.y0, b.y0) < 0.3 * min(
                a.height, b.height
            )
    ax = fig.axes[0]
    width = ax.transData.transform((SIZE, 0))[0] - ax.transData.transform((0, 0))[0]
    captions = boxes[: -4 - 10 - 1]
    assert max(box.width for box in captions) <= width
    assert "Wearing_" in {text.get_text() for text in ax.texts}


def test_a_sentence_where_no_seed_was_another_class(tmp_path, sides):
    before, _ = sides
    before.table["guiding"] = np.where(before.table["diverged"], "", "cat")
    before.write()
    fig = draw(sides, [tmp_path / "f.png"], note="a note")
    assert not fig.axes and (tmp_path / "f.png").exists()
    said = " ".join(text.get_text() for text in fig.texts)
    assert re.search(
        r"the\s+guiding\s+classifier\s+assigns\s+none\s+of\s+\d+\s+seeds\s+to\s+another\s+class\s+than\s+cat", said
    )


def test_verdicts_of_more_seeds_are_counted_but_not_shown(tmp_path, sides):
    before, after = sides
    few = [path for path in before.shards if "before_0" in path.name]  # seeds 0 to 19; verdicts know 0 to 49
    fig = plot_before_after([tmp_path / "f.png"], before=few, after=after.shards, verdicts_before=before.csv,
                            verdicts_after=after.csv, target="cat", n=12)  # fmt: skip
    others = [seed for seed in range(32) if before.said()[seed] not in ("", "cat")]
    heads = [text.get_text() for text in fig.axes[0].texts if text.get_text().removeprefix("seed ").isdigit()]
    shown = [seed for seed in others if seed < 20][:12]
    assert [int(head.removeprefix("seed ")) for head in heads] == shown
    assert f"assigns {len(others)}" in " ".join(" ".join(text.get_text() for text in fig.texts).split())


def test_bad_input_is_named(tmp_path, sides):
    before, after = sides
    out = [tmp_path / "f.png"]
    with pytest.raises(NrcgError, match=r"before\.csv: not the verdicts of the samples"):
        draw(sides, out, verdicts_after=before.csv)
    with pytest.raises(NrcgError, match=r"after\.csv: no column 'mine'"):
        after.table.assign(mine="cat").drop(columns="mine").to_csv(after.csv, index=False)
        before.table.assign(mine=before.table["guiding"]).to_csv(before.csv, index=False)
        draw(sides, out, classifier="mine")
    with pytest.raises(NrcgError, match="n 13: must be a whole number from 1 to 12"):
        draw(sides, out, n=13)
    after.table.drop(columns="judge").to_csv(after.csv, index=False)
    with pytest.raises(NrcgError, match=r"after\.csv: no column 'judge'; score its samples again"):
        draw(sides, out)
    other = Side(tmp_path, "other", [60, 64])
    with pytest.raises(NrcgError, match=r"other\.csv: no seeds in common with .*before\.csv"):
        draw((before, other), out)
    after.table.loc[3, "guiding"] = ""
    after.write()
    with pytest.raises(NrcgError, match=r"after\.csv: not the verdicts"):
        draw(sides, out)
    np.save(other.shards[0], np.zeros((4, 9, 9, 3), np.uint8))
    with pytest.raises(NrcgError, match=r"other_60\.npy: images differ in size"):
        draw((before, other), out)
    assert not out[0].exists()
