import json
import logging
import os

import pytest
import torch
from conftest import TINY_UNET
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small

from nrcg.cli import app
from nrcg.errors import NrcgError
from nrcg.io.files import sha256
from nrcg.models.classifier import load_classifier
from nrcg.models.ddpm import load_ddpm
from nrcg.models.importing import import_ddpm
from nrcg.models.sources import import_classifier

UNET = {
    **TINY_UNET,
    "attention_head_dim": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
SCHEDULER = {"num_train_timesteps": 20, "beta_end": 0.3}
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # of attention layers, in 2022
SMALL = "mobilenet_v3_small"
ORIGIN = {"url": "https://example.org/w"}
CLASSES = {1: ["no", "yes"], 4: ["a", "b", "c", "d"]}


def perturbed(network):
    """In eval mode, with no two weights alike: fresh networks hold zeros and ones that could be swapped unseen."""
    torch.manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.05 * torch.rand_like(tensor))
    return network.eval()


def write_classifier(path, network, prefix="classifier."):
    save_file({prefix + name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def unet():
    return perturbed(UNet2DModel(**UNET))


def old_names(state):
    renamed = {}
    for name, tensor in state.items():
        for new, old in OLD_NAMES.items():
            name = name.replace(f".{new}.", f".{old}.") if ".attentions." in name else name
        renamed[name] = tensor.contiguous()
    assert len(renamed) == len(state) and renamed.keys() != state.keys()
    return renamed


def write_root_layout(folder, unet, state, suffix):
    """Everything beside one another, as the first published DDPMs."""
    unet.save_config(folder)
    DDPMScheduler(**SCHEDULER).save_config(folder)
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    path = folder / f"diffusion_pytorch_model{suffix}"
    torch.save(state, path) if suffix == ".bin" else save_file(state, path)
    return path


def same_network(one, other):
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return torch.allclose(one(x, 7).sample, other(x, 7).sample, rtol=0, atol=1e-6)


def published(file, out, n_logits, classes=None, architecture=SMALL):
    """Import as the rule imports the authors' classifiers."""
    section = {"path": str(file), "architecture": architecture, "n_logits": n_logits, "prefix": "classifier."}
    import_classifier({"file": {**section, **ORIGIN}}, out, classes=classes or CLASSES[n_logits], size=32)


@pytest.mark.parametrize("n_logits", [1, 4])
def test_a_published_classifier_gives_the_logits_it_gave(tmp_path, n_logits):
    network = perturbed(mobilenet_v3_small(num_classes=n_logits))
    file = write_classifier(tmp_path / "summer-1.safetensors", network)
    published(file, tmp_path / "out", n_logits)
    model, card = load_classifier(tmp_path / "out")
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.equal(model(x), network.to(memory_format=torch.channels_last)(x))
    assert card == {
        "architecture": "mobilenet_v3_small",
        "classes": CLASSES[n_logits],
        "n_logits": n_logits,
        "input": {},
        "data": None,
        "data_digest": None,
        "origin": {**ORIGIN, "sha256": sha256(file)},
        "sha256": sha256(tmp_path / "out/model.safetensors"),
    }


def test_classifiers_that_do_not_fit_are_refused(tmp_path):
    four = write_classifier(tmp_path / "four", mobilenet_v3_small(num_classes=4))
    cut = tmp_path / "cut"
    cut.write_bytes(four.read_bytes()[:-1])
    page = tmp_path / "page"
    page.write_text("<html>404</html>")
    partial = load_file(four)
    del partial["classifier.features.0.0.weight"]
    save_file(partial, tmp_path / "partial")
    cases = {
        tmp_path / "absent": "no such file",
        cut: "not a complete file of weights",
        page: "not a complete file of weights",
        write_classifier(tmp_path / "plain", mobilenet_v3_small(num_classes=1), prefix=""): "does not start with",
        write_classifier(tmp_path / "large", mobilenet_v3_large(num_classes=1)): "not weights of a mobilenet_v3_small",
        four: "not weights of a mobilenet_v3_small of 1 logits",
    }
    for file, message in cases.items():
        with pytest.raises(NrcgError, match=f"^{file}: .*{message}[^\n]*$"):
            published(file, tmp_path / "out", 1)
    with pytest.raises(NrcgError, match=r"1 missing: features\.0\.0\.weight"):
        published(tmp_path / "partial", tmp_path / "out", 4)
    with pytest.raises(NrcgError, match="architecture 'vgg'"):
        published(four, tmp_path / "out", 4, architecture="vgg")
    with pytest.raises(NrcgError, match="4 outputs for the classes no, yes; assign them with `outputs`"):
        published(four, tmp_path / "out", 4, classes=CLASSES[1])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rename", [dict, old_names])
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_folder_of_the_first_published_layout_is_read(tmp_path, unet, suffix, rename):
    file = write_root_layout(tmp_path, unet, rename(unet.state_dict()), suffix)
    import_ddpm(tmp_path, tmp_path / "out", **ORIGIN)
    network, scheduler = load_ddpm(tmp_path / "out")
    assert same_network(network, unet) and not network.training
    assert scheduler.config.num_train_timesteps == 20 and scheduler.config.beta_end == 0.3
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    own = sha256(tmp_path / "out/unet/diffusion_pytorch_model.safetensors")
    assert card == {"data": None, "data_digest": None, "origin": {**ORIGIN, "sha256": sha256(file)}, "sha256": own}
    assert str(tmp_path) not in (tmp_path / "out" / "unet" / "config.json").read_text()


def test_the_usual_layout_is_read_and_safetensors_win(tmp_path, unet):
    DDPMPipeline(unet=unet, scheduler=DDPMScheduler(**SCHEDULER)).save_pretrained(tmp_path / "in")
    torch.save({}, tmp_path / "in" / "unet" / "diffusion_pytorch_model.bin")
    import_ddpm(tmp_path / "in", tmp_path / "out")
    assert same_network(load_ddpm(tmp_path / "out")[0], unet)
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "out")
    assert same_network(pipeline.unet, unet) and pipeline.scheduler.config.beta_end == 0.3


@pytest.mark.parametrize("rename", [dict, old_names])
def test_a_single_file_is_read(tmp_path, unet, rename):
    file = tmp_path / "w.safetensors"
    save_file(rename(unet.state_dict()), file)
    import_ddpm(file, tmp_path / "out", unet=UNET, scheduler=SCHEDULER, **ORIGIN)
    network, scheduler = load_ddpm(tmp_path / "out")
    assert same_network(network, unet)
    assert scheduler.config.beta_end == 0.3
    assert json.loads((tmp_path / "out" / "card.json").read_text())["origin"]["sha256"] == sha256(file)


class Runs:
    """Unpickled without care, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path, unet):
    file = write_root_layout(tmp_path, unet, {**unet.state_dict(), "x": Runs(tmp_path / "ran")}, ".bin")
    with pytest.raises(NrcgError, match=f"^{file}: cannot be read[^\n]*more than tensors is refused$"):
        import_ddpm(tmp_path, tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "ran").exists(), "the file was harmless, so the test says nothing"


def without_one(state):
    return {name: tensor for name, tensor in state.items() if name != "conv_in.weight"}


def with_one_more(state):
    return {**state, "extra": torch.zeros(1)}


def with_another_shape(state):
    return {**state, "conv_in.weight": torch.zeros(8, 4, 3, 3)}


CHANGES = {
    "1 missing: conv_in.weight": without_one,
    "1 unexpected: extra": with_one_more,
    "1 of another shape: conv_in.weight": with_another_shape,
}


@pytest.mark.parametrize("message", CHANGES)
def test_weights_of_another_network_are_refused(tmp_path, unet, message, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    state = CHANGES[message](unet.state_dict())
    write_root_layout(tmp_path, unet, state, ".bin")
    with pytest.raises(NrcgError, match=message):
        import_ddpm(tmp_path, tmp_path / "out")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(NrcgError, match=f"^{tmp_path / 'w.safetensors'}: .*{message}"):
        import_ddpm(tmp_path / "w.safetensors", tmp_path / "out", unet=UNET, scheduler=SCHEDULER)
    DDPMPipeline(unet=unet, scheduler=DDPMScheduler()).save_pretrained(tmp_path / "own")
    save_file(state, tmp_path / "own" / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(NrcgError, match=message):
        load_ddpm(tmp_path / "own")
    assert not (tmp_path / "out").exists()
    assert not caplog.records  # diffusers' own warnings would bury the line


def test_folders_that_are_not_whole_are_refused(tmp_path, unet):
    with pytest.raises(NrcgError, match="no such file or folder"):
        import_ddpm("someone/some-ddpm", tmp_path / "out")
    with pytest.raises(NrcgError, match="neither diffusion_pytorch_model"):
        import_ddpm(tmp_path, tmp_path / "out")
    file = write_root_layout(tmp_path, unet, unet.state_dict(), ".safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(NrcgError, match=f"^{file}: cannot be read"):
        import_ddpm(tmp_path, tmp_path / "out")
    file.write_bytes(whole)
    for name, kind in {"config.json": "U-Net", "scheduler_config.json": "scheduler"}.items():
        content = (tmp_path / name).read_text()
        (tmp_path / name).write_text(content[:20])
        with pytest.raises(NrcgError, match=f"cannot be read as a .*{kind}[^\n]*$"):
            import_ddpm(tmp_path, tmp_path / "out")
        (tmp_path / name).unlink()
        with pytest.raises(NrcgError, match=f"cannot be read as a .*{kind}[^\n]*$"):
            import_ddpm(tmp_path, tmp_path / "out")
        (tmp_path / name).write_text(content)
    assert not (tmp_path / "out").exists()


def test_arguments_that_do_not_belong_together_are_refused(tmp_path, unet):
    file = write_root_layout(tmp_path, unet, unet.state_dict(), ".safetensors")
    with pytest.raises(NrcgError, match="give none beside it"):
        import_ddpm(tmp_path, tmp_path / "out", unet=UNET)
    with pytest.raises(NrcgError, match="needs the arguments"):
        import_ddpm(file, tmp_path / "out", unet=UNET)
    with pytest.raises(NrcgError, match="unknown key layers"):
        import_ddpm(file, tmp_path / "out", unet={"layers": 2}, scheduler={})
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(NrcgError, match="not a complete safetensors file"):
        import_ddpm(file, tmp_path / "out", unet=UNET, scheduler=SCHEDULER)


def test_load_ddpm_takes_a_local_folder_only(tmp_path, unet):
    for source in ("google/ddpm-celebahq-256", tmp_path / "absent"):
        with pytest.raises(NrcgError, match=f"{source}: .*nrcg get ddpm"):
            load_ddpm(source)


def verb(*words):
    app([str(word) for word in words], standalone_mode=False)


def test_the_verbs(tmp_path, unet):
    four = write_classifier(tmp_path / "four", mobilenet_v3_small(num_classes=4))
    file = tmp_path / "w.safetensors"
    save_file(unet.state_dict(), file)
    classes = [part for name in CLASSES[4] for part in ("--classes", name)]
    digest = f"sha256:{sha256(four)}"
    of = {"path": str(four), "architecture": SMALL, "n_logits": 4, "prefix": "classifier.", "url": "u"}
    bring = ["get", "classifier", *classes, "--size", 32, "--out", tmp_path / "classifier", "--source"]
    verb(*bring, json.dumps({"file": {**of, "digest": digest}}))
    card = load_classifier(tmp_path / "classifier")[1]
    assert card["classes"] == CLASSES[4] and card["origin"] == {"url": "u", "digest": digest, "sha256": sha256(four)}
    with pytest.raises(NrcgError, match="its digest is not sha256:0000"):
        verb(*bring, json.dumps({"file": {**of, "digest": f"sha256:{'0' * 64}"}}))
    bring = ["get", "ddpm", "--source", file, "--out", tmp_path / "ddpm", "--scheduler", json.dumps(SCHEDULER)]
    verb(*bring, "--unet", json.dumps(UNET))
    assert same_network(load_ddpm(tmp_path / "ddpm")[0], unet)
    assert load_ddpm(tmp_path / "ddpm")[0].config["_name_or_path"] is None  # no path of a machine goes on
    assert json.loads((tmp_path / "ddpm" / "card.json").read_text())["origin"] == {"sha256": sha256(file)}
    with pytest.raises(NrcgError, match="needs the arguments"):
        verb(*bring)
