"""Feature extractors by name: `inception` (pytorch-fid's network) and `judge` (a judge classifier's last features)."""

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_fid.inception
import torch
from torch import nn

from nrcg.errors import NrcgError
from nrcg.io.images import to_float
from nrcg.models.classifier import JUDGE_FEATURES, JUDGES, features, load_classifier

INCEPTION_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_FEATURES = 2048


@dataclass(frozen=True)
class Extractor:
    """A named map from images to feature vectors.

    name      "inception" or "judge"
    dim       D, number of features
    network   from float32 N×3×H×W in [−1, 1] to N×D
    device    where the network is
    """

    name: str
    dim: int
    network: Callable[[torch.Tensor], torch.Tensor]
    device: torch.device | str

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 N×H×W×3 to float64 N×D, all N at once."""
        return self.network(to_float(images, self.device)).cpu().double().numpy()


def load_extractor(name: str, *, weights: str | Path | None, device: torch.device | str = "cpu") -> Extractor:
    """The extractor `name`, in eval mode.

    weights   for "inception" the file behind INCEPTION_URL, for "judge" the folder of a judge classifier

    Raises NrcgError for an unknown name and for weights that are missing, damaged or of another network.
    """
    if name not in LOADERS:
        raise NrcgError(f"extractor {name!r}: unknown; known are {', '.join(LOADERS)}")
    if weights is None:
        raise NrcgError(f"extractor {name!r}: no weights given; it needs {NEEDS[name]}")
    return LOADERS[name](Path(weights), device)


def _load_inception(path: Path, device: torch.device | str) -> Extractor:
    """pytorch-fid's pool3 features: images resized to 299×299 by the network itself, bilinearly."""
    network = _build_inception(path).to(device).eval()
    return Extractor("inception", INCEPTION_FEATURES, lambda images: network(images)[0].flatten(1), device)


def _build_inception(path: Path) -> nn.Module:
    """pytorch-fid's InceptionV3 with the weights in `path`.

    The class downloads its weights while it is built, unverified; its loader is replaced for that moment only.
    Its input is [0, 1], which it maps to [−1, 1] after resizing; ours is [−1, 1] already, and resizing is linear.
    """
    state = _read_weights(path)
    loader = pytorch_fid.inception.load_state_dict_from_url
    pytorch_fid.inception.load_state_dict_from_url = lambda *_args, **_kwargs: state
    try:
        return pytorch_fid.inception.InceptionV3(normalize_input=False)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise NrcgError(f"{path}: not weights of pytorch-fid's Inception ({reason}); get {INCEPTION_URL}") from None
    finally:
        pytorch_fid.inception.load_state_dict_from_url = loader


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise NrcgError(f"{path}: no such file; get it from {INCEPTION_URL}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, struct.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NrcgError(f"{path}: damaged weights ({reason}); get it again from {INCEPTION_URL}") from None


def _load_judge(folder: Path, device: torch.device | str) -> Extractor:
    model, card = load_classifier(folder, device)
    if card["architecture"] not in JUDGES:
        raise NrcgError(f"{folder}: a {card['architecture']}; features of a judge need one of {', '.join(JUDGES)}")
    return Extractor("judge", JUDGE_FEATURES, lambda images: features(model, images), device)


LOADERS = {"inception": _load_inception, "judge": _load_judge}
NEEDS = {"inception": f"the file {INCEPTION_URL}", "judge": "the folder of a judge classifier"}
