"""Packed parts: what comes back, what is packed anew, what is refused."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import parts
from benchmarks.parts import join, pack, read_manifest
from nrcg.errors import NrcgError


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 4 000 bytes, of pieces of 1 000."""
    monkeypatch.setattr(parts, "PART", 4000)
    monkeypatch.setattr(parts, "PIECE", 1000)


@pytest.fixture
def packed(tmp_path, small_parts):
    """A folder of parts of three files, one of many pieces, and the root that they are from."""
    root = tmp_path / "from"
    (root / "results/r/a").mkdir(parents=True)
    rng = np.random.default_rng(0)
    (root / "results/r/a/large").write_bytes(rng.bytes(10_500))
    (root / "results/r/empty").write_bytes(b"")
    (root / "results/r/text").write_text("text " * 1000)
    for i, path in enumerate(contents(root)):
        os.utime(root / path, ns=(10**18 + i, 10**18 + i))
    pack(tmp_path / "parts", root, contents(root), {"a": 1})
    return tmp_path / "parts", root


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def times(root):
    return {path: (root / path).stat().st_mtime_ns for path in contents(root)}


def names(folder):
    return {path.name for path in folder.glob("part-*")}


def test_joined_files_have_the_bytes_and_times_of_those_packed(packed, tmp_path):
    folder, root = packed
    assert join(folder, tmp_path / "to", lambda path: True) == (3, 0)
    assert contents(tmp_path / "to") == contents(root) and times(tmp_path / "to") == times(root)
    assert read_manifest(folder)["note"] == {"a": 1}
    assert len(names(folder)) >= 3 and all((folder / name).stat().st_size <= 4000 for name in names(folder))
    assert join(folder, tmp_path / "to", lambda path: True) == (0, 0)


def test_what_did_not_change_is_not_packed_again_and_what_went_is_gone(packed, tmp_path):
    folder, root = packed
    before = names(folder)
    assert pack(folder, root, contents(root), {}) == set() and names(folder) == before
    (root / "results/r/text").write_text("another text")
    (new,) = pack(folder, root, contents(root), {})
    assert (folder / new).stat().st_size < 100 and new in names(folder)
    (root / "results/r/a/large").unlink()
    pack(folder, root, contents(root), {})
    assert sum((folder / name).stat().st_size for name in names(folder)) < 200
    join(folder, tmp_path / "to", lambda path: True)
    assert contents(tmp_path / "to") == contents(root)


def test_parts_are_below_16_mib():
    assert parts.PART + 1000 < 16 << 20 and parts.PIECE < parts.PART


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "damaged"), (Path.unlink, "no such file")],
)
def test_a_damaged_or_missing_part_is_refused_before_anything_is_written(packed, tmp_path, damage, message):
    folder, _ = packed
    victim = folder / sorted(names(folder))[-1]
    damage(victim)
    with pytest.raises(NrcgError, match=rf"^{re.escape(str(victim))}: {message}.*; copy it again$"):
        join(folder, tmp_path / "to", lambda path: True)
    assert not (tmp_path / "to").exists()


def test_a_newer_file_stays_and_an_older_one_gives_way(packed, tmp_path):
    folder, _ = packed
    newer, older = tmp_path / "to/results/r/text", tmp_path / "to/results/r/empty"
    newer.parent.mkdir(parents=True)
    newer.write_text("of today")
    older.write_text("of before")
    os.utime(older, ns=(10**17, 10**17))
    assert join(folder, tmp_path / "to", lambda path: True) == (2, 1)
    assert newer.read_text() == "of today" and older.read_text() == ""


@pytest.mark.parametrize("path", ["/results/r/x", "results/r/../../x", "results/other/x", "x"])
def test_a_path_of_another_run_or_of_none_is_refused(packed, tmp_path, path):
    folder, _ = packed
    manifest = read_manifest(folder)
    manifest["files"][path] = manifest["files"].pop("results/r/text")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(NrcgError, match=re.escape(f"holds {path}, which is not of this run")):
        join(folder, tmp_path / "to", lambda path: path.startswith("results/r"))
    assert not (tmp_path / "to").exists()


def test_another_json_file_is_no_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text('["a"]')
    with pytest.raises(NrcgError, match=r"manifest\.json: not a manifest of parts"):
        join(tmp_path, tmp_path, lambda path: True)
