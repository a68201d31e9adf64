"""Download one file with a progress bar; only the expected digest is accepted."""

import hashlib
import re
import time
from pathlib import Path

import pooch
import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from nrcg.errors import NrcgError, one_line

TIMEOUT = 60.0  # seconds of silence, or of less than SLOW, after which a connection counts as broken
SLOW = 1000.0  # bytes per second
LIMIT = 20 * 10**9  # bytes per file
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|gitblob:[0-9a-f]{40}")


def download(url: str, path: str | Path, digest: str) -> None:
    """Download `url` (http or https) to `path`, unless the file exists with this digest.

    Raises NrcgError if it cannot be fetched or written, has another digest, or `url` or `digest` is malformed. The
    message names the address and where to put a file downloaded by hand.
    """
    path = Path(path)
    if not DIGEST.fullmatch(digest):
        raise NrcgError(f"digest {digest!r}: write sha256: and 64 lower-case hex digits, or gitblob: and 40")
    if path.is_dir():
        raise NrcgError(f"{path}: a folder; name the file to write")
    if path.exists():
        return require_digest(path, digest, origin=url)
    pooch.get_logger().setLevel("WARNING")
    try:
        known = digest if digest.startswith("sha256:") else None  # pooch does not support git blob ids
        pooch.retrieve(url, known, path.name, path.parent, downloader=lambda _, part, __: _fetch(url, part, digest))
    except (requests.RequestException, HTTPError, ValueError, OverflowError) as error:  # the first is an OSError too
        way = f"Run again, or get it by hand and put it at {path}"
        raise NrcgError(f"{path}: cannot be fetched from {url} ({one_line(error)}). {way}") from None
    except OSError as error:
        raise NrcgError(f"{path}: cannot be written ({error.strerror}); free some space, then run again") from None


def require_digest(path: str | Path, digest: str, *, origin: str) -> None:
    """Raise NrcgError if the file at `path`, perhaps put there by hand, does not have this digest."""
    if (pooch.file_hash(path) if digest.startswith("sha256:") else git_blob_id(path)) != digest.partition(":")[2]:
        raise NrcgError(f"{path}: its digest is not {digest}; delete it to fetch it again from {origin}")


def git_blob_id(path: str | Path) -> str:
    """Git's id of a file's content: the SHA-1 of "blob SIZE", a zero byte and the content."""
    content = Path(path).read_bytes()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()


def _fetch(url: str, part: str, digest: str) -> None:
    """Write the content of `url` to `part`; ValueError if it is too long or slow, or another git blob."""
    with requests.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}) as response:
        response.raise_for_status()
        total = int(response.headers.get("Content-Length", 0))
        Path(part).unlink()  # pooch created it readable by this user only
        bar = tqdm(desc=url.rpartition("/")[2], total=total or None, unit="B", unit_scale=True)
        with bar, open(part, "wb") as file:
            deadline = time.monotonic() + TIMEOUT
            while max(file.tell(), total) <= LIMIT and (block := response.raw.read1(1 << 18)):
                bar.update(file.write(block))
                deadline = min(deadline + len(block) / SLOW, time.monotonic() + TIMEOUT)
                if time.monotonic() > deadline:
                    raise ValueError(f"slower than {SLOW / 1000:g} kB/s")
            if max(file.tell(), total) > LIMIT:
                raise ValueError(f"longer than {LIMIT} bytes")
    if digest.startswith("gitblob:") and (found := git_blob_id(part)) != digest.partition(":")[2]:
        raise ValueError(f"its git blob id is {found}, not that of {digest}; removed")
