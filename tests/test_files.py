"""Writers of files: whole or absent, and what they say where a file cannot be written."""

import os
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from nrcg.errors import NrcgError
from nrcg.files import atomic, save_with, write_array, write_array_batches


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
    "png by path": lambda path: save_with(path, lambda place: Image.fromarray(NOISE).save(place)),
    "safetensors": lambda path: save_with(path, lambda place: save_file({"a": torch.from_numpy(NOISE)}, place)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_full_disk_is_an_error_and_leaves_the_old_file(writer, tmp_path):
    path = tmp_path / "file.png"
    path.write_text("old")
    with (
        small_disk(4096),
        pytest.raises(NrcgError, match=r"file\.png: cannot be written \(File too large\); make room"),
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
    with pytest.raises(FileNotFoundError):
        save_with(tmp_path / "file", read_another)
    with pytest.raises(OSError, match="cannot write mode RGBA as JPEG"):
        save_with(tmp_path / "file.jpg", Image.new("RGBA", (2, 2)).save)
    assert os.listdir(tmp_path) == []
