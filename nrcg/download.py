"""Fetch one file: with progress, resumed where it broke off, and only accepted with the right digest."""

import http.client
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from nrcg import files
from nrcg.errors import NrcgError

ATTEMPTS = 5  # connections in a row that may break without bringing a byte
PAUSE = 2.0  # seconds between them
TIMEOUT = 60.0  # seconds of silence after which a connection counts as broken
BLOCK = 1 << 18  # bytes

BROKEN = (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def download(url: str, path: str | Path, sha256: str) -> None:
    """Bring the file at `url` to `path`; nothing is fetched when it is there already.

    What has arrived lies in `path`.part, where this call or the next one goes on after a broken connection. The file
    takes its name only with the right SHA-256 (hex). Raises NrcgError when the file cannot be fetched (it names the
    address and the place to put it by hand), when its digest is wrong, and when it cannot be written.
    """
    path = Path(path)
    if path.exists():
        if files.sha256(path) != sha256:
            raise NrcgError(f"{path}: its SHA-256 is not {sha256}; delete it, then it is fetched from {url} again")
        return
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part)
        found = files.sha256(part)
        if found != sha256:
            part.unlink()
            raise NrcgError(f"{url}: SHA-256 {found}, expected {sha256}; removed. {_by_hand(url, path)}")
        part.replace(path)
    except (urllib.error.URLError, *BROKEN) as error:  # URLError is an OSError too: it must stand first
        reason = getattr(error, "reason", None) or error
        raise NrcgError(f"{path}: cannot be fetched from {url} ({reason}). {_by_hand(url, path)}") from None
    except OSError as error:
        raise NrcgError(f"{part}: cannot be written ({error.strerror}); make room, then run again") from None


def _by_hand(url: str, path: Path) -> str:
    return f"Run again to go on, or get {url} by hand and put it at {path}"


def _fetch(url: str, part: Path) -> None:
    """Connect until `part` is complete; gives up after ATTEMPTS connections in a row that brought nothing."""
    failures = 0
    while True:
        before = _size(part)
        try:
            _append(url, part)
            return
        except BROKEN:
            failures = failures + 1 if _size(part) <= before else 0
            if failures == ATTEMPTS:
                raise
            time.sleep(PAUSE)


def _append(url: str, part: Path) -> None:
    """One connection: ask for what `part` lacks and append it. Raises one of BROKEN when the body breaks off."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is lacking; the digest decides
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0  # a server that knows no ranges sends the whole file
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True) as bar,
        ):
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
    if total is not None and _size(part) < total:  # http.client ends a cut body like a complete one
        raise ConnectionError(f"broken off after {_size(part)} of {total} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
