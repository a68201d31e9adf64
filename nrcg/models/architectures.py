"""Classifier architectures: functions from the number of logits to a network with random weights."""

from difflib import get_close_matches
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import get_model, list_models, mobilenet_v3_small, resnet18

from nrcg.errors import NrcgError, first_line
from nrcg.registry import Registry, load_function
from nrcg.runtime.imports import transformers

JUDGE_FEATURES = 64  # few, so that a covariance over some hundred samples has full rank

architectures = Registry("architecture")  # functions (n_logits, **arguments) → network


@architectures.register("mobilenet_v3_small")
def _mobilenet_v3_small(n_logits: int) -> nn.Module:
    """torchvision's, in channels-last layout, which makes depthwise convolutions twice as fast, even on a CPU."""
    return mobilenet_v3_small(num_classes=n_logits).to(memory_format=torch.channels_last)


@architectures.register("resnet18_judge")
def _resnet18_judge(n_logits: int) -> nn.Module:
    """torchvision's ResNet-18 with a 64-dimensional last feature layer."""
    model: Any = resnet18(num_classes=n_logits)
    model.fc = nn.Sequential(nn.Linear(512, JUDGE_FEATURES), nn.ReLU(), nn.Linear(JUDGE_FEATURES, n_logits))
    model.features_of = "fc.0"  # before the ReLU, whose zeros would make them less Gaussian
    return model


@architectures.register("resnet14_judge")
def _resnet14_judge(n_logits: int) -> nn.Module:
    """The judge without its last stage, which is 1×1 for 32×32 images; has a quarter of the weights."""
    model: Any = _resnet18_judge(n_logits)
    model.layer4 = nn.Identity()
    model.fc[0] = nn.Linear(256, JUDGE_FEATURES)
    return model


@architectures.register("torchvision")
def _torchvision(n_logits: int, name: str, **arguments: Any) -> nn.Module:
    """A classification network of torchvision, by name."""
    known = list_models(module=torchvision.models)
    if name not in known:
        raise NrcgError(f"torchvision has no classifier {name!r}; nearest are {_nearest(name, known)}")
    return get_model(name, weights=None, num_classes=n_logits, **arguments)


@architectures.register("timm")
def _timm(n_logits: int, name: str, **arguments: Any) -> nn.Module:
    """A network of timm, by name."""
    import timm  # from the extra `models`

    if not timm.is_model(name):
        raise NrcgError(f"timm has no network {name!r}; nearest are {_nearest(name, timm.list_models())}")
    network: Any = timm.create_model(name, pretrained=False, num_classes=n_logits, **arguments)
    network.pretrained_cfg = {}  # describes pretrained weights, which are not used
    return network


@architectures.register("transformers")
def _transformers(n_logits: int, config: dict[str, Any]) -> nn.Module:
    """An image classifier of transformers, by its configuration."""
    library = transformers()
    made = library.AutoConfig.for_model(**config, num_labels=n_logits)
    return library.AutoModelForImageClassification.from_config(made)


@architectures.register("module")
def _module(n_logits: int, function: str, arguments: dict[str, Any] | None = None) -> nn.Module:
    """The result of the user's function `package.module:function` or `path/to/file.py:function`."""
    return load_function(function)(**(arguments or {}))


def build_classifier(architecture: Any, n_logits: int) -> nn.Module:
    """A classifier with random weights.

    Args:
        architecture: a registered name, or {name: {argument: value}}.
        n_logits: the number of classes, or 1 if binary.

    Raises:
        NrcgError: for an unknown name or argument, or if the network cannot be built.
    """
    make = architectures.choose(architecture, given=1)
    try:
        return make(n_logits)
    except (NrcgError, MemoryError, ModuleNotFoundError):
        raise
    except Exception as error:  # any error of another library
        raise NrcgError(f"architecture {architecture}: cannot be built ({first_line(error)})") from error


def _nearest(name: str, known: list[str]) -> str:
    return ", ".join(get_close_matches(name, known, n=3, cutoff=0))
