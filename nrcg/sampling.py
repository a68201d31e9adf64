"""A shard of samples: the images of a range of seeds, however often it was interrupted.

The random draws of sample i depend on (seed, i) alone. In float32 on a CPU, so does its image, whatever the batch size;
in bfloat16 or on a GPU each batch size rounds differently.
"""

import logging
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from tqdm import tqdm

from nrcg.errors import NrcgError
from nrcg.guidance import ClassifierGuidance, GuidedDDPMPipeline
from nrcg.io.arrays import write_array
from nrcg.io.files import alone, fingerprint, read_card, require_writable, sha256, write_json
from nrcg.io.images import to_uint8
from nrcg.io.parts import in_parts
from nrcg.models.ddpm import check_sampling
from nrcg.rng import keyed_generator
from nrcg.runtime.memory import BatchLimit
from nrcg.runtime.preemption import Stop

log = logging.getLogger("nrcg")


@dataclass(frozen=True)
class Samples:
    """Images uint8 n×H×W×3 of n consecutive seeds, and which of their trajectories diverged (bool n; mid-grey)."""

    images: np.ndarray
    diverged: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def save(self, file: BinaryIO) -> None:
        np.savez(file, images=self.images, diverged=self.diverged)

    @classmethod
    def load(cls, file: BinaryIO) -> "Samples":
        with np.load(file, allow_pickle=False) as arrays:
            return cls(arrays["images"], arrays["diverged"])


def sample_shard(
    out: str | Path,
    seeds: range,
    *,
    pipeline: GuidedDDPMPipeline,
    guidance: ClassifierGuidance | None,
    num_inference_steps: int,
    batch_size: int,
    seed: int,
    provenance: dict[str, Any],
    stop: Stop | None = None,
) -> None:
    """Draw the samples and write uint8 images and card; batches already drawn are kept in `NAME.parts` until then.

    Of two processes that draw the same shard the second waits, and finds it made.

    Args:
        out: NAME.npy; the card is NAME.json beside it.
        seeds: sample i of the run of `seed`, for each i of the range.
        pipeline, guidance, num_inference_steps: what to draw with; guidance None draws without.
        batch_size: images in the networks at a time; fewer where the device's memory does not hold them.
        provenance: what else decides the samples, as JSON has it: on the card, and told apart by it are parts.
        stop: asked at every step.

    Raises:
        NrcgError: when `seeds` is empty, for steps that the scheduler cannot take, and when a file cannot be written.
        Stopped: when `stop` asks for it; the running batch is lost, since it may take longer than a cluster waits.
    """
    out, asked = Path(out), stop or Stop()
    if not seeds:
        raise NrcgError(f"{out}: no seeds from {seeds.start} to {seeds.stop}")
    check_sampling(pipeline.scheduler, num_inference_steps)
    require_writable(out)
    settings = {**provenance, "seed": seed, "num_inference_steps": num_inference_steps}
    folder = out.with_suffix(".parts") / fingerprint(**settings)
    draw = partial(_draw, pipeline, guidance, seed, num_inference_steps, asked)

    def another(first: bool) -> None:
        if first:
            log.info("%s: another process draws it; waiting for it", out)
        asked.check()

    try:
        with alone(folder.parent / "lock", another) as waited:
            if not (waited and _is_made(out, seeds, settings)):
                pipeline.set_progress_bar_config(desc=out.stem, leave=False, unit="step")
                limit = BatchLimit("sampling", batch_size)
                drawn = in_parts(draw, seeds, limit, folder, Samples.load, ("samples", "drawn"))
                _make(out, seeds, settings, drawn, pipeline.device)
            shutil.rmtree(folder.parent, ignore_errors=True)
    finally:
        with suppress(OSError):  # where something failed before there was a part
            folder.parent.rmdir()


def _is_made(out: Path, seeds: range, settings: dict[str, Any]) -> bool:
    """Whether the shard is there, whole and of these settings."""
    place = out.with_suffix(".json")
    if not (out.is_file() and place.is_file()):
        return False
    card, wanted = read_card(place), {**settings, "seeds": [seeds.start, seeds.stop], "sha256": sha256(out)}
    return fingerprint(**{key: card.get(key) for key in wanted}) == fingerprint(**wanted)


def _make(
    out: Path, seeds: range, settings: dict, drawn: Iterable[tuple[range, Samples]], device: torch.device
) -> None:
    """Gather the parts as they are drawn, and write the shard and its card."""
    started, parts = time.monotonic(), []
    with tqdm(total=len(seeds), desc=f"{out.parent.name}/{out.stem}", unit="image") as progress:
        for batch, part in drawn:
            parts.append(part)
            progress.update(len(batch))
    diverged = np.concatenate([part.diverged for part in parts])
    write_array(out, np.concatenate([part.images for part in parts]))
    card = {
        "seeds": [seeds.start, seeds.stop],
        "diverged": [seeds.start + int(i) for i in np.flatnonzero(diverged)],
        "sha256": sha256(out),
        **settings,
        "seconds": round(time.monotonic() - started, 1),
        "device": device.type,
        "torch": torch.__version__,
    }
    write_json(out.with_suffix(".json"), card)


def _draw(
    pipeline: GuidedDDPMPipeline, guidance: ClassifierGuidance | None, seed: int, steps: int, stop: Stop, batch: range
) -> Samples:
    images, diverged = pipeline(
        batch_size=len(batch),
        generator=[keyed_generator("sampling", seed, i) for i in batch],  # on the CPU: the same on every machine
        num_inference_steps=steps,
        guidance=guidance,
        output_type="pt",
        return_dict=False,
        callback_on_step_end=lambda *_: stop.check(),
    )
    return Samples(to_uint8(images * 2 - 1), diverged.cpu().numpy())
