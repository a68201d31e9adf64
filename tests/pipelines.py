"""A tiny pipeline and guidance that the tests of sampling share."""

import numpy as np
import torch
from conftest import TINY_UNET
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

from nrcg import ClassifierGuidance, GuidedDDPMPipeline

T, STEPS = 40, 8
ALPHAS = np.cumprod(1 - np.linspace(1e-4, 0.02, T))  # ᾱ_t, in float64; a scheduler's own is float32


def make_pipeline(kind=GuidedDDPMPipeline, dtype=torch.float32, by=DDPMScheduler, steps=T, unet=TINY_UNET, **scheduler):
    torch.manual_seed(0)
    unet = UNet2DModel(**unet).to(dtype).eval()
    pipe = kind(unet=unet, scheduler=by(num_train_timesteps=steps, **scheduler))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_classifier(n_logits=3, activation=nn.SiLU, dtype=torch.float32) -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Conv2d(3, 4, 3, stride=2), activation(), nn.Flatten(), nn.Linear(36, n_logits)
    return nn.Sequential(*layers).to(dtype)


def make_guidance(scale=5.0, n_logits=3, target=1, **kwargs) -> ClassifierGuidance:
    return ClassifierGuidance(make_classifier(n_logits), target, scale, **kwargs)


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(pipe, guidance=None, **kwargs):
    return pipe(
        **{"batch_size": 2, "generator": generator(), "num_inference_steps": STEPS, "output_type": "pt"}
        | kwargs
        | ({"guidance": guidance} if guidance else {})
    )


def trail(pipe, guidance=None, **kwargs) -> torch.Tensor:
    """x_{t−1} of every step, none of them non-finite."""
    found = []
    out = draw(pipe, guidance, callback_on_step_end=lambda *given: found.append(given[-1]["latents"]), **kwargs)
    assert not out.diverged.any()
    return torch.stack(found)


def grad(values: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(values.sum(), of)[0]
