"""x̂_0, gradients and clipping at each step of the reverse process."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nrcg.checks import check, whole
from nrcg.diffusion.denoise import clip_limit
from nrcg.diffusion.steps import fractions, set_timesteps
from nrcg.guidance import ClassifierGuidance, ValueGuidance
from nrcg.io.images import to_pixels, to_rgb
from nrcg.pipeline import GuidedPipeline

LOOKED_AT = ("pred_original_sample", "gradient", "direction")
RULES = {"n_frames": whole(1), "n_shown": whole(0)}


@dataclass(frozen=True, eq=False)
class Trace:
    """Measurements of N samples over S reverse steps, in descending t.

    Attributes:
        times: float64 S, t / T of each step, in [0, 1).
        measured: float64 S×N by name, NaN at unguided steps and for the first cosine:
            gradient_norm: ‖g_t‖, the Euclidean norm of the gradient with respect to x_t;
            gradient_cosine: cosine of the angle between g_t and the gradient of the previous step, in [−1, 1]; 0 if one
                of them is zero;
            direction_norm, direction_cosine: the same for the stabilised gradient d_t;
            clipped: share of the values of x̂_0 at the scheduler's clipping limit, in [0, 1]. Clipped values receive no
                gradient; a white background is at the limit, too.
            The first four exist only with guidance, the last only if the scheduler clips.
        frames: uint8 (F + 1)×K×H×W×3, x̂_0 of the first K samples at F steps, then the samples.
        frame_steps: int64 F, the steps of the frames except the last.
        diverged: bool N, whether the trajectory became non-finite.
    """

    times: np.ndarray
    measured: dict[str, np.ndarray]
    frames: np.ndarray
    frame_steps: np.ndarray
    diverged: np.ndarray


def trace(
    pipeline: GuidedPipeline,
    guidance: ClassifierGuidance | ValueGuidance | None = None,
    *,
    batch_size: int = 4,
    generator: torch.Generator | list[torch.Generator] | None = None,
    num_inference_steps: int | None = None,
    class_labels: int | Sequence[int] | torch.Tensor | None = None,
    eta: float = 0.0,
    timesteps: Sequence[int] | None = None,
    signal_leak: float | None = None,
    n_frames: int = 50,
    n_shown: int = 8,
) -> Trace:
    """Draw the same samples as `pipeline(…)` and record each step.

    Results stay on the device until the end, so that a GPU never waits.

    Args:
        pipeline: any guided pipeline; shows its progress bar.
        guidance: as of the pipeline; without it no gradient is measured.
        batch_size: as of the pipeline, like the next six.
        generator: one for the batch, or one per sample.
        num_inference_steps: 1 to T; None takes all.
        class_labels: of a class-conditional U-Net.
        eta: η of a DDIM.
        timesteps: chosen timesteps.
        signal_leak: mean of the training images.
        n_frames: F, at least 1, steps whose x̂_0 is kept, evenly spread from the first to the last; all where there are
            fewer.
        n_shown: K, at least 0, samples whose x̂_0 is kept; all where there are fewer.

    Returns:
        A `Trace` of N = `batch_size` samples.

    Raises:
        NrcgError: for n_frames or n_shown out of range, and as in the pipeline.
    """
    check("trace", {"n_frames": n_frames, "n_shown": n_shown}, RULES)
    n_steps = len(set_timesteps(pipeline.scheduler, num_inference_steps, timesteps))
    limit = clip_limit(pipeline.scheduler)
    frame_steps = np.linspace(0, n_steps - 1, min(n_frames, n_steps)).round().astype(np.int64)
    kept, rows, frames = set(frame_steps.tolist()), [], []
    before: dict[str, Any] = dict.fromkeys(LOOKED_AT)

    def look(_pipeline: Any, step: int, _t: Any, now: dict[str, torch.Tensor]) -> None:
        x0, row = now["pred_original_sample"], {}
        for name in ("gradient", "direction"):
            if now[name] is not None:
                row[f"{name}_norm"] = _length(now[name])
                if before[name] is not None:
                    row[f"{name}_cosine"] = _cosine(now[name], before[name])
        if limit is not None:
            row["clipped"] = (x0.abs() >= limit).flatten(1).double().mean(1)
        rows.append(row)
        before.update(now)
        if step in kept:
            frames.append(to_pixels(to_rgb(x0[:n_shown])))

    images, diverged = pipeline(
        batch_size=batch_size,
        generator=generator,
        num_inference_steps=num_inference_steps,
        output_type="pt",
        return_dict=False,
        guidance=guidance,
        class_labels=class_labels,
        eta=eta,
        timesteps=timesteps,
        signal_leak=signal_leak,
        callback_on_step_end=look,
        callback_on_step_end_tensor_inputs=LOOKED_AT,
    )
    frames.append(to_pixels(to_rgb(images[:n_shown] * 2 - 1)))
    blank = torch.full((batch_size,), torch.nan, dtype=torch.float64, device=images.device)
    measured = {
        name: torch.stack([row.get(name, blank) for row in rows]).cpu().numpy()
        for name in dict.fromkeys(name for row in rows for name in row)
    }
    times = np.array(fractions(pipeline.scheduler))
    return Trace(times, measured, torch.stack(frames).cpu().numpy(), frame_steps, diverged.cpu().numpy())


def joined(traces: Sequence[Trace]) -> Trace:
    """One trace of all samples, from traces of batches over the same steps."""
    first = traces[0]
    return Trace(
        first.times,
        {name: np.concatenate([each.measured[name] for each in traces], axis=1) for name in first.measured},
        np.concatenate([each.frames for each in traces], axis=1),
        first.frame_steps,
        np.concatenate([each.diverged for each in traces]),
    )


def _length(batch: torch.Tensor) -> torch.Tensor:
    """Euclidean norm per sample, float64 N, so that a gradient of 1e-30 does not become 0."""
    return torch.linalg.vector_norm(batch.flatten(1), dim=1, dtype=torch.float64)


def _cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    product, lengths = (a.double() * b.double()).flatten(1).sum(1), _length(a) * _length(b)
    return torch.where(lengths == 0, 0.0, product / lengths).clamp(-1, 1)
