"""One reader for sample shards: what it yields, and what it refuses."""

import json

import numpy as np
import pytest

from nrcg.errors import NrcgError
from nrcg.io.files import sha256
from nrcg.io.shards import Shard, keep_first, open_shards, verify


def write_shard(path, start, n, diverged=(), **changes):
    np.save(path, np.random.default_rng(start).integers(0, 256, (n, 4, 5, 3), dtype=np.uint8))
    path.with_suffix(".json").write_text(json.dumps({"seeds": [start, start + n], "diverged": diverged} | changes))
    return path


def test_open_gives_images_seeds_and_which_diverged(tmp_path):
    shard = Shard.open(write_shard(tmp_path / "a.npy", 10, 6, [11, 15]))
    np.testing.assert_array_equal(shard.images, np.load(tmp_path / "a.npy"))
    assert isinstance(shard.images, np.memmap) and shard.seeds == range(10, 16)
    assert shard.diverged.tolist() == [False, True, False, False, False, True]


def test_shards_come_in_order_of_seeds(tmp_path):
    late, early = write_shard(tmp_path / "a.npy", 5, 4), write_shard(tmp_path / "b.npy", 0, 5)
    assert [shard.seeds for shard in open_shards([late, early])] == [range(0, 5), range(5, 9)]


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"seeds": [0, 7]}, r"a\.npy: 6 images, but seeds \[0, 7\] on its card"),
        ({"seeds": [6, 0]}, r"a\.npy: 6 images"),
        ({"seeds": [0, 6, 1]}, r"a\.json: no list `seeds` or `diverged`"),
        ({"seeds": 6}, r"a\.json: no list"),
        ({"seeds": ["0", "6"]}, r"a\.json: no list"),
        ({"diverged": None}, r"a\.json: no list"),
        ({"diverged": [6]}, r"a\.json: `diverged` holds seeds outside 0 to 5"),
    ],
)
def test_cards_that_do_not_fit_are_named(tmp_path, card, message):
    with pytest.raises(NrcgError, match=message):
        Shard.open(write_shard(tmp_path / "a.npy", 0, 6, **card))


def test_arrays_that_do_not_fit_are_named(tmp_path):
    path = write_shard(tmp_path / "a.npy", 0, 6)
    for wrong in (np.zeros((6, 4, 5, 3)), np.zeros((6, 4, 5), np.uint8), np.zeros((6, 3, 4, 5), np.uint8)):
        np.save(path, wrong)
        with pytest.raises(NrcgError, match=r"a\.npy: .*expected uint8 n×H×W×3"):
            Shard.open(path)
    with pytest.raises(NrcgError, match=r"b\.npy: uint8 \(0, 4, 5, 3\), expected"):
        Shard.open(write_shard(tmp_path / "b.npy", 0, 0))


def test_none_and_overlapping_shards_are_refused(tmp_path):
    a, b = write_shard(tmp_path / "a.npy", 0, 6), write_shard(tmp_path / "b.npy", 5, 3)
    with pytest.raises(NrcgError, match="no sample shards"):
        open_shards([])
    with pytest.raises(NrcgError, match=r"b\.npy: seeds \[5, 8\] occur in .*a\.npy too"):
        open_shards([b, a])


def test_the_first_samples_are_kept_as_one_shard(tmp_path):
    images = np.random.default_rng(5).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    paths = []
    for start, stop in ((24, 29), (20, 24)):  # out of order
        paths.append(tmp_path / f"{start}.npy")
        np.save(paths[-1], images[start - 20 : stop - 20])
        card = {"seeds": [start, stop], "diverged": [s for s in (21, 25, 28) if start <= s < stop], "scale": 3.0}
        paths[-1].with_suffix(".json").write_text(json.dumps({**card, "seconds": start, "sha256": sha256(paths[-1])}))
    keep_first(paths, tmp_path / "first.npy", 7)
    kept = Shard.open(tmp_path / "first.npy")
    assert (kept.images == images[:7]).all() and kept.seeds == range(20, 27)
    assert np.flatnonzero(kept.diverged).tolist() == [1, 5]
    card = json.loads((tmp_path / "first.json").read_text())
    assert card["scale"] == 3.0 and "seconds" not in card and card["sha256"] == sha256(tmp_path / "first.npy")
    keep_first(paths, tmp_path / "three.npy", 3)  # all of one shard
    assert (Shard.open(tmp_path / "three.npy").images == images[:3]).all()
    keep_first(paths, tmp_path / "all.npy", 100)
    assert len(Shard.open(tmp_path / "all.npy").images) == 9
    for seed, n, expected in ((23, 4, range(23, 27)), (0, 2, range(20, 22)), (24, 9, range(24, 29))):
        keep_first(paths, tmp_path / "later.npy", n, seed)  # from a seed on, such as the first that is reported
        later = Shard.open(tmp_path / "later.npy")
        assert later.seeds == expected and (later.images == images[expected.start - 20 : expected.stop - 20]).all()
        assert np.flatnonzero(later.diverged).tolist() == [s - expected.start for s in (21, 25, 28) if s in expected]
    with pytest.raises(NrcgError, match=r"20\.npy and others: no sample of seed 29 or later; draw more"):
        keep_first(paths, tmp_path / "none.npy", 4, 29)
    assert not (tmp_path / "none.npy").exists()
    np.save(paths[0], images[:5])
    with pytest.raises(NrcgError, match=r"^remove .*24\.npy and 24\.json: the SHA-256 on the card does not match"):
        verify(paths)


def test_a_gap_between_shards_is_refused(tmp_path):
    for start in (0, 4):
        path = write_shard(tmp_path / f"{start}.npy", start, 2)
        card = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps(card | {"sha256": sha256(path)}))
    with pytest.raises(NrcgError, match="seeds have a gap"):
        keep_first([tmp_path / "0.npy", tmp_path / "4.npy"], tmp_path / "first.npy", 3)
