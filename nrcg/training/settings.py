"""The settings of both trainings; a wrong one is refused when they are made."""

from dataclasses import asdict, dataclass

from nrcg.checks import FLAG, SEED, check, number, one_of, whole
from nrcg.models.classifier import ARCHITECTURES

CLASSIFIER_RULES = {
    "architecture": one_of(*ARCHITECTURES),
    "robust": FLAG,
    "max_epochs": whole(1),
    "batch_size": whole(2),  # batch norm compares images
    "learning_rate": number(0),
    "warmup_steps": whole(0),
    "min_epochs": whole(0),
    "min_gain": number(),
    "valid_images": whole(0),
    "seed": SEED,
}


@dataclass(frozen=True)
class ClassifierTraining:
    """The settings of a training; defaults are the paper's."""

    architecture: str = "mobilenet_v3_small"
    robust: bool = False  # noise each training image with its own t ~ U{0, …, T−1}
    max_epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-4
    warmup_steps: int = 500
    min_epochs: int = 5  # never stop before
    min_gain: float = 0.01  # stop when an epoch gains less validation accuracy than this
    valid_images: int = 0  # of the validation split that are used; 0 is all
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise NrcgError, which names the key, for a value that no training can have."""
        check("classifier training", asdict(self), CLASSIFIER_RULES)


DDPM_RULES = {
    "epochs": whole(1),
    "batch_size": whole(1),
    "learning_rate": number(0),
    "warmup_steps": whole(0),
    "gradient_clip": number(0, without=(0,)),
    "precision": one_of("fp32", "bf16"),
    "ema_decay": number(0, 1, without=(1,)),
    "seed": SEED,
}


@dataclass(frozen=True)
class DDPMTraining:
    """The settings of a training; defaults are the paper's."""

    epochs: int = 1000
    batch_size: int = 128  # of all processes together
    learning_rate: float = 1e-4
    warmup_steps: int = 500
    gradient_clip: float = 1.0  # largest norm of the whole gradient
    precision: str = "bf16"  # of the network's activations; weights and optimiser stay float32
    ema_decay: float = 0.0  # of the weights; 0 is off, as in the paper
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise NrcgError, which names the key, for a value that no training can have."""
        check("DDPM training", asdict(self), DDPM_RULES)
