"""Writers of files: whole or absent, and what they say where a file cannot be written."""

import errno
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from nrcg.errors import NrcgError
from nrcg.io import files as module
from nrcg.io.arrays import read_array, write_array, write_array_batches
from nrcg.io.files import _temporary, alone, atomic, read_card, read_lines


@contextmanager
def small_disk(n_bytes):
    """No file may grow beyond `n_bytes` in here: the system refuses as it does where a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


NOISE = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)


def in_atomic(write):
    def save(path):
        with atomic(path) as file:
            write(file)

    return save


WRITERS = {
    "array": lambda path: write_array(path, NOISE),
    "batches": lambda path: write_array_batches(path, iter(NOISE), (10_000, 3)),
    "npz": in_atomic(lambda file: np.savez(file, a=NOISE)),
    "torch": in_atomic(lambda file: torch.save({"a": torch.from_numpy(NOISE)}, file)),
    "last bytes": in_atomic(lambda file: file.write(bytes(4097))),
    "png": in_atomic(lambda file: Image.fromarray(NOISE).save(file, format="PNG")),
    "safetensors": in_atomic(lambda file: file.write(save({"a": torch.from_numpy(NOISE)}))),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_full_disk_is_an_error_and_leaves_the_old_file(writer, tmp_path):
    path = tmp_path / "file.png"
    path.write_text("old")
    with (
        small_disk(4096),
        pytest.raises(NrcgError, match=r"file\.png: cannot be written \(File too large\); free some space"),
    ):
        WRITERS[writer](path)
    assert os.listdir(tmp_path) == ["file.png"] and path.read_text() == "old"
    WRITERS[writer](path)
    assert os.listdir(tmp_path) == ["file.png"] and path.stat().st_size > 4096


@pytest.mark.parametrize("writer", WRITERS)
def test_files_are_as_open_to_others_as_the_umask_allows(writer, tmp_path):
    umask = os.umask(0o027)
    try:
        WRITERS[writer](tmp_path / "file.png")
    finally:
        os.umask(umask)
    assert (tmp_path / "file.png").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("writer", WRITERS)
def test_a_place_that_cannot_be_is_an_error(writer, tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "file" / "below.png", tmp_path / "folder.png"):
        with pytest.raises(NrcgError, match=rf"{path}: cannot be written \("):
            WRITERS[writer](path)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


def test_other_errors_pass_a_writer(tmp_path):
    def read_another(_):
        (tmp_path / "absent").read_bytes()

    with pytest.raises(FileNotFoundError):
        in_atomic(read_another)(tmp_path / "file")
    with pytest.raises(OSError, match="cannot write mode RGBA as JPEG"):
        in_atomic(lambda file: Image.new("RGBA", (2, 2)).save(file, format="JPEG"))(tmp_path / "file.jpg")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("writer", WRITERS)
def test_what_a_killed_writer_left_is_removed_and_a_living_ones_is_not(writer, tmp_path):
    path = tmp_path / "file.png"
    (tmp_path / ".file.png.abc.tmp").write_text("left")
    (tmp_path / ".other.png.abc.tmp").write_text("another file's")
    lock, living = _temporary(path)
    WRITERS[writer](path)
    assert sorted(os.listdir(tmp_path)) == sorted(["file.png", living.name, ".other.png.abc.tmp"])
    lock.release()


def test_files_are_on_disk_before_they_take_their_names(tmp_path, monkeypatch):
    synced, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")))
    monkeypatch.setattr(os, "replace", lambda a, b: synced.append("named") or replace(a, b))
    for writer in WRITERS.values():
        synced.clear()
        writer(tmp_path / "file.png")
        assert len(synced) == 3 and synced[1:] == ["named", str(tmp_path)] and "/.file.png." in synced[0]


def test_a_file_system_that_turns_read_only_is_one_line(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", read_only)
    monkeypatch.setattr(os, "unlink", read_only)
    for writer in WRITERS.values():
        with pytest.raises(NrcgError, match=r"file\.png: cannot be written \(Read-only file system\)"):
            writer(tmp_path / "file.png")


def test_json_of_any_editor_is_read_and_other_content_is_one_line(tmp_path):
    path = tmp_path / "card.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"n": 3, "name": "x"}')
    assert read_card(path, n=int, name=str) == {"n": 3, "name": "x"}
    for content in (b"null", b"[1]", b"{}", b'{"n": "3"}', b'{"n": true}', b"{,}", b"[" * 100_000, b"\xff", b""):
        path.write_bytes(content)
        with pytest.raises(NrcgError, match=r"^[^\n]*card\.json: [^\n]*$"):
            read_card(path, n=int)
    path.unlink()
    path.mkdir()
    with pytest.raises(NrcgError, match=r"card\.json: cannot be read \(Is a directory\)"):
        read_card(path)


def test_an_array_of_another_kind_is_one_line(tmp_path):
    path = tmp_path / "a.npy"
    np.savez(tmp_path / "a.npz", a=NOISE)
    huge = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<i8', 'fortran_order': False, 'shape': (10**15,), }"
    for content in ((tmp_path / "a.npz").read_bytes(), b"", b"\x93NUMPY", huge, huge.replace(b"10**15", b"1" * 17)):
        path.write_bytes(content.ljust(128))
        for mmap in (True, False):
            with pytest.raises(NrcgError, match=r"a\.npy: (not a complete \.npy array|an archive)"):
                read_array(path, mmap=mmap)


def test_tables_cut_short_are_noticed(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    assert read_lines(path).count("\n") == 3
    path.write_text("a,b\n1,2\n3,")
    with pytest.raises(NrcgError, match=r"t\.csv: truncated"):
        read_lines(path)


def test_only_one_is_inside_and_waits_are_told(tmp_path):
    waits = []
    with alone(tmp_path / "new/lock", waits.append) as waited:
        assert not waited and (tmp_path / "new/lock").exists()
        with pytest.raises(ZeroDivisionError), alone(tmp_path / "new/lock", lambda first: waits.append(first) or 1 / 0):
            pass
    assert waits == [True] and not list((tmp_path / "new").iterdir())


def test_a_file_system_without_locks_keeps_nobody_waiting(tmp_path, monkeypatch):
    import fcntl

    def none(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / ".file.png.abc.tmp").write_text("perhaps a living one's")
    with alone(tmp_path / "lock", pytest.fail), alone(tmp_path / "lock", pytest.fail):
        WRITERS["png"](tmp_path / "file.png")
    assert sorted(os.listdir(tmp_path)) == [".file.png.abc.tmp", "file.png"]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_ends_with_its_process(tmp_path, monkeypatch, end):
    monkeypatch.setattr(module, "POLL", 0.02)
    code = "import sys; from nrcg.io.files import try_lock; lock = try_lock(sys.argv[1]); print(flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code, tmp_path / "lock"], stdin=-1, stdout=-1)
    holder.stdout.readline()
    waits = []
    with alone(tmp_path / "lock", lambda first: waits.append(first) or (len(waits) == 3 and holder.send_signal(end))):
        assert waits[:3] == [True, False, False]
    holder.communicate()
