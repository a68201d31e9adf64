"""Conditions for an ImageNet classifier to steer SportBalls: one change at a time, scales chosen on unreported seeds.

    python -m experiments.imagenet_guides --judge results/imagenet-guides/guides/classifiers/judge --out variants.csv

EfficientNet-Lite0 guides the shipped DDPM of large balls towards baseballs. For each variant, all scales are tried on
the tuning seeds; the one with the largest share by the judge is reported, on other seeds.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

import nrcg
from nrcg.evaluation.uncertainty import wilson
from nrcg.io.files import write_text
from nrcg.models.classifier import predictions
from nrcg.registry import load_function
from nrcg.rng import keyed_generator

PROJECT = Path(__file__).parents[1]
DDPM = PROJECT / "resources/sportballs32_large"
load = load_function(f"{PROJECT}/config/efficientnet_lite0.py:load")
BALLS = {"baseball": 429, "basketball": 430, "soccer": 805}
TUNING, REPORTED, BATCH = 1000, 0, 16  # first seeds; batch size
LOG_P, LOGIT, SMOOTHED = (5.0, 20.0, 80.0), (3.0, 10.0, 30.0), (30.0, 100.0, 300.0)
EMA = {"stabilizer": nrcg.EMA(0.99, steps=400)}


@dataclass(frozen=True)
class Variant:
    """Differences from the base variant: log p of three outputs, at 160 pixels, through x̂_0, in 50 steps."""

    scales: tuple[float, ...] = LOG_P
    size: int = 160
    outputs: dict[str, int] | None = field(default_factory=lambda: BALLS)
    objective: str | Callable = "log_prob"
    shifts: tuple[int, ...] = (0,)  # shifts in pixels of the 32×32 image, over which the value is averaged
    steps: int = 50
    guidance: dict[str, Any] = field(default_factory=dict)


def tempered(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """log(e^f_y / Σ e^(f_i / 2)): between the logit and log p."""
    return logits.gather(1, target[:, None])[:, 0] - (logits / 2).logsumexp(1)


VARIANTS = {
    "log p of the 3 balls' outputs": Variant(),
    "their logit": Variant(LOGIT, objective="logit"),
    "tempered: logit − log Σ e^(f/2)": Variant(objective=tempered),
    "log p of all 1 000 outputs": Variant(outputs=None),
    "on x_t": Variant(guidance={"on": "xt"}),
    "EMA 0.99 (of 400 steps)": Variant(SMOOTHED, guidance=EMA),
    "logit, EMA 0.99 (of 400 steps)": Variant((10.0, 30.0, 100.0), objective="logit", guidance=EMA),
    "input 96 pixels": Variant(size=96),
    "input 224 pixels": Variant(size=224),
    "mean over 4 shifts of ±2 pixels": Variant(shifts=(-2, 2)),
    "noisy half only, t ≥ 50": Variant(guidance={"interval": (0.5, 1)}),
    "clean half only, t < 50": Variant(guidance={"interval": (0, 0.49)}),
    "100 steps": Variant(steps=100),
}


class Shifted(torch.nn.Module):
    """The mean of a value over shifts down and to the right, for all pairs of these numbers; white background."""

    def __init__(self, value: torch.nn.Module, shifts: tuple[int, ...]) -> None:
        super().__init__()
        self.value, self.shifts = value, shifts

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pad = max(map(abs, self.shifts))
        wide, (height, width) = torch.nn.functional.pad(images, [pad] * 4, value=1.0), images.shape[2:]
        places = [(pad - down, pad - right) for down in self.shifts for right in self.shifts]
        found = [self.value(wide[:, :, top : top + height, left : left + width]) for top, left in places]
        return torch.stack(found).mean(0)


def draw(pipe: nrcg.GuidedDDPMPipeline, variant: Variant, scale: float, seeds: range) -> torch.Tensor:
    """Samples of these seeds, N×3×H×W in [−1, 1]."""
    classifier = nrcg.adapt(load(), variant.size, 0.498, 0.502, "bicubic", variant.outputs)
    target = 0 if variant.outputs else BALLS["baseball"]
    value: Any = nrcg.ClassValue(classifier, target, variant.objective)
    if variant.shifts != (0,):
        value = Shifted(value, variant.shifts)
    guidance, found = nrcg.ValueGuidance(value, scale, **variant.guidance), []
    for first in range(seeds.start, seeds.stop, BATCH):
        batch = range(first, min(first + BATCH, seeds.stop))
        generators = [keyed_generator("sampling", 0, seed) for seed in batch]
        images, _ = pipe(len(batch), generators, variant.steps, "pt", return_dict=False, guidance=guidance)
        found.append(images * 2 - 1)
    return torch.cat(found)


@torch.inference_mode()
def shares(classifiers: dict[str, torch.nn.Module], images: torch.Tensor) -> dict[str, float]:
    """Share of baseballs by each classifier."""
    return {name: (predictions(model(images)) == 0).double().mean().item() for name, model in classifiers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--judge", type=Path, required=True, help="folder of a classifier trained on these balls")
    parser.add_argument("--out", type=Path, required=True, help="output CSV file, one row per variant")
    parser.add_argument("--tuning", type=int, default=12, help="samples per trial of a scale (default: 12)")
    parser.add_argument("--reported", type=int, default=48, help="reported samples (default: 48)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    pipe = nrcg.GuidedDDPMPipeline.from_pretrained(DDPM)
    pipe.set_progress_bar_config(disable=True)
    classifiers = {
        "judge": nrcg.load_classifier(given.judge),
        "own": nrcg.adapt(load(), 160, 0.498, 0.502, "bicubic", BALLS),
    }
    rows = []
    for name, variant in tqdm(VARIANTS.items(), desc="variants"):
        tried = {}
        for scale in variant.scales:
            tried[scale] = shares(classifiers, draw(pipe, variant, scale, range(TUNING, TUNING + given.tuning)))
        best = max(tried, key=lambda scale: tried[scale]["judge"])
        found = shares(classifiers, draw(pipe, variant, best, range(REPORTED, REPORTED + given.reported)))
        low, high = wilson(found["judge"], given.reported)
        row = {"variant": name, "scale": best, "judge": found["judge"], "low": low, "high": high, "own": found["own"]}
        row["tuning"] = " ".join(f"{scale:g}:{share['judge']:.2f}" for scale, share in tried.items())
        rows.append(row | {"n": given.reported, "steps": variant.steps})
        write_text(given.out, pd.DataFrame(rows).round(4).to_csv(index=False))  # intermediate result


if __name__ == "__main__":
    main()
