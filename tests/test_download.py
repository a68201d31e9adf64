import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nrcg import download as module
from nrcg.download import download
from nrcg.errors import NrcgError

BODY = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves BODY at /file, honouring ranges; drops the connection after `server.cuts.pop(0)` bytes of an answer."""

    def do_GET(self):
        self.server.asked.append(self.headers.get("Range"))
        if self.path != "/file":
            return self.send_error(404)
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if start >= len(BODY):
            return self.send_error(416)
        ranged = start > 0 and self.server.ranges
        body = BODY[start:] if ranged else BODY
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cuts.pop(0)] if self.server.cuts else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked, running.cuts, running.ranges = [], [], True
        running.url = f"http://127.0.0.1:{running.server_port}/file"
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield running
        running.shutdown()


def test_a_good_file_arrives_once(server, tmp_path):
    path = tmp_path / "new" / "weights.pth"
    download(server.url, path, DIGEST)
    download(server.url, path, DIGEST)
    assert path.read_bytes() == BODY
    assert server.asked == [None]
    assert [file.name for file in path.parent.iterdir()] == ["weights.pth"]


def test_a_cut_connection_is_resumed_where_it_broke(server, tmp_path):
    server.cuts = [500_000, 1000]
    download(server.url, tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.asked == [None, "bytes=500000-", "bytes=501000-"]


def test_a_later_call_goes_on_from_the_part(server, tmp_path):
    server.cuts = [500_000] + [0] * module.ATTEMPTS
    with pytest.raises(NrcgError, match="broken off after 500000 of 1048576 bytes"):
        download(server.url, tmp_path / "file", DIGEST)
    assert not (tmp_path / "file").exists()
    download(server.url, tmp_path / "file", DIGEST)
    assert server.asked[-1] == "bytes=500000-"
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_complete_part_is_taken(server, tmp_path):
    (tmp_path / "file.part").write_bytes(BODY)
    download(server.url, tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges, server.cuts = False, [500_000]
    download(server.url, tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_wrong_digest_leaves_nothing(server, tmp_path):
    with pytest.raises(NrcgError, match=f"SHA-256 {DIGEST}, expected 00"):
        download(server.url, tmp_path / "file", "00" * 32)
    assert list(tmp_path.iterdir()) == []


def test_another_file_in_its_place_is_kept_and_refused(server, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(NrcgError, match="delete it"):
        download(server.url, tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert server.asked == []


def test_without_a_server_one_line_says_where_to_put_it(server, tmp_path):
    server.server_close()  # the port is free, nobody answers
    with pytest.raises(NrcgError) as error:
        download(server.url, tmp_path / "file", DIGEST)
    message = str(error.value)
    assert server.url in message and f"put it at {tmp_path / 'file'}" in message and "\n" not in message
    (tmp_path / "file").write_bytes(BODY)
    download(server.url, tmp_path / "file", DIGEST)  # put there by hand


def test_a_missing_page_is_not_asked_for_again(server, tmp_path):
    with pytest.raises(NrcgError, match="Not Found"):
        download(server.url.replace("/file", "/gone"), tmp_path / "file", DIGEST)
    assert len(server.asked) == 1


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "folder").write_bytes(b"")
    with pytest.raises(NrcgError, match="cannot be written"):
        download(server.url, tmp_path / "folder" / "file", DIGEST)
