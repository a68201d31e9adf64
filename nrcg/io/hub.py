"""Fetch files of a Hugging Face hub repository: one commit of it, each file checked against the hub's own digest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import filter_repo_objects
from tqdm import tqdm

from nrcg.errors import NrcgError
from nrcg.io.download import file_digest
from nrcg.io.files import read_card, write_json, writing

RECORD = "download.json"  # written last: a folder that has it is complete
TIMEOUT = 30.0  # seconds for the hub to say what a repository holds
ADDRESS = {"model": "https://huggingface.co/", "dataset": "https://huggingface.co/datasets/"}  # by type of repository

# HTTPError is the HTTP library's own; hf_xet, which brings large files, raises RuntimeError; ValueError is a bad name.
FAILURES = (OSError, HTTPError, EntryNotFoundError, RuntimeError, ValueError)


def download_hub(
    repo_id: str, out: str | Path, *, repo_type: str, revision: str = "main", patterns: Sequence[str]
) -> None:
    """Bring the files of a repository whose names match one of `patterns` (`*.parquet`, `unet/*`) to the folder `out`.

    repo_type  "model" or "dataset"
    revision   branch, tag or commit; the commit it stands for is fetched and noted

    A broken download goes on in the next call. `out/download.json` is written last, with the keys repo_id, repo_type,
    revision, patterns, commit and files (SHA-256 by name). Where it is there and its files have these digests, nothing
    is done, so no network is needed. Raises NrcgError when the repository cannot be fetched (it names the address and
    what to do by hand), has no such files, when a file has not the digest that the hub gives for it, and when `out`
    holds another download.
    """
    if repo_type not in ADDRESS:
        raise NrcgError(f"repo_type {repo_type!r}: write model or dataset")
    out = Path(out)
    asked = {"repo_id": repo_id, "repo_type": repo_type, "revision": revision, "patterns": list(patterns)}
    if _is_there(out, asked):
        return
    with writing(out / RECORD):
        out.mkdir(parents=True, exist_ok=True)
        (out / RECORD).unlink(missing_ok=True)  # an old record must not vouch for half-replaced files
    address = f"{ADDRESS[repo_type]}{repo_id}/tree/{revision}"
    try:
        commit, wanted = _list(repo_id, repo_type, revision, patterns)
        if not wanted:
            raise NrcgError(f"{repo_id}: no file matches {', '.join(patterns)}; see {address}")
        snapshot_download(
            repo_id,
            repo_type=repo_type,
            revision=commit,
            local_dir=out,
            allow_patterns=list(patterns),
            tqdm_class=tqdm,  # the hub's own bars are silent in a log
        )
    except NrcgError:
        raise
    except FAILURES as error:
        raise NrcgError(
            f"{repo_id}: cannot be fetched from {address} ({_reason(error, revision)}). Run again to go on, or get "
            f"{', '.join(patterns)} by hand, put them in a folder and use that one instead of {out}"
        ) from None
    write_json(out / RECORD, {**asked, "commit": commit, "files": _verified(out, wanted, address)})


def _is_there(out: Path, asked: dict[str, Any]) -> bool:
    """Whether `out` holds the whole download that is asked for; refuses a folder with another one."""
    if not (out / RECORD).exists():
        return False
    record = read_card(out / RECORD, files=dict)
    if {key: record.get(key) for key in asked} != asked:
        raise NrcgError(f"{out / RECORD}: of another download than the one asked for; delete {out} or name another")
    files = tqdm(record["files"].items(), desc="checking", unit="file")
    return all((out / name).is_file() and file_digest(out / name, "sha256") == f"sha256:{sha}" for name, sha in files)


def _list(repo_id: str, repo_type: str, revision: str, patterns: Sequence[str]) -> tuple[str, list[RepoSibling]]:
    """The commit that `revision` stands for, and its files whose names match."""
    info = HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision, files_metadata=True, timeout=TIMEOUT)
    files = filter_repo_objects(info.siblings, allow_patterns=list(patterns), key=lambda file: file.rfilename)
    return info.sha, list(files)


def _verified(out: Path, wanted: list[RepoSibling], address: str) -> dict[str, str]:
    """SHA-256 of each file by name. A large file must have the one of its LFS entry, a small one its git blob id."""
    digests = {}
    for file in tqdm(wanted, desc="checking", unit="file"):
        path = out / file.rfilename
        expected = f"sha256:{file.lfs.sha256}" if file.lfs else f"gitblob:{file.blob_id}"
        if not path.is_file():  # without a network, the hub's library takes a folder as it finds it
            raise NrcgError(f"{path}: did not arrive from {address}; run again")
        found = file_digest(path, expected.partition(":")[0])
        if found != expected:
            path.unlink()
            raise NrcgError(f"{path}: digest {found}, but {address} says {expected}; removed. Run again to fetch it")
        digests[file.rfilename] = file_digest(path, "sha256").removeprefix("sha256:")
    return digests


def _reason(error: Exception, revision: str) -> str:
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or not a public one"
    if isinstance(error, RevisionNotFoundError):
        return f"no revision {revision}"
    return (str(error) or type(error).__name__).splitlines()[0]
