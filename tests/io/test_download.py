import hashlib
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nrcg.errors import NrcgError
from nrcg.io import download as module
from nrcg.io.download import download, git_blob_id

BODY = bytes(range(256)) * 4096  # 1 MiB
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
EMPTY_BLOB = "gitblob:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # known to every git


class Handler(BaseHTTPRequestHandler):
    """Serves BODY at /file; drops the connection after `server.cuts.pop(0)` bytes of an answer."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path != "/file":
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[: self.server.cuts.pop(0)] if self.server.cuts else BODY)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked, running.cuts = [], []
        running.url = f"http://127.0.0.1:{running.server_port}/file"
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield running
        running.shutdown()


def test_a_good_file_arrives_once(server, tmp_path):
    path = tmp_path / "new" / "weights.pth"
    download(server.url, path, DIGEST)
    download(server.url, path, DIGEST)
    assert path.read_bytes() == BODY
    assert server.asked == ["/file"]
    assert [file.name for file in path.parent.iterdir()] == ["weights.pth"]
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode  # others may read it, where they may read any file


def test_a_cut_connection_leaves_nothing_and_the_next_call_brings_it(server, tmp_path):
    server.cuts = [500_000]
    with pytest.raises(NrcgError, match=r"^[^\n]*500000 bytes read[^\n]*Run again"):
        download(server.url, tmp_path / "file", DIGEST)
    assert list(tmp_path.iterdir()) == []
    download(server.url, tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_wrong_digest_leaves_nothing(server, tmp_path):
    wrong = f"sha256:{'00' * 32}"
    with pytest.raises(
        NrcgError, match=rf"^[^\n]*{server.url} [^\n]*expected {wrong} but got {DIGEST[7:]}[^\n]*$"
    ) as error:
        download(server.url, tmp_path / "file", wrong)
    assert str(error.value).endswith(f"put it at {tmp_path / 'file'}")
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


@pytest.mark.parametrize("content", [b"", b"hello\n", BODY])
def test_a_git_blob_id_is_the_one_of_git(server, tmp_path, content):
    path = tmp_path / "blob"
    path.write_bytes(content)
    found = f"gitblob:{git_blob_id(path)}"
    assert (found == EMPTY_BLOB) == (content == b"")
    if git := shutil.which("git"):
        told = subprocess.run([git, "hash-object", "--no-filters", path], capture_output=True, text=True, check=True)
        assert found == f"gitblob:{told.stdout.strip()}"


def test_a_git_blob_id_is_accepted_and_refused(server, tmp_path):
    digest = f"gitblob:{hashlib.sha1(b'blob 1048576' + bytes(1) + BODY).hexdigest()}"
    download(server.url, tmp_path / "file", digest)
    download(server.url, tmp_path / "file", digest)
    assert len(server.asked) == 1
    with pytest.raises(NrcgError, match=f"git blob id is {digest[8:]}, not that of {EMPTY_BLOB}; removed"):
        download(server.url, tmp_path / "other", EMPTY_BLOB)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("digest", ["00" * 32, "sha256:00", "md5:" + "0" * 32, "gitblob:" + "0" * 64, ""])
def test_another_kind_of_digest_is_refused(server, tmp_path, digest):
    with pytest.raises(NrcgError, match=r"digest .*write sha256:"):
        download(server.url, tmp_path / "file", digest)
    assert server.asked == []


def test_another_kind_of_address_is_refused(tmp_path):
    (tmp_path / "source").write_bytes(BODY)
    with pytest.raises(NrcgError, match="No connection adapters"):
        download(f"file://{tmp_path / 'source'}", tmp_path / "file", DIGEST)


def test_the_verb_prints_one_line(server, tmp_path):
    command = [sys.executable, "-m", "nrcg.cli", "get", "file", "--out", str(tmp_path / "file"), "--digest", DIGEST]
    server.server_close()
    done = subprocess.run([*command, "--url", server.url], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    (tmp_path / "file").write_bytes(BODY)
    subprocess.run([*command, "--url", server.url], check=True)


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "folder").write_bytes(b"")
    with pytest.raises(NrcgError, match="cannot be written"):
        download(server.url, tmp_path / "folder" / "file", DIGEST)


class Evil(BaseHTTPRequestHandler):
    """A server without manners."""

    def do_GET(self):
        with suppress(OSError):
            if self.path == "/loop":
                self.send_response(302)
                self.send_header("Location", "/loop")
            elif self.path == "/nowhere":
                self.send_response(302)
                self.send_header("Location", "http://[::1")
            elif self.path == "/length":
                self.send_response(200)
                self.send_header("Content-Length", "abc")
            elif self.path in ("/endless", "/slow"):
                self.send_response(200)
                if self.path == "/slow":
                    self.send_header("Content-Length", "100000")
            elif self.path == "/long":
                self.send_response(200)
                self.send_header("Content-Length", str(10**12))
            elif self.path == "/silent":
                time.sleep(3)
            self.end_headers()
            while self.path in ("/endless", "/slow"):
                self.wfile.write(b"x" * (1 << 16 if self.path == "/endless" else 1))
                time.sleep(0 if self.path == "/endless" else 0.05)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("loop", "Exceeded 30 redirects"),
        ("nowhere", "127.0.0.1:.*/nowhere"),
        ("length", "cannot be fetched"),
        ("endless", "longer than 1000000 bytes"),
        ("long", "longer than 1000000 bytes"),
        ("slow", "slower than 1 kB/s"),
        ("silent", "timed out"),
    ],
)
def test_a_server_without_manners_is_one_line(tmp_path, monkeypatch, page, message):
    monkeypatch.setenv("no_proxy", "*")
    for name, value in {"TIMEOUT": 0.5, "LIMIT": 10**6}.items():
        monkeypatch.setattr(module, name, value)
    with ThreadingHTTPServer(("127.0.0.1", 0), Evil) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            with pytest.raises(NrcgError, match=rf"^[^\n]*{message}[^\n]*$"):
                download(f"http://127.0.0.1:{running.server_port}/{page}", tmp_path / "file", DIGEST)
        finally:
            running.shutdown()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:99999/f", "http://127.0.0.1:x/", "http://a..b/", "http://"]
)
def test_addresses_that_are_none_are_one_line(tmp_path, url):
    with pytest.raises(NrcgError, match=r"^[^\n]*cannot be fetched[^\n]*$"):
        download(url, tmp_path / "file", DIGEST)


def test_an_umlaut_is_sent_as_its_utf8_and_a_folder_is_no_file(server, tmp_path):
    with pytest.raises(NrcgError, match="Not Found"):
        download(server.url + "/gö ß", tmp_path / "file", DIGEST)
    assert server.asked == ["/file/g%C3%B6%20%C3%9F"]
    with pytest.raises(NrcgError, match="a folder; name the file"):
        download(server.url, tmp_path, DIGEST)
