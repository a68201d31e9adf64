"""Import of published DDPMs; pickles with more than tensors are refused."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError, safe_open

from nrcg.errors import NrcgError
from nrcg.io.download import require_digest
from nrcg.io.files import sha256
from nrcg.models import ddpm


def import_ddpm(
    source: str | Path,
    folder: str | Path,
    *,
    unet: dict[str, Any] | None = None,
    scheduler: dict[str, Any] | None = None,
    url: str = "",
    digest: str = "",
) -> None:
    """Write a DDPM's folder from a diffusers folder (also flat, or with a .bin), or from safetensors and arguments."""
    source = Path(source)
    if source.is_dir():
        if unet is not None or scheduler is not None:
            raise NrcgError(f"{source}: a folder has its own U-Net and scheduler settings; give none beside it")
        parts = {name: source / name if (source / name).is_dir() else source for name in ("unet", "scheduler")}
        files = [parts["unet"] / f"{ddpm.WEIGHTS}{suffix}" for suffix in (".safetensors", ".bin")]
        if not (weights := next(filter(Path.is_file, files), None)):
            raise NrcgError(f"{parts['unet']}: neither {files[0].name} nor {files[1].name} here; not a complete DDPM")
        network, noise_scheduler = ddpm.load_unet(weights), ddpm.load_scheduler(parts["scheduler"])
    else:
        weights = source
        _refuse(source, url, digest)
        if unet is None or scheduler is None:
            raise NrcgError(f"{source}: a single file needs the arguments of its U-Net and of its scheduler")
        with TemporaryDirectory() as place:  # diffusers converts old keys only when opening a folder
            ddpm.build_unet(unet).save_config(place)
            link = Path(place, f"{ddpm.WEIGHTS}.safetensors")
            link.symlink_to(source.resolve())
            network, noise_scheduler = ddpm.load_unet(link, source), ddpm.build_scheduler(scheduler)
    ddpm.save_ddpm(folder, network, noise_scheduler, _origin(weights, url, digest))


def _refuse(file: Path, url: str, digest: str) -> None:
    """Refuse a file that is not complete safetensors with this digest, if any."""
    if not file.is_file():
        raise NrcgError(f"{file}: no such file or folder")
    if digest:
        require_digest(file, digest, origin=url)
    try:
        with safe_open(file, framework="pt"):  # reads the header, which determines the file's length
            pass
    except (SafetensorError, OSError) as error:
        raise NrcgError(f"{file}: not a complete safetensors file ({error}); delete it and get it again") from None


def _origin(file: Path, url: str, digest: str) -> dict[str, Any]:
    """The origin of the weights, for a card."""
    origin = {"url": url, "digest": digest, "sha256": sha256(file)}
    return {"data": None, "data_digest": None, "origin": {key: text for key, text in origin.items() if text}}
