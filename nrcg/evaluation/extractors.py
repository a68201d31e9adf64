"""Feature extractors by name: `inception` (pytorch-fid's network) and `classifier` (any one's last features)."""

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nrcg.checks import sides
from nrcg.errors import NrcgError
from nrcg.io.arrays import UNREADABLE
from nrcg.io.images import to_float
from nrcg.models.classifier import features, load_classifier
from nrcg.registry import Registry

extractors = Registry("extractor")  # functions (weights: Path | None, device) → Extractor
PROBED = 64  # pixels of the image that tells how many features a classifier for images of any size has
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
        """uint8 N×H×W×3 to float64 N×D, all N at once."""
        return self.network(to_float(images, self.device)).cpu().double().numpy()


@extractors.register("inception")
def inception(weights: Path | None, device: torch.device | str = "cpu") -> Extractor:
    """pytorch-fid's pool3 features: images resized to 299×299 by the network itself, bilinearly.

    `weights` is the file behind INCEPTION_URL, in whose stead the class would download it unverified while it is built.
    Its input is [0, 1], which it maps to [−1, 1] after resizing; ours is [−1, 1] already, and resizing is linear.
    """
    import pytorch_fid.inception as fid

    if weights is None:
        raise NrcgError(f"extractor inception: no weights given; it needs the file {INCEPTION_URL}")
    loader = fid.load_state_dict_from_url
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        fid.load_state_dict_from_url = lambda *_args, **_kwargs: state
        network = fid.InceptionV3(normalize_input=False).to(device).eval()
    except FileNotFoundError:
        raise NrcgError(f"{weights}: no such file; get it from {INCEPTION_URL}") from None
    except (*UNREADABLE, pickle.UnpicklingError, RuntimeError, LookupError, AttributeError, struct.error) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise NrcgError(
            f"{weights}: damaged, or not weights of pytorch-fid's ({reason}); get {INCEPTION_URL}"
        ) from None
    finally:
        fid.load_state_dict_from_url = loader
    return Extractor(2048, lambda images: network(images)[0].flatten(1), device)


@extractors.register("classifier")
def classifier(weights: Path | None, device: torch.device | str = "cpu") -> Extractor:
    """The last features of the classifier, such as a judge, whose folder `weights` is."""
    if weights is None:
        raise NrcgError("extractor classifier: no weights given; it needs the folder of a classifier")
    model, card = load_classifier(weights, device)
    side = card.get("size") or getattr(model, "size", None) or PROBED
    with torch.inference_mode():
        dim = features(model, torch.zeros(1, 3, *sides(side), device=device)).shape[1]
    return Extractor(dim, lambda images: features(model, images), device)
