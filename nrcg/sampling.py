"""A shard of samples: the images of a range of seeds, resumable after interruptions.

The random draws of sample i depend only on (seed, i). In float32 on a CPU, so does the image; in bfloat16 or on a GPU,
rounding varies with the batch size.
"""

import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nrcg.diffusion.steps import set_timesteps
from nrcg.errors import NrcgError
from nrcg.guidance import ClassifierGuidance, ValueGuidance
from nrcg.io.arrays import write_array
from nrcg.io.files import alone, fingerprint, read_card, require_writable, sha256, write_json
from nrcg.io.images import to_rgb, to_uint8
from nrcg.io.unfinished import in_batches
from nrcg.pipeline import GuidedPipeline
from nrcg.rng import keyed_generator
from nrcg.runtime.memory import BatchLimit
from nrcg.runtime.preemption import Stop

log = logging.getLogger("nrcg")


def sample_shard(
    out: str | Path,
    seeds: range,
    *,
    pipeline: GuidedPipeline,
    guidance: ClassifierGuidance | ValueGuidance | None,
    num_inference_steps: int,
    batch_size: int,
    seed: int,
    provenance: dict[str, Any],
    class_label: int | None = None,
    options: Mapping[str, Any] = {},
    stop: Stop | None = None,
) -> None:
    """Draw sample i of run `seed` for each i in `seeds`; write `out` (NAME.npy) and its card NAME.json.

    Grey samples are written as RGB; RGBA samples are composited on white. `class_label` is for a class-conditional
    U-Net; `options` are `eta`, `signal_leak` and `timesteps` of the pipeline.

    Until then, finished batches are kept in `NAME.unfinished`, keyed by `provenance`: the other inputs that determine
    the samples, as JSON, also written to the card. If two processes draw the same shard, the second waits and uses
    the result of the first. A `stop` abandons the running batch, which may take longer than a cluster waits.
    """
    out, asked = Path(out), stop or Stop()
    if not seeds:
        raise NrcgError(f"{out}: no seeds from {seeds.start} to {seeds.stop}")
    set_timesteps(pipeline.scheduler, num_inference_steps, options.get("timesteps"))
    require_writable(out)
    settings = {**provenance, "seed": seed, "num_inference_steps": num_inference_steps}
    folder, limit = out.with_suffix(".unfinished"), BatchLimit("sampling", batch_size)

    def wait(first: bool) -> None:
        if first:
            log.info("%s: waiting for another process that draws it", out)
        asked.check()

    def draw(batch: range) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with counted(pipeline.unet) as count:
            images, diverged = pipeline(
                batch_size=len(batch),
                generator=[keyed_generator("sampling", seed, i) for i in batch],  # on the CPU: the same on every device
                num_inference_steps=num_inference_steps,
                guidance=guidance,
                class_labels=class_label,
                **options,
                output_type="pt",
                return_dict=False,
                callback_on_step_end=lambda *_: asked.check(),
            )
        evaluations = torch.full((len(batch),), count["images"] / len(batch))
        return torch.from_numpy(to_uint8(to_rgb(images * 2 - 1))), diverged.cpu(), evaluations

    try:
        with alone(folder / "lock", wait) as waited:
            if not (waited and _is_made(out, seeds, settings)):
                pipeline.set_progress_bar_config(desc=out.stem, leave=False, unit="step")
                drawn = in_batches(draw, seeds, limit, folder / fingerprint(**settings), ("samples", "drawn"))
                _make(out, seeds, settings, drawn, pipeline.device)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        with suppress(OSError):  # not empty, unless something failed before the first batch
            folder.rmdir()


@contextmanager
def counted(unet: torch.nn.Module) -> Iterator[dict[str, int]]:
    """Count the images that pass through a U-Net: one for the forward pass, one more for a backward pass."""
    count = {"images": 0}

    def note(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        count["images"] += len(inputs[0]) * (2 if inputs[0].requires_grad and torch.is_grad_enabled() else 1)

    hook = unet.register_forward_pre_hook(note)
    try:
        yield count
    finally:
        hook.remove()


def _is_made(out: Path, seeds: range, settings: dict[str, Any]) -> bool:
    """Whether the shard exists, complete and with these settings."""
    place = out.with_suffix(".json")
    if not (out.is_file() and place.is_file()):
        return False
    card, wanted = read_card(place), {**settings, "seeds": [seeds.start, seeds.stop], "sha256": sha256(out)}
    return fingerprint(**{key: card.get(key) for key in wanted}) == fingerprint(**wanted)


def _make(out: Path, seeds: range, settings: dict, drawn: Iterable[tuple[range, Any]], device: torch.device) -> None:
    """Collect the batches as they are drawn; write the shard and its card."""
    started, batches = time.monotonic(), []
    with tqdm(total=len(seeds), desc=f"{out.parent.name}/{out.stem}", unit="image") as progress:
        for batch, images_and_flags in drawn:
            batches.append(images_and_flags)
            progress.update(len(batch))
    images, diverged, evaluations = (torch.cat(each).numpy() for each in zip(*batches, strict=True))
    write_array(out, images)
    card = {
        "seeds": [seeds.start, seeds.stop],
        "diverged": [seeds.start + int(i) for i in np.flatnonzero(diverged)],
        "sha256": sha256(out),
        **settings,
        "unet_evaluations": float(evaluations.mean().round(6)),
        "seconds": round(time.monotonic() - started, 1),
        "device": device.type,
        "torch": torch.__version__,
    }
    write_json(out.with_suffix(".json"), card)
