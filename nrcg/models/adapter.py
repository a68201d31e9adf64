"""Classifiers of others behind one face: images N×C×H×W in [−1, 1] go in, one logit for each class comes out."""

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
    """A network with its input and its outputs; `adapt` makes one and says what they are."""

    def __init__(
        self, network: nn.Module, size: Any, mean: Any, std: Any, interpolation: str, outputs: Outputs | None
    ) -> None:
        super().__init__()
        self.network = network.eval()
        self.size = None if size is None else sides(size)
        self.interpolation = interpolation
        self.centre: torch.Tensor  # as on [−1, 1]
        self.spread: torch.Tensor
        self.register_buffer("centre", 2 * _by_channel("mean", mean) - 1, persistent=False)
        self.register_buffer("spread", 2 * _by_channel("std", std), persistent=False)
        self.classes = list(outputs) if isinstance(outputs, Mapping) else None
        self.outputs = None if outputs is None else _groups(outputs)

    @property
    def __name__(self) -> str:
        """What an error or a `repr` calls it: the network."""
        return type(self.network).__name__

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits N×C, float32, or float64 of float64 images: of each class the log-sum-exp of its outputs' logits."""
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
            raise NrcgError(f"outputs: index {last}, but {name} has {logits.shape[1]} outputs, from 0; name others")
        return torch.stack([logits[:, group].to(precise).logsumexp(1) for group in self.outputs], dim=1)

    def _logits(self, found: Any) -> torch.Tensor:
        """The tensor of logits in what the network returns: a tensor, a tuple, a dict, or an object with `.logits`."""
        name = self.__name__
        if isinstance(found, Mapping):
            found = found.get("logits", next(iter(found.values()), None) if len(found) == 1 else None)
        elif hasattr(found, "logits"):
            found = found.logits
        elif isinstance(found, tuple | list) and found:
            found = found[0]
        if not isinstance(found, torch.Tensor):
            raise NrcgError(f"classifier: {name} returns no tensor of logits; wrap it in a module that does")
        if not found.is_floating_point():
            kind = str(found.dtype).removeprefix("torch.")
            raise NrcgError(f"classifier: {name} returns {kind}, class numbers perhaps; it must return logits")
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
    """Make any image classifier one that can guide: it takes images in [−1, 1] of any size, and passes a gradient.

    Images are resized (antialiased, straight to `size`), and the network sees (u − mean) / std of u = (x + 1) / 2 in
    [0, 1]. Grey images N×1×H×W are repeated in R, G and B, and RGBA ones N×4×H×W laid over white.

    Args:
        module: maps images N×3×H×W to logits N×K: as a tensor, first in a tuple, as "logits" of a dict, or as
            `.logits`. It is put into eval mode. What a timm model says of its own input stands for what is not given.
        size: its input's side in pixels, or (height, width); None takes images as they come.
        mean: of its input, on [0, 1], of all channels or of each of the three; 0.5 if nobody says another.
        std: likewise; with 0.5 for both it sees [−1, 1].
        interpolation: "bilinear" (the default), "bicubic" or "nearest".
        outputs: which of the K outputs stand for which class: an index, or several, whose log-sum-exp is taken, for
            each class in order, or by the class's name. Only these compete in log p. None takes all K.

    Returns:
        A module from images N×C×H×W to logits N×(number of classes), float32.

    Raises:
        NrcgError: for a value outside of these; and in its first forward pass, for an index that the network does not
            have, and for what it returns where that holds no logits.
    """
    if not isinstance(module, nn.Module):
        raise NrcgError(f"adapt: {type(module).__name__} is no torch module; give one from images to logits")
    own = getattr(module, "pretrained_cfg", None) or {}  # timm's
    size = own["input_size"][1:] if size is None and "input_size" in own else size
    how: dict[str, Any] = {"size": size, "interpolation": interpolation or own.get("interpolation", "bilinear")}
    check("adapt", how, {"size": maybe(SIZE), "interpolation": one_of(*INTERPOLATIONS)})
    mean, std = own.get("mean", 0.5) if mean is None else mean, own.get("std", 0.5) if std is None else std
    return Adapter(module, size, mean, std, how["interpolation"], outputs)


def _by_channel(key: str, value: Any) -> torch.Tensor:
    """1×3×1×1 of one number or of three."""
    values = list(value) if isinstance(value, Sequence) else [value] * 3
    rule = number(0, without=(0,)) if key == "std" else number()
    for each in values:
        check("adapt", {key: each}, {key: rule})
    if len(values) != 3:
        raise NrcgError(f"adapt: {key} holds {len(values)} numbers; give one, or one for each of R, G and B")
    return torch.tensor(values, dtype=torch.float64).float().view(1, 3, 1, 1)


def _groups(outputs: Outputs) -> list[list[int]]:
    """The indices of each class, checked: at least one of each, and none in two classes."""
    rows = list(outputs.items()) if isinstance(outputs, Mapping) else list(enumerate(outputs))
    groups: list[list[int]] = []
    taken: dict[int, Any] = {}
    for name, value in rows:
        group = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not group or not all(whole(0).holds(index) for index in group):
            raise NrcgError(f"outputs: class {name} has {value!r}; give an index of an output, or a list of them")
        for index in group:
            if index in taken:
                raise NrcgError(f"outputs: index {index} stands for {taken[index]} and {name}; give it to one class")
            taken[index] = name
        groups.append(list(map(int, group)))
    if not groups:
        raise NrcgError("outputs: no class; name the outputs of each, or leave it out")
    return groups
