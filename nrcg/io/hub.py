"""Download files of one commit of a Hugging Face hub repository, checked by the hub's library."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nrcg.errors import NrcgError, one_line
from nrcg.io.files import read_card, write_json, writing

HUB_ID = re.compile(r"[A-Za-z0-9_-][\w.-]*/[\w.-]+(@.+)?", re.ASCII)  # owner/name or owner/name@revision


def download_hub(repo_id: str, out: str | Path, *, repo_type: str, revision: str, patterns: Sequence[str]) -> None:
    """Download the files of one commit that match one of `patterns` (`*.parquet`, `unet/*`) to the folder `out`.

    `repo_type` is "model" or "dataset". The next call resumes an interrupted download. `out/download.json` is written
    last, with the arguments, the commit and the file names; if it and the files exist, no network is needed.

    Raises NrcgError if the repository cannot be fetched (the message names the address and the manual way) or has no
    such files, if a digest is wrong, or if `out` holds another download.
    """
    from huggingface_hub import HfApi, errors, snapshot_download, utils  # slow to import

    if repo_type not in ("model", "dataset"):
        raise NrcgError(f"repo_type {repo_type!r}: write model or dataset")
    out, record, patterns = Path(out), Path(out, "download.json"), list(patterns)
    asked = {"repo_id": repo_id, "repo_type": repo_type, "revision": revision, "patterns": patterns}
    if record.exists():
        card = read_card(record, files=list)
        if {**card, **asked} != card:
            raise NrcgError(f"{record}: from another download; delete {out} or choose another folder")
        if all((out / name).is_file() for name in card["files"]):
            return
    with writing(record):
        out.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)  # an old record must not vouch for half-replaced files
    address = f"https://huggingface.co/{'datasets/' * (repo_type == 'dataset')}{repo_id}/tree/{revision}"
    api, wanted, absent = HfApi(), ", ".join(patterns), "no such repository, or not a public one"
    known: dict[type, str] = {
        errors.RepositoryNotFoundError: absent,
        errors.RevisionNotFoundError: f"no revision {revision}",
    }
    try:
        info: Any = api.repo_info(repo_id, repo_type=repo_type, revision=revision, timeout=30)
        files = list(utils.filter_repo_objects([file.rfilename for file in info.siblings], allow_patterns=patterns))
        at: dict[str, Any] = {"repo_id": repo_id, "repo_type": repo_type, "revision": info.sha, "local_dir": out}
        snapshot_download(**at, allow_patterns=patterns, tqdm_class=tqdm)  # the hub's own bars skip logs
        found = api.verify_repo_checksums(**at)
    # HTTPError is the HTTP library's; hf_xet, which brings large files, raises RuntimeError; ValueError is a bad name.
    except (OSError, errors.HTTPError, errors.EntryNotFoundError, RuntimeError, ValueError) as error:
        raise NrcgError(
            f"{repo_id}: cannot be fetched from {address} ({known.get(type(error)) or one_line(error)}). Run again to "
            f"resume, or get {wanted} by hand, put them in a folder and use that one instead of {out}"
        ) from None
    if not files:
        raise NrcgError(f"{repo_id}: no file matches {wanted}; see {address}")
    if bad := sorted({*files} & {*found.missing_paths, *(wrong["path"] for wrong in found.mismatches)}):
        for name in bad:
            (out / name).unlink(missing_ok=True)
        raise NrcgError(f"{out / bad[0]}: its digest differs from that at {address}; removed. Run again to fetch it")
    write_json(record, {**asked, "commit": info.sha, "files": files})
