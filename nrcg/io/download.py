"""Fetch one file: with progress, resumed where it broke off, and only accepted with the right digest."""

import hashlib
import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

from tqdm import tqdm

from nrcg.errors import NrcgError

ATTEMPTS = 5  # connections in a row that may break without bringing as much as SLOW · TIMEOUT
CONNECTIONS = 100  # in all
PAUSE = 2.0  # seconds between them
TIMEOUT = 60.0  # seconds of silence, or of less than SLOW, after which a connection counts as broken
SLOW = 1000.0  # bytes a second
LIMIT = 20 * 10**9  # bytes of a file whose size is unknown
BLOCK = 1 << 18  # bytes

BROKEN = (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|gitblob:[0-9a-f]{40}")


def download(url: str, path: str | Path, digest: str, *, size: int | None = None) -> None:
    """Bring the file at `url` to `path`; nothing is fetched when it is there already.

    `digest` is "sha256:HEX" or "gitblob:HEX", see `file_digest`. What has arrived lies in `path`.part, where this call
    or the next one goes on after a broken connection. The file takes its name only with the right digest. `size` is how
    many bytes it has, if that is known: no more are fetched; else LIMIT is the most. Raises NrcgError when the file
    cannot be fetched (it names the address and the place to put it by hand), when its digest is wrong, when it cannot
    be written, and for a `url` or `digest` of another form.
    """
    path = Path(path)
    if not DIGEST.fullmatch(digest):
        raise NrcgError(f"digest {digest!r}: write sha256: and 64 lower-case hex digits, or gitblob: and 40")
    if not url.startswith(("http://", "https://")):
        raise NrcgError(f"url {url!r}: write an address that starts with http:// or https://")
    kind = digest.partition(":")[0]
    if path.is_dir():
        raise NrcgError(f"{path}: a folder; name the file to write")
    if path.exists():
        require_digest(path, digest, origin=url)
        return
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part, size or LIMIT)
        found = file_digest(part, kind)
        if found != digest:
            part.unlink()
            raise NrcgError(f"{url}: digest {found}, expected {digest}; removed. {_by_hand(url, path)}")
        part.replace(path)
    except NrcgError:
        raise
    except (urllib.error.URLError, *BROKEN) as error:  # URLError is an OSError too: it must stand first
        reason = " ".join(str(getattr(error, "reason", None) or error or type(error).__name__).split())
        raise NrcgError(f"{path}: cannot be fetched from {url} ({reason}). {_by_hand(url, path)}") from None
    except (ValueError, OverflowError) as error:  # of the address, or of one that it leads to
        raise NrcgError(f"{path}: cannot be fetched from {url} (not a good address: {error})") from None
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


def _fetch(url: str, part: Path, limit: int) -> None:
    """Connect until `part` is complete.

    Gives up after ATTEMPTS connections in a row that brought next to nothing, and after CONNECTIONS in all.
    """
    failures = 0
    for connection in range(1, CONNECTIONS + 1):
        before = _size(part)
        try:
            _append(url, part, limit)
            return
        except BROKEN:
            failures = failures + 1 if _size(part) - before < SLOW * TIMEOUT else 0
            if failures == ATTEMPTS or connection == CONNECTIONS:
                raise
            time.sleep(PAUSE)


def _append(url: str, part: Path, limit: int) -> None:
    """One connection: ask for what `part` lacks and append it. Raises one of BROKEN when the body breaks off.

    Raises NrcgError, and removes `part`, when the file is longer than `limit` bytes.
    """
    have = _size(part)
    address = quote(url, safe="!#$%&'()*+,/:;=?@[]~")  # what no address may hold, such as an umlaut, as its UTF-8
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is lacking; the digest decides
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0  # a server that knows no ranges sends the whole file
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isascii() and length.isdecimal() else None
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True) as bar,
        ):
            began, since = time.monotonic(), 0  # of a stretch of TIMEOUT seconds, and the bytes in it
            while max(have, total or 0) <= limit and (block := response.read1(BLOCK)):
                file.write(block)
                bar.update(len(block))
                have, since = have + len(block), since + len(block)
                if (seconds := time.monotonic() - began) >= TIMEOUT:
                    if since < SLOW * seconds:
                        raise ConnectionError(f"slower than {SLOW / 1000:g} kB/s")
                    began, since = time.monotonic(), 0
    if max(have, total or 0) > limit:
        part.unlink()
        raise NrcgError(f"{url}: longer than {limit} bytes, so not the file that is asked for; removed")
    if total is not None and have < total:  # http.client ends a cut body like a complete one
        raise ConnectionError(f"broken off after {have} of {total} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
