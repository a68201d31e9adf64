"""Where classifiers come from, if they are not trained here: each source gives a network, and what it knows of itself.

`import_classifier` writes what a source gives as a folder, from which everything goes on: with all weights on disk, by
their digest, no later job needs a network, and none can get other weights.
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

sources = Registry("source of classifiers")  # functions (**arguments) → Found; a config's section names one


@dataclass(frozen=True)
class Found:
    """A classifier from elsewhere."""

    network: nn.Module  # with its weights
    architecture: Any  # of `build_classifier`, which makes the network again
    input: dict[str, Any] = field(default_factory=dict)  # what it says of its input, as arguments of `adapt`
    origin: dict[str, str] = field(default_factory=dict)  # for its card


@sources.register("torchvision")
def from_torchvision(name: str, weights: str = "DEFAULT", **arguments: Any) -> Found:
    """torchvision's network `name` with the published `weights`, downloaded and checked by torchvision."""
    from torchvision.models import get_model_weights

    known = get_model_weights(name)
    if weights not in known.__members__:
        raise NrcgError(f"torchvision {name}: no weights {weights!r}; there are {', '.join(known.__members__)}")
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
    """An image classifier of transformers: a hub id, or a local folder; safetensors alone."""
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
    """Weights in a file: safetensors, or a .pt or .pth that holds tensors alone.

    Args:
        path: of the file.
        architecture: whose weights they are: a registered name, or {name: {argument: value}}.
        n_logits: how many it returns.
        prefix: before each key.
        url: where the file is from.
        digest: what it must have: sha256:HEX, or gitblob:HEX.
    """
    if not Path(path).is_file():
        raise NrcgError(f"{path}: no such file or folder")
    if digest:
        require_digest(path, digest, origin=url)
    given = _read_weights(Path(path))
    if wrong := [key for key, tensor in given.items() if tensor.is_floating_point() and not tensor.isfinite().all()]:
        raise NrcgError(f"{path}: {min(wrong)} holds values that are not finite; get the file again")
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
    """What a function of yours returns, a torch module with its weights.

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
    """Refuse what can be known to be wrong without the network: an unknown source, key, or class, or one that lacks."""
    sources.choose(section)
    if outputs is not None:
        ordered(outputs, classes)


def ordered(outputs: Any, classes: Sequence[str]) -> list[Any]:
    """The outputs of each class in the order of `classes`, of {class: index or indices}."""
    if not isinstance(outputs, dict):
        raise NrcgError(f"outputs: {outputs!r}; give an index, or a list of them, for each class by its name")
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
    """Write a classifier's folder from a source, once it was seen to classify an image and to pass a gradient to it.

    Args:
        section: the source with its arguments, such as {"timm": {"name": "resnet18.a1_in1k"}}.
        folder: to write.
        classes: of the data set, in the order of the labels.
        size: of its images, pixels: one number, or [height, width].
        input: arguments of `adapt` (`size`, `mean`, `std`, `interpolation`) that the source does not know, or does
            not know right.
        outputs: which of its outputs stand for which class, as of `adapt`, by the class's name; None: as many outputs
            as classes, in their order, or one for two classes.

    Raises:
        NrcgError: for a source, a key, or a class that is unknown or lacks; for a network that cannot be had, has
            other outputs, or passes no gradient.
    """
    check_source(section, classes, outputs)
    where = _words(section)
    try:
        found = sources.build(section)
    except (NrcgError, MemoryError, ModuleNotFoundError):
        raise
    except Exception as error:  # whatever the library of the source, or the user's own code, raises
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise NrcgError(
            f"{where}: no classifier from there ({reason}); is the name right, can it be reached?"
        ) from error
    seen, groups = {**found.input, **(input or {})}, None if outputs is None else ordered(outputs, classes)
    image = torch.zeros(1, 3, *sides(size))
    n_logits = _probe(call(adapt, "input", seen, found.network), image, where).shape[1]
    if groups is None and n_logits != len(classes) and (n_logits, len(classes)) != (1, 2):
        names = ", ".join(classes)
        raise NrcgError(f"{where}: {n_logits} outputs for the classes {names}; say by `outputs` which are theirs")
    card: dict[str, Any] = {"architecture": found.architecture, "n_logits": n_logits, "classes": list(classes)}
    card |= {"input": seen} | ({"outputs": groups} if groups else {})
    _probe(call(adapt, "input", seen, found.network, outputs=groups), image, where)
    save_classifier(folder, found.network, {**card, "data": None, "data_digest": None, "origin": found.origin})
    load_classifier(folder)  # so that no later job is the first to find that it cannot be made again


def _words(section: Any) -> str:
    """A section for an error: the source and its arguments."""
    ((name, arguments),) = section.items() if isinstance(section, dict) else ((section, {}),)
    return ", ".join([f"source {name}", *(f"{key} {value}" for key, value in (arguments or {}).items())])


def _probe(classifier: nn.Module, image: torch.Tensor, where: str) -> torch.Tensor:
    """Logits of an image, once a gradient was seen to come back to it."""
    try:
        with frozen(classifier):
            return image_gradient(ClassValue(classifier, 0, "logit"), image)[1]
    except (NrcgError, MemoryError):
        raise
    except Exception as error:  # whatever the network makes of such an image
        size = "×".join(map(str, image.shape[2:]))
        raise NrcgError(
            f"{where}: cannot classify an image of {size} pixels ({first_line(error)}); give it its size by `input`"
        ) from error


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, of safetensors or of a state dict that torch saved, alone or under its usual names."""
    try:
        if path.suffix not in (".pt", ".pth", ".bin"):
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise NrcgError(f"{path}: not a whole file of weights ({first_line(error)}); get it again") from None
    except Exception as error:  # pickle's own, for what is more than tensors
        raise NrcgError(f"{path}: holds more than tensors, and is not opened ({type(error).__name__})") from None
    for name in ("state_dict", "model"):
        state = state[name] if isinstance(state, dict) and isinstance(state.get(name), dict) else state
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise NrcgError(f"{path}: holds no tensors by name; save the module's state_dict")
    return state
