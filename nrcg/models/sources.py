"""Sources of imported classifiers: each returns a network and what is known about its input.

`import_classifier` writes the classifier to a folder with a digest of its weights. Later jobs use that folder: they
need no internet access and cannot get other weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from nrcg.checks import sides
from nrcg.errors import NrcgError, first_line
from nrcg.guidance.gradient import frozen, image_gradient
from nrcg.guidance.objectives import ClassValue
from nrcg.io.download import require_digest
from nrcg.io.files import sha256
from nrcg.models.adapter import adapt
from nrcg.models.architectures import build_classifier
from nrcg.models.classifier import load_classifier, save_classifier
from nrcg.models.ddpm import refuse_others
from nrcg.registry import Registry, call, load_function
from nrcg.runtime.imports import transformers

sources = Registry("source of classifiers")  # functions (**arguments) → Found


@dataclass(frozen=True)
class Found:
    """A classifier from a source."""

    network: nn.Module  # with its weights
    architecture: Any  # for `build_classifier`, which rebuilds the network
    input: dict[str, Any] = field(default_factory=dict)  # known arguments of `adapt`
    origin: dict[str, str] = field(default_factory=dict)  # for its card


@sources.register("torchvision")
def from_torchvision(name: str, weights: str = "DEFAULT", **arguments: Any) -> Found:
    """torchvision's network `name` with the published `weights`, downloaded and checked by torchvision."""
    from torchvision.models import get_model_weights

    known = get_model_weights(name)
    if weights not in known.__members__:
        raise NrcgError(f"torchvision {name}: no weights {weights!r}; use one of {', '.join(known.__members__)}")
    chosen = known[weights]
    network = build_classifier({"torchvision": {"name": name, **arguments}}, len(chosen.meta["categories"]))
    network.load_state_dict(chosen.get_state_dict(check_hash=True, weights_only=True, map_location="cpu"))
    seen = chosen.transforms()
    own = {"size": seen.crop_size[0], "mean": list(seen.mean), "std": list(seen.std)}
    own["interpolation"] = seen.interpolation.value
    return Found(network, {"torchvision": {"name": name, **arguments}}, own, {"url": chosen.url})


@sources.register("timm")
def from_timm(name: str, **arguments: Any) -> Found:
    """timm's network `name` with published weights: `resnet18.a1_in1k`, `hf-hub:owner/name` or `local-dir:folder`."""
    import timm
    from timm.models import _hub

    network: Any = timm.create_model(name, pretrained=True, **arguments)
    own, made = network.pretrained_cfg, dict(arguments)
    place, _, rest = name.partition(":")
    if rest:
        read: Any = {"hf-hub": _hub.load_model_config_from_hf, "local-dir": _hub.load_model_config_from_path}[place]
        made = {**{key: value for key, value in (read(rest)[2] or {}).items() if key != "num_classes"}, **arguments}
    seen = {"size": list(own["input_size"][1:]), "mean": list(own["mean"]), "std": list(own["std"])}
    seen["interpolation"] = own["interpolation"]
    return Found(network, {"timm": {"name": own["architecture"], **made}}, seen, {"name": name})


@sources.register("transformers")
def from_transformers(name: str) -> Found:
    """An image classifier of transformers, by hub id or local folder; safetensors only."""
    library = transformers()
    network = library.AutoModelForImageClassification.from_pretrained(name, use_safetensors=True)
    seen: Any = library.AutoImageProcessor.from_pretrained(name)
    size: Any = seen.crop_size if getattr(seen, "do_center_crop", None) else seen.size
    side = size.get("shortest_edge") if "height" not in size else [size["height"], size["width"]]
    own: dict[str, Any] = {"size": side, "mean": 0.0, "std": 1.0}
    if getattr(seen, "do_normalize", True):
        own |= {"mean": list(seen.image_mean), "std": list(seen.image_std)}
    own["interpolation"] = {0: "nearest", 3: "bicubic"}.get(int(getattr(seen, "resample", 2)), "bilinear")
    config = network.config.to_diff_dict()
    config = {key: value for key, value in config.items() if key not in ("id2label", "label2id", "_name_or_path")}
    return Found(network, {"transformers": {"config": config}}, own, {"name": name})


@sources.register("file")
def from_file(path: str, architecture: Any, n_logits: int, prefix: str = "", url: str = "", digest: str = "") -> Found:
    """Weights from a file: safetensors, or a .pt or .pth with tensors only.

    Args:
        path: the file.
        architecture: the network's architecture: a registered name, or {name: {argument: value}}.
        n_logits: its number of logits.
        prefix: prefix of every key, which is removed.
        url: the file's address, for the card.
        digest: the expected digest: sha256:HEX, or gitblob:HEX.
    """
    if not Path(path).is_file():
        raise NrcgError(f"{path}: no such file or folder")
    if digest:
        require_digest(path, digest, origin=url)
    given = _read_weights(Path(path))
    if wrong := [key for key, tensor in given.items() if tensor.is_floating_point() and not tensor.isfinite().all()]:
        raise NrcgError(f"{path}: {min(wrong)} has non-finite values; get the file again")
    if strange := [key for key in given if not key.startswith(prefix)]:
        raise NrcgError(f"{path}: key {min(strange)} does not start with the prefix {prefix!r}")
    weights = {key.removeprefix(prefix): tensor for key, tensor in given.items()}
    network = build_classifier(architecture, n_logits)
    expected = network.state_dict()
    mismatched = [key for key in expected.keys() & weights.keys() if expected[key].shape != weights[key].shape]
    missing, unexpected = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    refuse_others(Path(path), f"a {architecture} of {n_logits} logits", missing, unexpected, mismatched)
    network.load_state_dict(weights)
    origin = {"url": url, "digest": digest, "sha256": sha256(path)}
    return Found(network, architecture, origin={key: text for key, text in origin.items() if text})


