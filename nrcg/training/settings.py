"""The settings of both trainings; a wrong one is refused when they are made. Defaults are the paper's."""

from dataclasses import dataclass
from typing import Annotated, Any

from nrcg.checks import FLAG, SEED, check_fields, number, one_of, whole
from nrcg.models.architectures import architectures
from nrcg.models.ddpm import CHANNELS


@dataclass(frozen=True)
class ClassifierTraining:
    """The settings of a classifier's training; raises NrcgError, which names the key, for one that none can have."""

    architecture: Any = "mobilenet_v3_small"  # a registered name, or {timm: {name: …}} or {torchvision: {name: …}}
    robust: Annotated[bool, FLAG] = False  # noise each training image (eq. 2) with its own t ~ U{0, …, T−1}
    channels: Annotated[int, CHANNELS] = 3  # of the DDPM, in which noise is added; 1 is grey noise
    max_epochs: Annotated[int, whole(1)] = 20  # most passes over the training images
    batch_size: Annotated[int, whole(2)] = 128  # images a step, at least 2: batch norm compares them
    learning_rate: Annotated[float, number(0)] = 1e-4  # of AdamW, after the warm-up; a cosine takes it to 0
    warmup_steps: Annotated[int, whole(0)] = 500  # in which the learning rate rises from 0
    min_epochs: Annotated[int, whole(0)] = 5  # never stop before these are done
    min_gain: Annotated[float, number()] = 0.01  # stop when an epoch gains less validation accuracy than this
    valid_images: Annotated[int, whole(0)] = 0  # of the validation split that are used; 0 is all
    seed: Annotated[int, SEED] = 0  # of weights, order and noise

    def __post_init__(self) -> None:
        check_fields("classifier training", self)
        architectures.choose(self.architecture, given=1)


@dataclass(frozen=True)
class DDPMTraining:
    """The settings of a DDPM's training; raises NrcgError, which names the key, for one that none can have."""

    epochs: Annotated[int, whole(1)] = 1000  # passes over the training images
    batch_size: Annotated[int, whole(1)] = 128  # images a step, of all processes together
    learning_rate: Annotated[float, number(0)] = 1e-4  # of AdamW, after the warm-up; a cosine takes it to 0
    warmup_steps: Annotated[int, whole(0)] = 500  # in which the learning rate rises from 0
    gradient_clip: Annotated[float, number(0, without=(0,))] = 1.0  # largest norm of the whole gradient
    precision: Annotated[str, one_of("fp32", "bf16")] = "bf16"  # of activations; weights and optimiser stay float32
    ema_decay: Annotated[float, number(0, 1, without=(1,))] = 0.0  # of a mean of the weights; 0 is off, as in the paper
    seed: Annotated[int, SEED] = 0  # of weights, order and noise

    def __post_init__(self) -> None:
        check_fields("DDPM training", self)
