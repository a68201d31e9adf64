"""Fetch one file: with progress, resumed where it broke off, and only accepted with the right digest."""

import hashlib
import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from nrcg.errors import NrcgError

ATTEMPTS = 5  # connections in a row that may break without bringing a byte
PAUSE = 2.0  # seconds between them
TIMEOUT = 60.0  # seconds of silence after which a connection counts as broken
BLOCK = 1 << 18  # bytes

BROKEN = (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|gitblob:[0-9a-f]{40}")


def download(url: str, path: str | Path, digest: str) -> None:
    """Bring the file at `url` to `path`; nothing is fetched when it is there already.

    `digest` is "sha256:HEX" or "gitblob:HEX", see `file_digest`. What has arrived lies in `path`.part, where this call
    or the next one goes on after a broken connection. The file takes its name only with the right digest. Raises
    NrcgError when the file cannot be fetched (it names the address and the place to put it by hand), when its digest is
    wrong, when it cannot be written, and for a `url` or `digest` of another form.
    """
    path = Path(path)
    if not DIGEST.fullmatch(digest):
        raise NrcgError(f"digest {digest!r}: write sha256: and 64 lower-case hex digits, or gitblob: and 40")
    if not url.startswith(("http://", "https://")):
        raise NrcgError(f"url {url!r}: write an address that starts with http:// or https://")
    kind = digest.partition(":")[0]
    if path.exists():
        require_digest(path, digest, origin=url)
        return
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part)
        found = file_digest(part, kind)
        if found != digest:
            part.unlink()
            raise NrcgError(f"{url}: digest {found}, expected {digest}; removed. {_by_hand(url, path)}")
        part.replace(path)
    except (urllib.error.URLError, *BROKEN) as error:  # URLError is an OSError too: it must stand first
        reason = getattr(error, "reason", None) or error
        raise NrcgError(f"{path}: cannot be fetched from {url} ({reason}). {_by_hand(url, path)}") from None
    except OSError as error:
        raise NrcgError(f"{part}: cannot be written ({error.strerror}); make room, then run again") from None


def require_digest(path: str | Path, digest: str, *, origin: str) -> None:
    """Raise NrcgError when the file at `path`, put there by hand perhaps, has another digest than `origin`'s file."""
    if file_digest(path, digest.partition(":")[0]) != digest:
        raise NrcgError(f"{path}: its digest is not {digest}; delete it, then it is fetched from {origin} again")


def file_digest(path: str | Path, kind: str) -> str:
    """`kind:HEX` of a file: its "sha256", or its "gitblob", the name that git gives its content.

    A git blob id is the SHA-1 over "blob SIZE", a zero byte and the content.
    """
    if kind == "sha256":
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % Path(path).stat().st_size, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


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
