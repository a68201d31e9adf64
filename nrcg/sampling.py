"""A shard of samples: the images of a range of seeds, whatever the batch size and however often it was interrupted."""

import logging
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nrcg.errors import NrcgError
from nrcg.files import fingerprint, read_sealed, sha256, write_array, write_json, write_sealed
from nrcg.guidance import ClassifierGuidance, GuidedDDPMPipeline
from nrcg.images import to_uint8
from nrcg.memory import BatchLimit
from nrcg.preemption import Stop
from nrcg.rng import keyed_generator

log = logging.getLogger("nrcg")


@dataclass(frozen=True)
class Samples:
    """Images uint8 n×H×W×3 of n consecutive seeds, and which of their trajectories diverged (bool n; mid-grey)."""

    images: np.ndarray
    diverged: np.ndarray


def sample_shard(
    out: str | Path,  # NAME.npy; the card is NAME.json beside it
    seeds: range,  # sample i of a run, for each i of the range
    *,
    pipeline: GuidedDDPMPipeline,
    guidance: ClassifierGuidance | None,
    num_inference_steps: int,
    batch_size: int,
    seed: int,  # of the run; sample i depends on (seed, i) alone
    provenance: dict[str, Any],  # goes on the card, and tells this shard's parts from another's
    stop: Stop | None = None,
) -> None:
    """Draw the samples and write uint8 images and card; batches already drawn are kept in `NAME.parts` until then.

    Where the device's memory does not hold a batch, smaller ones are drawn. Raises NrcgError when `seeds` is empty, and
    Stopped when `stop` asks for it; the running batch is then lost, since it may take longer than a cluster waits.
    """
    out, stop = Path(out), stop or Stop()
    if not len(seeds) or seeds.step != 1:
        raise NrcgError(f"{out}: no seeds from {seeds.start} to {seeds.stop}")
    started = time.monotonic()
    settings = {**provenance, "seed": seed, "num_inference_steps": num_inference_steps}
    folder = out.with_suffix(".parts") / fingerprint(**settings)
    parts = _finished_parts(folder, seeds)
    done = sum(len(part.images) for part in parts)
    if done:
        log.info("%s: %d of %d samples were drawn before", out, done, len(seeds))
    pipeline.set_progress_bar_config(desc=out.stem, leave=False, unit="step")
    bar = tqdm(total=len(seeds), initial=done, desc=f"{out.parent.name}/{out.stem}", unit="image")
    with bar as progress:
        batches = BatchLimit("sampling", batch_size)
        draw = partial(_draw, pipeline, guidance, seed, num_inference_steps, stop)
        for batch, part in batches.each(draw, seeds[done:]):
            _save_part(folder / f"{batch.start}.part", part)
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
        "device": pipeline.device.type,
        "torch": torch.__version__,
    }
    write_json(out.with_suffix(".json"), card)
    shutil.rmtree(folder.parent)


def _draw(
    pipeline: GuidedDDPMPipeline, guidance: ClassifierGuidance | None, seed: int, steps: int, stop: Stop, batch: range
) -> Samples:
    result = pipeline(
        batch_size=len(batch),
        generator=[keyed_generator("sampling", seed, i) for i in batch],  # on the CPU: the same on every machine
        num_inference_steps=steps,
        guidance=guidance,
        output_type="pt",
        callback_on_step_end=lambda *_: stop.check(),
    )
    return Samples(to_uint8(result.images * 2 - 1), result.diverged.cpu().numpy())


def _save_part(path: Path, part: Samples) -> None:
    write_sealed(path, lambda file: np.savez(file, images=part.images, diverged=part.diverged))


def _finished_parts(folder: Path, seeds: range) -> list[Samples]:
    """The parts without a gap from the first seed on; a damaged one ends the row and is drawn again."""
    parts: list[Samples] = []
    start = seeds.start
    while (path := folder / f"{start}.part").exists():
        try:
            with np.load(read_sealed(path), allow_pickle=False) as arrays:
                part = Samples(arrays["images"], arrays["diverged"])
        except NrcgError as error:
            log.warning("%s; it is drawn again", error)
            break
        if start + len(part.images) > seeds.stop:
            break
        parts.append(part)
        start += len(part.images)
    return parts
