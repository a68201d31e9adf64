"""`weights: authors` through the real rules: downloads from a server on loopback, imports, a guided sample."""

import functools
import http.server
import json
import threading
from hashlib import sha1

import pytest
import yaml
from diffusers import UNet2DModel
from environment_yml import ROOT
from safetensors.torch import load_file, save_file
from scratch import jobs, overlay, snakemake

from nrcg.models.architectures import build_classifier

SHARD = "results/authors/celeba/samples/robust/scale_1/shard_000.npy"


def git_blob(data: bytes) -> str:
    return sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Files as the authors released them, of random networks: keys with a prefix, one logit, a bare U-Net."""
    folder = tmp_path_factory.mktemp("released")
    for name in ("nonrobust", "robust"):
        weights = build_classifier("mobilenet_v3_small", 1).state_dict()
        save_file(
            {f"classifier.{key}": value.contiguous() for key, value in weights.items()}, folder / f"{name}.safetensors"
        )
    unet = yaml.safe_load((ROOT / "config/test.yaml").read_text())["datasets"]["celeba"]["ddpm"]["unet"]
    save_file(UNet2DModel(**unet).state_dict(), folder / "ddpm.safetensors")
    return folder


@pytest.fixture(scope="module")
def server(released):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=released)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def table(folder, released, address):
    rows = {
        name: {
            "url": f"{address}/{name}.safetensors",
            "digest": f"gitblob:{git_blob((released / f'{name}.safetensors').read_bytes())}",
        }
        for name in ("ddpm", "nonrobust", "robust")
    }
    path = folder / "authors_weights.yaml"
    path.write_text(yaml.safe_dump({"celeba": rows}))
    return path


def configured(checkout, folder, released, address):
    def change(config):
        config.update(run="authors", authors_weights=str(table(folder, released, address)))
        config["datasets"]["celeba"]["weights"] = "authors"
        config["datasets"]["celeba"]["images"]["size"] = 64
        config["datasets"]["celeba"]["ddpm"]["unet"]["sample_size"] = 64

    return overlay(checkout, folder, change)


def test_downloaded_converted_and_sampled_from(checkout, tmp_path, released, server):
    path = configured(checkout, tmp_path, released, server)
    planned = jobs(snakemake(checkout, "-n", "--configfile", path, "--", SHARD))
    assert set(planned) == {"download_authors", "import_classifier", "import_ddpm", "sample"}  # nothing is trained
    snakemake(checkout, "--cores", "2", "--configfile", path, "--", SHARD)
    home = checkout / "results/authors/celeba/imported"
    card = json.loads((home / "robust/card.json").read_text())
    assert card["classes"] == ["female", "male"] and card["n_logits"] == 1
    theirs, ours = load_file(released / "robust.safetensors"), load_file(home / "robust/model.safetensors")
    assert all((ours[key.removeprefix("classifier.")] == value).all() for key, value in theirs.items())
    assert (checkout / SHARD).exists()


def test_without_a_network_the_way_out_is_named(checkout, tmp_path, released):
    path = configured(checkout, tmp_path, released, "http://127.0.0.1:1")
    target = "results/downloads/authors/celeba/nonrobust.safetensors"
    (checkout / target).unlink(missing_ok=True)
    output = snakemake(checkout, "--cores", "1", "--configfile", path, "--", target, check=False)
    line = next(line for line in output.splitlines() if line.startswith("error: "))
    assert target in line and "http://127.0.0.1:1/nonrobust.safetensors" in line and "by hand" in line
    (checkout / target).parent.mkdir(parents=True, exist_ok=True)
    (checkout / target).write_bytes((released / "nonrobust.safetensors").read_bytes())
    assert "Nothing to be done" in snakemake(checkout, "-n", "--configfile", path, "--", target)


def test_a_wrong_file_put_by_hand_is_refused(checkout, tmp_path, released):
    path = configured(checkout, tmp_path, released, "http://127.0.0.1:1")
    file = checkout / "results/downloads/authors/celeba/robust.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes((released / "nonrobust.safetensors").read_bytes())
    target = "results/authors/celeba/imported/robust/model.safetensors"
    options = ["--rerun-triggers", "mtime", "--forcerun", "import_classifier", "--configfile", path]
    output = snakemake(checkout, "--cores", "1", *options, "--", target, check=False)
    assert "error: results/downloads/authors/celeba/robust.safetensors: its digest is not gitblob:" in output
    file.unlink()
