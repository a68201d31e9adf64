"""Verdicts against direct predictions, whatever the batches and the order of the shards."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from nrcg.errors import NrcgError
from nrcg.evaluation.score import score
from nrcg.io.files import sha256

CLASSES = ["red", "green", "blue"]
DIVERGED = [103, 115]


class Brightest(torch.nn.Module):
    """Logits of the three colours; with `shift` that of the colour after."""

    def __init__(self, shift=0):
        super().__init__()
        self.shift = shift

    def forward(self, images):
        return images.mean((2, 3)).roll(self.shift, dims=1)


@pytest.fixture
def shards(tmp_path):
    """20 random images as seeds 100…119, the later shard first."""
    images = np.random.default_rng(3).integers(0, 256, size=(20, 4, 4, 3), dtype=np.uint8)
    images[[seed - 100 for seed in DIVERGED]] = 128
    paths = [tmp_path / "late.npy", tmp_path / "early.npy"]
    for path, (start, stop) in zip(paths, [(113, 120), (100, 113)], strict=True):
        np.save(path, images[start - 100 : stop - 100])
        card = {"seeds": [start, stop], "diverged": [seed for seed in DIVERGED if start <= seed < stop]}
        path.with_suffix(".json").write_text(json.dumps({**card, "sha256": sha256(path)}))
    return paths, images


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_verdicts_are_the_largest_logits_by_seed(shards, batch_size):
    paths, images = shards
    guiding, judge = ((Brightest(shift), {"classes": CLASSES}) for shift in (1, 0))
    table = score(paths, target=0, guiding=guiding, judge=judge, references={}, batch_size=batch_size).verdicts
    assert list(table.columns) == ["seed", "diverged", "guiding", "judge"]
    assert table["seed"].tolist() == list(range(100, 120))
    assert table["seed"][table["diverged"]].tolist() == DIVERGED
    colours = images.reshape(20, -1, 3).mean(axis=1).argmax(axis=1)
    for row in table.itertuples():
        colour = colours[row.seed - 100]
        expected = (CLASSES[(colour + 1) % 3], CLASSES[colour])
        assert (row.guiding, row.judge) == (("", "") if row.seed in DIVERGED else expected)
    assert set(CLASSES) <= set(table["judge"])


def test_other_classifiers_score_too_under_their_names(shards):
    paths, images = shards
    guiding, judge, robust = ((Brightest(shift), {"classes": CLASSES}) for shift in (1, 0, 2))
    scores = score(paths, target=0, guiding=guiding, judge=judge, references={}, also={"robust": robust})
    assert list(scores.verdicts.columns) == ["seed", "diverged", "guiding", "judge", "robust"]
    values = scores.metrics.set_index("metric")["value"]
    colours = images.reshape(20, -1, 3).mean(axis=1).argmax(axis=1)
    colours[[seed - 100 for seed in DIVERGED]] = -1  # of no class
    assert values["accuracy/robust"] == (colours == 1).mean() > 0  # two on from green is red
    assert values["accuracy"] == (colours == 2).mean() and values["accuracy_judge"] == (colours == 0).mean()
    alone = score(paths, target=0, guiding=guiding, judge=judge, references={}).metrics
    assert "accuracy/robust" not in set(alone["metric"])
    pd.testing.assert_frame_equal(
        scores.metrics[scores.metrics["metric"] != "accuracy/robust"].reset_index(drop=True), alone
    )


def test_a_name_that_is_taken_or_other_classes_are_refused(shards):
    one, other = (Brightest(), {"classes": CLASSES}), (Brightest(), {"classes": CLASSES[::-1]})
    with pytest.raises(NrcgError, match="'judge' is a column"):
        score(shards[0], target=0, guiding=one, judge=one, references={}, also={"judge": one})
    with pytest.raises(NrcgError, match="of the robust classifier"):
        score(shards[0], target=0, guiding=one, judge=one, references={}, also={"robust": other})
