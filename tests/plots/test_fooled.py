"""Where guiding classifier and judge differ: which samples are shown and counted, at which scale, pixel by pixel."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn import find, small_print
from PIL import Image
from scored import add_scores, rows_of, write_scores

from nrcg.errors import NrcgError
from nrcg.plots.fooled import CAPTIONS, plot_fooled
from nrcg.plots.samples import LINES

SETUPS = Path(__file__).parents[2] / "config" / "setups.yaml"
X0 = "nonrobust_x0"
CLASSES = ["cat", "dog", "emu"]
SIZE, SEEDS, FIRST, SHOWN = 8, 60, 10, 30  # a shard holds the first 30 of the reported seeds 10 to 59
POINTS = [("robust", 2), ("robust", 5), (X0, 3), (X0, 15)]


class Run:
    """Four points with random verdicts of 60 seeds, of which the first ten are for choosing scales."""

    def __init__(self, folder):
        self.folder, self.tables, self.images, self.points = folder, {}, {}, []
        random = np.random.default_rng(0)
        for i, (setup, scale) in enumerate(POINTS):
            lost = [seed for seed in (12 + i, 20 + i, 55) if seed != 3]
            table = pd.DataFrame({"seed": range(SEEDS), "diverged": np.isin(range(SEEDS), lost)})
            for name in ("guiding", "judge"):
                table[name] = np.where(table["diverged"], "", random.choice(CLASSES, SEEDS))
            table.loc[table["seed"] == 55, "guiding"] = "cat"  # whatever else is said of what diverged
            self.tables[setup, scale] = table
            self.images[setup, scale] = random.integers(0, 256, (SHOWN, SIZE, SIZE, 3), dtype=np.uint8)
            shard = folder / f"{i}.npy"
            np.save(shard, self.images[setup, scale])
            card = {"seeds": [FIRST, FIRST + SHOWN], "diverged": [seed for seed in lost if seed < FIRST + SHOWN]}
            shard.with_suffix(".json").write_text(json.dumps(card))
            self.points.append({"setup": setup, "scale": scale, "shard": str(shard), "verdicts": f"{folder}/{i}.csv"})
        distances = dict(zip(POINTS, (4.0, 8.0, 6.0, 5.0), strict=True))  # robust: 2, X0: 15
        rows = [row for key, value in distances.items() for row in rows_of(*key, {"cfd_judge": value})]
        self.csv = write_scores(folder / "scores.csv", rows + rows_of("unconditional", "", {"cfd_judge": 9.0}))

    def draw(self, *outputs, **more):
        for point in self.points:
            self.tables[point["setup"], point["scale"]].to_csv(point["verdicts"], index=False)
        options = {"csv": self.csv, "setups": SETUPS, "points": self.points, "target": "cat"} | more
        return plot_fooled(outputs or [self.folder / "f.png"], **options)

    def differ(self, key):
        """Seeds of reported samples on which the two differ."""
        return [row.seed for row in self.tables[key].itertuples()
                if row.seed >= FIRST and not row.diverged and row.guiding != row.judge]  # fmt: skip

    def agree(self, *keys):
        for key in keys:
            self.tables[key]["guiding"] = self.tables[key]["judge"]


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def texts(fig):
    """Each text but the captions, in one line, and whether it is bold."""
    found = [(" ".join(text.get_text().split()), text.get_weight() == "bold") for text in fig.axes[0].texts]
    return [text for text in found if text[0] not in CAPTIONS]


def lines_of(run, key, n):
    lines = []
    for seed in [seed for seed in run.differ(key) if seed < FIRST + SHOWN][:n]:
        row = run.tables[key].iloc[seed]
        lines += [(str(seed), False), (row["guiding"], row["guiding"] == "cat"), (row["judge"], row["judge"] == "cat")]
    return lines


def labels_of(run, *keys):
    known = {"robust": "robust", X0: r"non-robust + $\hat{x}_0$"}
    return [(f"{known[setup]}, s = {scale}: {len(run.differ((setup, scale)))} of {SEEDS - FIRST}", False)
            for setup, scale in keys]  # fmt: skip


@pytest.mark.parametrize("n", [1, 5])
def test_the_first_samples_of_the_chosen_scales_with_both_verdicts(run, n):
    fig = run.draw(n=n)
    keys = [("robust", 2), (X0, 15)]  # in the order of the setups
    assert texts(fig) == [line for key in keys for line in lines_of(run, key, n)] + labels_of(run, *keys)
    assert 0 < len(run.differ(keys[0])) < SEEDS - FIRST  # neither the tuning seeds nor what diverged count
    assert [text.get_text() for text in fig.axes[0].texts].count("judge:") == 2  # left of each row
    assert not fig.axes[0].patches  # no frame of a diverged sample
    note = " ".join(fig.texts[-1].get_text().split())
    assert "assign to different classes; bold: cat. Left: the number of such samples" in note and "No such" not in note


def test_tuning_samples_choose_the_scale(run):
    add_scores(run.csv, [row for key in POINTS for row in rows_of(
        *key, {"cfd_judge": 1.0 if key in (("robust", 5), (X0, 3)) else 7.0}, half=None, seeds="tuning")])  # fmt: skip
    keys = [("robust", 5), (X0, 3)]
    assert texts(run.draw(n=2))[-2:] == labels_of(run, *keys)


def test_samples_are_pixel_exact_and_unused_places_blank(run, tmp_path):
    table = run.tables["robust", 2]
    table.loc[table["seed"] != 17, "guiding"] = table["judge"]  # one sample alone
    table.loc[table["seed"] == 17, ["guiding", "judge"]] = ["cat", "dog"]
    fig = run.draw(tmp_path / "f.png", tmp_path / "f.pdf", n=3, title="x̂₀")
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    page = np.asarray(Image.open(tmp_path / "f.png").convert("RGB"))
    factor = -(-1500 // (3 * (SIZE + 1) + 1))
    shown = [("robust", 2, 17), *((X0, 15, seed) for seed in run.differ((X0, 15))[:3])]
    places = [find(page, run.images[setup, scale][seed - FIRST], factor) for setup, scale, seed in shown]
    (top, left), (below, same) = places[:2]
    assert same == left and [x for _, x in places[1:]] == [left + i * (SIZE + 1) * factor for i in range(3)]
    width = SIZE * factor
    frame = page[top + 5, left + width : left + width + factor]  # at its right, then nothing up to the edge of the page
    assert (frame == LINES).all() and (page[top - factor : top + width + factor, left + width + factor :] == 255).all()
    assert (page[below + 5, left + width : left + width + factor] == LINES).all()
    assert texts(fig)[-2][0].startswith("robust, s = 2: 1 of 50")


def test_a_setup_that_fools_none_has_no_row_but_is_named(run):
    run.agree(("robust", 2))
    fig = run.draw(n=2)
    assert texts(fig) == [*lines_of(run, (X0, 15), 2), *labels_of(run, (X0, 15))]
    assert "No such sample: robust, s = 2: 0 of 50." in small_print(fig)
    run.agree((X0, 15))
    fig = run.draw(n=2)
    assert not fig.axes
    assert r"No such sample: robust, s = 2: 0 of 50; non-robust + $\hat{x}_0$, s = 15: 0 of 50." in small_print(fig)


def test_a_setup_without_scores_is_left_out(run):
    table = pd.read_csv(run.csv, dtype=str, keep_default_na=False)
    table[table["setup"] != "robust"].to_csv(run.csv, index=False)
    assert texts(run.draw(n=1))[-1:] == labels_of(run, (X0, 15))


def test_what_cannot_be_shown_is_refused(run, tmp_path):
    with pytest.raises(NrcgError, match="no shard of nonrobust_x0 at scale 15; add it"):
        run.draw(points=run.points[:3])
    with pytest.raises(NrcgError, match="n 13: must be a whole number from 1 to 12"):
        run.draw(n=13)
    with pytest.raises(NrcgError, match="points: unknown key seed; nearest are "):
        run.draw(points=[run.points[0] | {"seed": 3}])
    run.tables["robust", 2] = run.tables["robust", 2].drop(columns="judge")
    with pytest.raises(NrcgError, match=r"0\.csv: no column 'judge'; score its samples again"):
        run.draw()
    np.save(tmp_path / "0.npy", np.zeros((SHOWN, 9, 9, 3), np.uint8))
    run.tables["robust", 2]["judge"] = "cat"
    with pytest.raises(NrcgError, match=r"3\.npy: images differ in size"):
        run.draw()
    write_scores(run.csv, rows_of("unconditional", "", {"cfd_judge": 9.0}))
    with pytest.raises(NrcgError, match=r"scores\.csv: no setup of .*setups\.yaml has a chosen scale"):
        run.draw()
    assert not (tmp_path / "f.png").exists()