@sources.register("module")
def from_module(function: str, arguments: dict[str, Any] | None = None) -> Found:
    """A torch module with its weights, returned by your function.

    Args:
        function: `package.module:function`, or `path/to/file.py:function`.
        arguments: keyword arguments of the function.
    """
    given = arguments or {}
    network = call(load_function(function), function, given)
    if not isinstance(network, nn.Module):
        raise NrcgError(f"{function}: returns {type(network).__name__}; it must return a torch module")
    return Found(network, {"module": {"function": function, "arguments": given}}, origin={"function": function})


def check_source(section: Any, classes: Sequence[str], outputs: Any) -> None:
    """Check a source without loading its network: refuse unknown or missing sources, keys and classes."""
    sources.choose(section)
    if outputs is not None:
        ordered(outputs, classes)


def ordered(outputs: Any, classes: Sequence[str]) -> list[Any]:
    """The outputs in the order of `classes`, from {class: index or indices}."""
    if not isinstance(outputs, dict):
        raise NrcgError(f"outputs: {outputs!r}; give an index or a list of indices for each class name")
    if lacking := [name for name in classes if name not in outputs]:
        raise NrcgError(f"outputs: no class {lacking[0]!r}; the classes are {', '.join(classes)}")
    if strange := [name for name in outputs if name not in classes]:
        raise NrcgError(f"outputs: {strange[0]!r} is no class; the classes are {', '.join(classes)}")
    return [outputs[name] for name in classes]


def import_classifier(
    section: Any,
    folder: str | Path,
    *,
    classes: Sequence[str],
    size: int | Sequence[int],
    input: dict[str, Any] | None = None,
    outputs: dict[str, Any] | None = None,
) -> None:
    """Write a classifier from a source to a folder, after testing that it classifies an image differentiably.

    Args:
        section: the source with its arguments, such as {"timm": {"name": "resnet18.a1_in1k"}}.
        folder: output folder.
        classes: the data set's classes, in the order of the labels.
        size: size of its images in pixels: one number, or [height, width].
        input: arguments of `adapt` (`size`, `mean`, `std`, `interpolation`) that are unknown to the source, or that
            override it.
        outputs: the output or outputs of each class, by class name, as in `adapt`; None: one output per class, in
            order, or a single output for two classes.

    Raises:
        NrcgError: for an unknown or missing source, key or class, and for a network that cannot be loaded, has other
            outputs, or is not differentiable.
    """
    check_source(section, classes, outputs)
    where = _words(section)
    try:
        found = sources.build(section)
    except (NrcgError, MemoryError, ModuleNotFoundError):
        raise
    except Exception as error:  # any error of the source's library or the user's code
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise NrcgError(f"{where}: cannot be loaded ({reason}); check the name and the network connection") from error
    seen, groups = {**found.input, **(input or {})}, None if outputs is None else ordered(outputs, classes)
    image = torch.zeros(1, 3, *sides(size))
    n_logits = _probe(call(adapt, "input", seen, found.network), image, where).shape[1]
    if groups is None and n_logits != len(classes) and (n_logits, len(classes)) != (1, 2):
        names = ", ".join(classes)
        raise NrcgError(f"{where}: {n_logits} outputs for the classes {names}; assign them with `outputs`")
    card: dict[str, Any] = {"architecture": found.architecture, "n_logits": n_logits, "classes": list(classes)}
    card |= {"input": seen} | ({"outputs": groups} if groups else {})
    _probe(call(adapt, "input", seen, found.network, outputs=groups), image, where)
    save_classifier(folder, found.network, {**card, "data": None, "data_digest": None, "origin": found.origin})
    load_classifier(folder)  # test that it can be rebuilt, before any later job


def _words(section: Any) -> str:
    """A section as text for messages: the source and its arguments."""
    ((name, arguments),) = section.items() if isinstance(section, dict) else ((section, {}),)
    return ", ".join([f"source {name}", *(f"{key} {value}" for key, value in (arguments or {}).items())])


def _probe(classifier: nn.Module, image: torch.Tensor, where: str) -> torch.Tensor:
    """Logits of an image, after testing that it receives a gradient."""
    try:
        with frozen(classifier):
            return image_gradient(ClassValue(classifier, 0, "logit"), image)[1]
    except (NrcgError, MemoryError):
        raise
    except Exception as error:  # any error of the network for such an image
        size = "×".join(map(str, image.shape[2:]))
        raise NrcgError(
            f"{where}: cannot classify an image of {size} pixels ({first_line(error)}); set its size with `input`"
        ) from error


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, from safetensors or a state dict saved by torch, bare or under a usual key."""
    try:
        if path.suffix not in (".pt", ".pth", ".bin"):
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise NrcgError(f"{path}: not a complete file of weights ({first_line(error)}); get it again") from None
    except Exception as error:  # pickle's own, for more than tensors
        raise NrcgError(f"{path}: holds more than tensors; refused ({type(error).__name__})") from None
    for name in ("state_dict", "model"):
        state = state[name] if isinstance(state, dict) and isinstance(state.get(name), dict) else state
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise NrcgError(f"{path}: holds no named tensors; save the module's state_dict")
    return state
