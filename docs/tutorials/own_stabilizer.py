"""A stabiliser of your own: the gradient where it keeps its sign from step to step."""

from dataclasses import dataclass

import torch

import nrcg


@nrcg.stabilizers.register("agreement")
@dataclass(frozen=True)
class Agreement:
    """Values of the gradient whose sign is that of the step before; the others are multiplied by `rest`."""

    rest: float = 0.0

    def init(self, gradient_like):  # the state at the start of a trajectory; gradients are N×C×H×W
        return torch.zeros_like(gradient_like)

    def update(self, gradient, state):  # returns the direction and the new state
        agrees = gradient * state > 0
        return torch.where(agrees, gradient, self.rest * gradient), gradient


if __name__ == "__main__":
    pipe = nrcg.GuidedDDPMPipeline.from_pretrained("resources/sportballs32")
    pipe.set_progress_bar_config(disable=True)
    classifier = nrcg.load_classifier("resources/sportballs32/nonrobust")
    judge = nrcg.load_classifier("resources/sportballs32/judge")

    for name, stabilizer in {"none": None, "agreement": Agreement(), "ema": nrcg.EMA(0.9, steps=400)}.items():
        guidance = nrcg.ClassifierGuidance(classifier, target=0, scale=1.0, objective="logit", stabilizer=stabilizer)
        generators = [torch.Generator().manual_seed(i) for i in range(6)]
        traced = nrcg.trace(pipe, guidance, batch_size=6, generator=generators, num_inference_steps=100, n_frames=1)
        images = torch.from_numpy(traced.frames[-1]).permute(0, 3, 1, 2) / 127.5 - 1
        with torch.no_grad():
            share = (judge(images).argmax(1) == 0).float().mean()
        cosine = float(torch.from_numpy(traced.measured["direction_cosine"]).nanmean())
        print(f"{name}: cosine of successive directions {cosine:.2f}, baseballs to the judge {share:.0%}")
