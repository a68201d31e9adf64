"""A shard of samples: the images of a range of seeds, whatever the batch size and however often it was interrupted."""

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nrcg.errors import NrcgError
from nrcg.files import atomic, write_array, write_json
from nrcg.guidance import ClassifierGuidance, GuidedDDPMPipeline
from nrcg.images import to_uint8
from nrcg.rng import keyed_generator
from nrcg.training.common import fingerprint

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
) -> None:
    """Draw the samples and write uint8 images and card; batches already drawn are kept in `NAME.parts` until then.

    Raises NrcgError when `seeds` is empty.
    """
    out = Path(out)
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
    with tqdm(total=len(seeds), initial=done, desc=f"{out.parent.name}/{out.stem}", unit="image") as progress:
        while done < len(seeds):
            batch = seeds[done : done + batch_size]
            parts.append(_draw(pipeline, guidance, batch, seed, num_inference_steps))
            _save_part(folder / f"{batch.start}.npz", parts[-1])
            done += len(batch)
            progress.update(len(batch))
    diverged = np.concatenate([part.diverged for part in parts])
    write_array(out, np.concatenate([part.images for part in parts]))
    card = {
        "seeds": [seeds.start, seeds.stop],
        "diverged": [seeds.start + int(i) for i in np.flatnonzero(diverged)],
        **settings,
        "seconds": round(time.monotonic() - started, 1),
        "device": pipeline.device.type,
        "torch": torch.__version__,
    }
    write_json(out.with_suffix(".json"), card)
    shutil.rmtree(folder.parent)


def _draw(
    pipeline: GuidedDDPMPipeline, guidance: ClassifierGuidance | None, batch: range, seed: int, steps: int
) -> Samples:
    result = pipeline(
        batch_size=len(batch),
        generator=[keyed_generator(seed, i) for i in batch],  # on the CPU: the same numbers on every machine
        num_inference_steps=steps,
        guidance=guidance,
        output_type="pt",
    )
    return Samples(to_uint8(result.images * 2 - 1), result.diverged.cpu().numpy())


def _save_part(path: Path, part: Samples) -> None:
    with atomic(path) as file:
        np.savez(file, images=part.images, diverged=part.diverged)


def _finished_parts(folder: Path, seeds: range) -> list[Samples]:
    """The parts without a gap from the first seed on; a damaged one ends the row and is drawn again."""
    parts: list[Samples] = []
    start = seeds.start
    while (path := folder / f"{start}.npz").exists():
        try:
            with np.load(path, allow_pickle=False) as arrays:
                part = Samples(arrays["images"], arrays["diverged"])
        except Exception as error:  # zipfile and numpy raise half a dozen kinds for a truncated file
            log.warning("%s: damaged part (%s); it is drawn again", path, error)
            break
        if start + len(part.images) > seeds.stop:
            break
        parts.append(part)
        start += len(part.images)
    return parts
