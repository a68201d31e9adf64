"""A tiny pipeline and guidance that the tests of sampling share."""

import torch
from conftest import TINY_UNET
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

from nrcg import ClassifierGuidance, GuidedDDPMPipeline

T, STEPS = 40, 8


def make_pipeline(kind=GuidedDDPMPipeline, dtype=torch.float32, **scheduler):
    torch.manual_seed(0)
    unet = UNet2DModel(**TINY_UNET).to(dtype).eval()
    pipe = kind(unet=unet, scheduler=DDPMScheduler(num_train_timesteps=T, **scheduler))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_guidance(scale=5.0, n_logits=3, target=1, **kwargs) -> ClassifierGuidance:
    torch.manual_seed(1)
    classifier = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.SiLU(), nn.Flatten(), nn.Linear(36, n_logits))
    return ClassifierGuidance(classifier, target, scale, **kwargs)


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(pipe, guidance=None, **kwargs):
    return pipe(
        **{"batch_size": 2, "generator": generator(), "num_inference_steps": STEPS, "output_type": "pt"}
        | kwargs
        | ({"guidance": guidance} if guidance else {})
    )
