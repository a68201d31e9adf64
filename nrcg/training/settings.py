"""Training settings of classifiers and DDPMs, checked on creation. Defaults are the paper's."""

from dataclasses import dataclass
from typing import Annotated, Any

from nrcg.checks import FLAG, SEED, check_fields, number, one_of, whole
from nrcg.models.architectures import architectures
from nrcg.models.ddpm import CHANNELS


@dataclass(frozen=True)
class ClassifierTraining:
    """Training settings of a classifier; NrcgError names an invalid key."""

    architecture: Any = "mobilenet_v3_small"  # a registered name, or {timm: {name: …}} or {torchvision: {name: …}}
    robust: Annotated[bool, FLAG] = False  # noise each training image (eq. 2) with its own t ~ U{0, …, T−1}
    channels: Annotated[int, CHANNELS] = 3  # channels of the DDPM, for the noise; 1 means grey noise
    max_epochs: Annotated[int, whole(1)] = 20  # maximum number of epochs
    batch_size: Annotated[int, whole(2)] = 128  # images per step, at least 2 for batch norm
    learning_rate: Annotated[float, number(0)] = 1e-4  # of AdamW, after the warm-up; then cosine decay to 0
    warmup_steps: Annotated[int, whole(0)] = 500  # steps in which the learning rate rises from 0
    min_epochs: Annotated[int, whole(0)] = 5  # minimum number of epochs
    min_gain: Annotated[float, number()] = 0.01  # training stops after an epoch that gains less validation accuracy
    valid_images: Annotated[int, whole(0)] = 0  # number of validation images; 0 means all
    seed: Annotated[int, SEED] = 0  # seed of weights, data order and noise

    def __post_init__(self) -> None:
        check_fields("classifier training", self)
        architectures.choose(self.architecture, given=1)


@dataclass(frozen=True)
class DDPMTraining:
    """Training settings of a DDPM; NrcgError names an invalid key."""

    epochs: Annotated[int, whole(1)] = 1000  # number of epochs
    batch_size: Annotated[int, whole(1)] = 128  # images per step, over all processes
    learning_rate: Annotated[float, number(0)] = 1e-4  # of AdamW, after the warm-up; then cosine decay to 0
    warmup_steps: Annotated[int, whole(0)] = 500  # steps in which the learning rate rises from 0
    gradient_clip: Annotated[float, number(0, without=(0,))] = 1.0  # maximum norm of the whole gradient
    precision: Annotated[str, one_of("fp32", "bf16")] = "bf16"  # of activations; weights and optimiser stay float32
    ema_decay: Annotated[float, number(0, 1, without=(1,))] = 0.0  # decay of an average of the weights; 0: none
    seed: Annotated[int, SEED] = 0  # seed of weights, data order and noise

    def __post_init__(self) -> None:
        check_fields("DDPM training", self)
