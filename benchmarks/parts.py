"""Files in parts that can travel: each below 16 MiB, checked by SHA-256; what did not change is not packed again.

A folder of parts holds `manifest.json` and files named after their content. Files are cut into pieces of at most PIECE
bytes, compressed one by one; a part is a row of such pieces.
"""

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from nrcg.errors import NrcgError
from nrcg.files import atomic, read_json, sha256, write_json, writing

PART = 15 << 20  # bytes, at most
PIECE = 1 << 22  # bytes before compression
MANIFEST = "manifest.json"
EMPTY = {"files": {}, "parts": {}, "note": {}}

Entry = dict[str, Any]  # of a file: size, mtime_ns, sha256, pieces; a piece is [part, start, length]


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Its files (path → Entry), parts (name → size, sha256) and note; all empty where there is no manifest yet."""
    path = Path(folder, MANIFEST)
    if not path.exists():
        return EMPTY
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.keys() != EMPTY.keys():
        raise NrcgError(f"{path}: not a manifest of parts; choose another folder")
    return manifest


def pack(folder: str | Path, root: Path, files: Iterable[str], note: dict[str, Any]) -> set[str]:
    """Bring `folder` up to date with `files` (paths below `root`); names of the parts that are new.

    A file of the same size and time as in the manifest keeps its pieces. Parts of which less than half is still in use
    are left, and what is of use in them moves. The manifest is written after the new parts and before old ones go, so
    that the folder is whole at any time. `note` (JSON values) goes into the manifest.
    """
    folder, old = Path(folder), read_manifest(folder)
    entries, writer = {}, _Writer(folder)
    found = {path: os.stat(root / path) for path in sorted(files)}
    for path, stat in found.items():
        known = old["files"].get(path)
        if known and (known["size"], known["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns):
            entries[path] = known
    sparse = _sparse(old["parts"], entries.values())
    changed = sum(stat.st_size for path, stat in found.items() if path not in entries)
    with tqdm(total=changed, desc="packing", unit="B", unit_scale=True) as progress:
        for path, stat in found.items():
            if path in entries:
                pieces = entries[path]["pieces"]
                moved = [writer.add(_stored(folder, piece)) if piece[0] in sparse else piece for piece in pieces]
                entries[path] = {**entries[path], "pieces": moved}
            else:
                digest, pieces = hashlib.sha256(), []
                for piece in _cut(root / path):
                    digest.update(piece)
                    pieces.append(writer.add(zlib.compress(piece, 1)))
                    progress.update(len(piece))
                size, time = stat.st_size, stat.st_mtime_ns
                entries[path] = {"size": size, "mtime_ns": time, "sha256": digest.hexdigest(), "pieces": pieces}
    writer.flush()
    used = {piece[0] for entry in entries.values() for piece in entry["pieces"]}
    parts = {name: facts for name, facts in {**old["parts"], **writer.parts}.items() if name in used}
    write_json(folder / MANIFEST, {"files": entries, "parts": parts, "note": note})
    for path in folder.glob("part-*.bin"):
        if path.name not in parts:
            path.unlink()
    return parts.keys() - old["parts"].keys()


def join(folder: str | Path, root: Path, allowed: Callable[[str], bool]) -> tuple[int, int]:
    """Put the packed files back below `root`, with their times; how many were written, and how many newer ones stayed.

    A file that is there with the recorded size and time is not touched. Raises NrcgError for a part that is missing or
    damaged, before anything is written, and for a path that is not `allowed`.
    """
    folder, manifest = Path(folder), read_manifest(folder)
    for path in manifest["files"]:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or not allowed(path):
            raise NrcgError(f"{folder / MANIFEST}: holds {path}, which is not of this run; choose another folder")
    for name, facts in manifest["parts"].items():
        if not (folder / name).is_file():
            raise NrcgError(f"{folder / name}: no such file, but {MANIFEST} names it; copy it again")
        if sha256(folder / name) != facts["sha256"]:
            raise NrcgError(f"{folder / name}: damaged, its content is not that of its SHA-256; copy it again")
    written = newer = 0
    for path, entry in tqdm(manifest["files"].items(), desc="joining", unit="file"):
        target = root / path
        if target.exists():
            stat = target.stat()
            newer += stat.st_mtime_ns > entry["mtime_ns"]
            if stat.st_mtime_ns > entry["mtime_ns"] or _same(stat, entry):
                continue
        _restore(folder, entry, target)
        written += 1
    return written, newer


def _same(stat: os.stat_result, entry: Entry) -> bool:
    return (stat.st_size, stat.st_mtime_ns) == (entry["size"], entry["mtime_ns"])


def _restore(folder: Path, entry: Entry, target: Path) -> None:
    digest = hashlib.sha256()
    with atomic(target) as file:
        for piece in entry["pieces"]:
            content = zlib.decompress(_stored(folder, piece))
            digest.update(content)
            file.write(content)
        if digest.hexdigest() != entry["sha256"]:
            raise NrcgError(f"{target}: its parts in {folder} do not make up its SHA-256; copy {MANIFEST} again")
    with writing(target):
        os.utime(target, ns=(entry["mtime_ns"], entry["mtime_ns"]))


def _cut(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _stored(folder: Path, piece: list[Any]) -> bytes:
    """A piece as it is stored, compressed."""
    name, start, length = piece
    with open(folder / name, "rb") as file:
        file.seek(start)
        return file.read(length)


def _sparse(parts: dict[str, Any], entries: Iterable[Entry]) -> set[str]:
    """Parts of which less than half is in use by `entries`."""
    used = Counter()
    for entry in entries:
        for name, _, length in entry["pieces"]:
            used[name] += length
    return {name for name, facts in parts.items() if 2 * used[name] < facts["size"]}


class _Writer:
    """Collects pieces and writes a part whenever the next one would not fit."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.parts = folder, {}
        self._pending: list[tuple[list[Any], bytes]] = []
        self._size = 0

    def add(self, stored: bytes) -> list[Any]:
        """The piece's [part, start, length]; its part gets its name when it is written."""
        if self._size + len(stored) > PART:
            self.flush()
        piece = ["", self._size, len(stored)]
        self._pending.append((piece, stored))
        self._size += len(stored)
        return piece

    def flush(self) -> None:
        """Write the pieces collected, if any, as a part."""
        if not self._pending:
            return
        content = b"".join(stored for _, stored in self._pending)
        digest = hashlib.sha256(content).hexdigest()
        name = f"part-{digest[:16]}.bin"
        with atomic(self.folder / name) as file:
            file.write(content)
        for piece, _ in self._pending:
            piece[0] = name
        self.parts[name] = {"size": len(content), "sha256": digest}
        self._pending, self._size = [], 0
