"""Tracing and writing a shard of samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nrcg.errors import NrcgError
from nrcg.evaluation.trace import Trace, joined, trace
from nrcg.guidance import ClassifierGuidance, ValueGuidance
from nrcg.io.files import require_writable
from nrcg.io.traces import write_trace
from nrcg.pipeline import GuidedPipeline
from nrcg.rng import keyed_generator
from nrcg.runtime.memory import BatchLimit


def trace_shard(
    out: str | Path,
    seeds: range,
    *,
    pipeline: GuidedPipeline,
    guidance: ClassifierGuidance | ValueGuidance | None,
    num_inference_steps: int,
    batch_size: int,
    seed: int,
    n_frames: int,
    n_shown: int,
    provenance: dict[str, Any],
    class_label: int | None = None,
    options: Mapping[str, Any] = {},
) -> None:
    """Trace the samples that `sample_shard` would draw for `seed` and `seeds`; write `out` (NAME.npy).

    Also writes NAME.csv and the card NAME.json. `n_frames` and `n_shown` are as in `trace`; `provenance` is for the
    card; `options` are `eta`, `signal_leak` and `timesteps` of the pipeline.
    """
    if not seeds:
        raise NrcgError(f"{out}: no seeds from {seeds.start} to {seeds.stop}")
    require_writable(out)
    pipeline.set_progress_bar_config(desc=Path(out).stem, leave=False, unit="step")

    def draw(batch: range) -> Trace:
        return trace(
            pipeline,
            guidance,
            batch_size=len(batch),
            generator=[keyed_generator("sampling", seed, i) for i in batch],
            num_inference_steps=num_inference_steps,
            class_labels=class_label,
            **options,
            n_frames=n_frames,
            n_shown=max(0, seeds.start + n_shown - batch.start),
        )

    whole = joined([found for _, found in BatchLimit("tracing", batch_size).each(draw, seeds)])
    card = {
        "seeds": [seeds.start, seeds.stop],
        "times": whole.times[whole.frame_steps].tolist(),
        "diverged": [seeds.start + int(i) for i in whole.diverged.nonzero()[0]],
        "num_train_timesteps": pipeline.scheduler.config.num_train_timesteps,
        **provenance,
        "seed": seed,
        "num_inference_steps": num_inference_steps,
    }
    write_trace(out, whole.frames, whole.times, whole.measured, card)
