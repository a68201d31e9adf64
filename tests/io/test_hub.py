import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.hf_api import HfApi, RepoFile
from huggingface_hub.utils import filter_repo_objects

from nrcg.errors import NrcgError
from nrcg.io.hub import download_hub

COMMIT = "c0ffee" + "0" * 34
FILES = {"data/a.parquet": b"PAR1" * 1000, "data/b.parquet": b"PAR1" * 2000, "info.json": b"{}", "README.md": b"no"}
LARGE = ".parquet"  # kept as LFS files, which have a SHA-256; the others are git blobs


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def blob_id(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(HfApi):
    """The hub's library with FILES for all that the hub says and brings; what checks the files is its own."""

    def __init__(self):
        super().__init__(endpoint="http://127.0.0.1:9", token=False)
        self.brought, self.asked, self.error = dict(FILES), [], None

    def repo_info(self, repo_id, *, repo_type, revision, timeout):
        self.asked.append((repo_id, repo_type, revision))
        if self.error:
            raise self.error
        return SimpleNamespace(sha=COMMIT, siblings=[SimpleNamespace(rfilename=name) for name in FILES])

    def list_repo_tree(self, repo_id, *, recursive, revision, repo_type, token):
        assert revision == COMMIT
        for name, content in FILES.items():
            lfs = {"size": len(content), "oid": sha256(content), "pointerSize": 130} if name.endswith(LARGE) else None
            yield RepoFile(path=name, size=len(content), oid=blob_id(content), lfs=lfs)

    def snapshot_download(self, repo_id, *, repo_type, revision, local_dir, allow_patterns, tqdm_class):
        assert revision == COMMIT
        for name in filter_repo_objects(self.brought, allow_patterns=allow_patterns):
            (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (local_dir / name).write_bytes(self.brought[name])


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


def fetch(out, patterns=("*.parquet", "*.json"), **changes):
    arguments = {"repo_type": "dataset", "revision": "main", "patterns": patterns, **changes}
    download_hub("some/one", out, **arguments)


def test_the_files_arrive_once_with_a_record(hub, tmp_path):
    fetch(tmp_path)
    record = json.loads((tmp_path / "download.json").read_text())
    assert record == {
        "repo_id": "some/one",
        "repo_type": "dataset",
        "revision": "main",
        "patterns": ["*.parquet", "*.json"],
        "commit": COMMIT,
        "files": ["data/a.parquet", "data/b.parquet", "info.json"],
    }
    assert (tmp_path / "data" / "b.parquet").read_bytes() == FILES["data/b.parquet"]
    assert not (tmp_path / "README.md").exists()
    hub.error = AssertionError("asked again")
    fetch(tmp_path)
    assert hub.asked == [("some/one", "dataset", "main")]


def test_a_missing_file_is_fetched_again(hub, tmp_path):
    fetch(tmp_path)
    (tmp_path / "info.json").unlink()
    fetch(tmp_path)
    assert (tmp_path / "info.json").read_bytes() == b"{}"


@pytest.mark.parametrize("name", ["data/a.parquet", "info.json"])
def test_a_wrong_digest_is_removed_and_leaves_no_record(hub, tmp_path, name):
    hub.brought[name] = FILES[name][:-1] + b"?"
    (tmp_path / "README.md").write_text("the user's own, which only bears the name of a file that is not asked for")
    with pytest.raises(NrcgError, match=rf"{name}: its digest .*huggingface\.co/datasets/some/one/tree/main.*removed"):
        fetch(tmp_path)
    assert not (tmp_path / name).exists() and not (tmp_path / "download.json").exists()
    assert (tmp_path / "README.md").exists()
    hub.brought[name] = FILES[name]
    fetch(tmp_path)


def test_a_file_that_did_not_arrive_is_named(hub, tmp_path):
    del hub.brought["data/b.parquet"]
    with pytest.raises(NrcgError, match=r"b\.parquet: its digest differs"):
        fetch(tmp_path)
    assert not (tmp_path / "download.json").exists()


def test_another_download_is_not_mixed_in(hub, tmp_path):
    fetch(tmp_path)
    with pytest.raises(NrcgError, match="another download"):
        fetch(tmp_path, revision="v2")
    with pytest.raises(NrcgError, match="another download"):
        fetch(tmp_path, patterns=["*.md"])


@pytest.mark.parametrize(
    "error", [OSError("[Errno 111] Connection refused"), RuntimeError("xet\nlong"), ValueError("")]
)
def test_what_cannot_be_fetched_says_what_to_do(hub, tmp_path, error):
    hub.error = error
    with pytest.raises(NrcgError) as caught:
        fetch(tmp_path / "new")
    message = str(caught.value)
    assert message.startswith("some/one: cannot be fetched from https://huggingface.co/datasets/some/one/tree/main (")
    assert message.endswith(f"put them in a folder and use that one instead of {tmp_path / 'new'}")
    assert "\n" not in message


def test_bad_requests_are_refused(hub, tmp_path):
    with pytest.raises(NrcgError, match="no file matches"):
        fetch(tmp_path, patterns=["*.bin"])
    with pytest.raises(NrcgError, match="repo_type"):
        fetch(tmp_path, repo_type="space")


class Handler(BaseHTTPRequestHandler):
    """As much of the hub as its real library needs to list and fetch FILES of the data set some/one."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, api = self.path.partition("?")[0], "/api/datasets/some/one"
        if path == f"{api}/revision/main":
            return self.answer(json.dumps({"id": "some/one", "sha": COMMIT, "siblings": self.listing("siblings")}))
        if path == f"{api}/tree/{COMMIT}":
            return self.answer(json.dumps(self.listing("tree")))
        name = path.removeprefix(f"/datasets/some/one/resolve/{COMMIT}/")
        if name in FILES:
            return self.answer(FILES[name], {"ETag": f'"{sha256(FILES[name])}"', "X-Repo-Commit": COMMIT})
        code = "RevisionNotFound" if path.startswith(api) else "RepoNotFound"
        return self.answer("", {"X-Error-Code": code, "X-Error-Message": "no"}, status=404)

    def listing(self, kind):
        rows = []
        for name, content in FILES.items():
            oid, size, lfs = blob_id(content), len(content), {"size": len(content), "pointerSize": 130}
            if kind == "tree":
                row, lfs["oid"] = {"type": "file", "path": name, "oid": oid, "size": size}, sha256(content)
            else:
                row, lfs["sha256"] = {"rfilename": name, "blobId": oid, "size": size}, sha256(content)
            rows.append(row | {"lfs": lfs} if name.endswith(LARGE) else row)
        return rows

    def answer(self, body, headers=None, status=200):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def run_verb(port, out, *options):
    """`nrcg get hub`, with the hub at a port of this machine."""
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(out / "home")}
    environment |= {"no_proxy": "*", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "nrcg.cli", "get", "hub", "--repo-id", "some/one", "--repo-type", "dataset"]
    command += ["--pattern", "*.parquet", "--pattern", "*.json", "--out", str(out / "files"), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=25)


def test_the_verb_fetches_from_a_hub_and_names_an_unknown_revision(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            done = run_verb(server.server_port, tmp_path)
            unknown = run_verb(server.server_port, tmp_path / "other", "--revision", "v9")
        finally:
            server.shutdown()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "files" / "data" / "a.parquet").read_bytes() == FILES["data/a.parquet"]
    assert json.loads((tmp_path / "files" / "download.json").read_text())["commit"] == COMMIT
    assert unknown.returncode == 2 and "(no revision v9)" in unknown.stderr.splitlines()[-1]


def test_the_verb_without_a_network_ends_with_one_line(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # bound but not listening: nobody answers
        done = run_verb(port, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: some/one: cannot be fetched from https://huggingface.co/datasets/some/one")
    assert len(done.stderr.splitlines()) == 1
