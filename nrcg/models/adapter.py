"""A common interface to any classifier: images N×C×H×W in [−1, 1] to one logit per class."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from nrcg.checks import check, maybe, number, one_of, one_or_two, sides, whole
from nrcg.errors import NrcgError
from nrcg.io.images import to_rgb

SIZE = one_or_two(whole(1))
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
Outputs = Sequence[int | Sequence[int]] | Mapping[str, int | Sequence[int]]


class Adapter(nn.Module):
    """A network with its input and output conventions; made by `adapt`, which documents them."""

    def __init__(
        self, network: nn.Module, size: Any, mean: Any, std: Any, interpolation: str, outputs: Outputs | None
    ) -> None:
        super().__init__()
        self.network = network.eval()
        self.size = None if size is None else sides(size)
        self.interpolation = interpolation
        self.centre: torch.Tensor  # on [−1, 1]
        self.spread: torch.Tensor
        self.register_buffer("centre", 2 * _by_channel("mean", mean) - 1, persistent=False)
        self.register_buffer("spread", 2 * _by_channel("std", std), persistent=False)
        self.classes = list(outputs) if isinstance(outputs, Mapping) else None
        self.outputs = None if outputs is None else _groups(outputs)

    @property
    def __name__(self) -> str:
        """The network's name, for messages and `repr`."""
        return type(self.network).__name__

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits N×C, float32 (float64 for float64 images): per class, the log-sum-exp of its outputs' logits."""
        precise = torch.promote_types(images.dtype, torch.float32)
        images = to_rgb(images).to(precise)
        if self.size and tuple(images.shape[2:]) != self.size:
            smooth = {} if self.interpolation == "nearest" else {"align_corners": False, "antialias": True}
            images = interpolate(images, self.size, mode=self.interpolation, **smooth)
        images = (images - self.centre.to(precise)) / self.spread.to(precise)
        dtype = next((weight.dtype for weight in self.network.parameters() if weight.is_floating_point()), precise)
        logits = self._logits(self.network(images.to(dtype)))
        if self.outputs is None:
            return logits.to(precise)
        if (last := max(map(max, self.outputs))) >= logits.shape[1]:
            name = self.__name__
            raise NrcgError(f"outputs: index {last}, but {name} has {logits.shape[1]} outputs, from 0; change it")
        return torch.stack([logits[:, group].to(precise).logsumexp(1) for group in self.outputs], dim=1)

    def _logits(self, found: Any) -> torch.Tensor:
        """The logits in the network's result: a tensor, a tuple, a dict, or an object with `.logits`."""
        name = self.__name__
        if isinstance(found, Mapping):
            found = found.get("logits", next(iter(found.values()), None) if len(found) == 1 else None)
        elif hasattr(found, "logits"):
            found = found.logits
        elif isinstance(found, tuple | list) and found:
            found = found[0]
        if not isinstance(found, torch.Tensor):
            raise NrcgError(f"classifier: {name} returns no tensor of logits; wrap it in a module that returns one")
        if not found.is_floating_point():
            kind = str(found.dtype).removeprefix("torch.")
            raise NrcgError(f"classifier: {name} returns {kind}, perhaps class indices; it must return logits")
        if found.ndim != 2:
            raise NrcgError(f"classifier: {name} returns {tuple(found.shape)}; it must return logits N×C or N×1")
        return found


def adapt(
    module: nn.Module,
    size: int | Sequence[int] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    interpolation: str | None = None,
    outputs: Outputs | None = None,
) -> Adapter:
    """Adapt any image classifier for guidance: differentiable, for images in [−1, 1] of any size.

    Images are resized to `size` (antialiased, aspect ratio not kept) and normalised: the network's input is
    (u − mean) / std with u = (x + 1) / 2 in [0, 1]. Grey images N×1×H×W are repeated to three channels; RGBA images
    N×4×H×W are composited on white.

    Args:
        module: maps images N×3×H×W to logits N×K: a tensor, the first item of a tuple, "logits" of a dict, or
            `.logits`. It is put into eval mode. For a timm model, missing arguments come from its configuration.
        size: side of its input in pixels, or (height, width); None does not resize.
        mean: mean of its input on [0, 1], one number or one per channel; default 0.5.
        std: standard deviation, likewise; with 0.5 for both the network's input is in [−1, 1].
        interpolation: "bilinear" (default), "bicubic" or "nearest".
        outputs: the output or outputs of each class, as indices in class order or by class name; a class's logit is the
            log-sum-exp of its outputs. Other outputs do not enter log p. None: each of the K outputs is a class.

    Returns:
        A module from images N×C×H×W to logits N×(number of classes), float32.

    Raises:
        NrcgError: for an invalid value; in the first forward pass, for an output index that the network lacks or a
            result without logits.
    """
    if not isinstance(module, nn.Module):
        raise NrcgError(f"adapt: {type(module).__name__} is no torch module; give a module from images to logits")
    own = getattr(module, "pretrained_cfg", None) or {}  # timm's
    size = own["input_size"][1:] if size is None and "input_size" in own else size
    how: dict[str, Any] = {"size": size, "interpolation": interpolation or own.get("interpolation", "bilinear")}
    check("adapt", how, {"size": maybe(SIZE), "interpolation": one_of(*INTERPOLATIONS)})
    mean, std = own.get("mean", 0.5) if mean is None else mean, own.get("std", 0.5) if std is None else std
    return Adapter(module, size, mean, std, how["interpolation"], outputs)


def _by_channel(key: str, value: Any) -> torch.Tensor:
    """1×3×1×1 from one number or three."""
    values = list(value) if isinstance(value, Sequence) else [value] * 3
    rule = number(0, without=(0,)) if key == "std" else number()
    for each in values:
        check("adapt", {key: each}, {key: rule})
    if len(values) != 3:
        raise NrcgError(f"adapt: {key} holds {len(values)} numbers; give one, or three for R, G and B")
    return torch.tensor(values, dtype=torch.float64).float().view(1, 3, 1, 1)


def _groups(outputs: Outputs) -> list[list[int]]:
    """The output indices of each class, checked: at least one per class, none shared."""
    rows = list(outputs.items()) if isinstance(outputs, Mapping) else list(enumerate(outputs))
    groups: list[list[int]] = []
    taken: dict[int, Any] = {}
    for name, value in rows:
        group = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not group or not all(whole(0).holds(index) for index in group):
            raise NrcgError(f"outputs: class {name} has {value!r}; give an output index, or a list of indices")
        for index in group:
            if index in taken:
                raise NrcgError(f"outputs: index {index} is given to {taken[index]} and {name}; give it to one class")
            taken[index] = name
        groups.append(list(map(int, group)))
    if not groups:
        raise NrcgError("outputs: no classes; give the outputs of each class, or omit the key")
    return groups
