"""What a verb that samples opens: its networks, made fast, the guidance, and what of both a card tells."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nrcg.cli import options
from nrcg.errors import NrcgError

if TYPE_CHECKING:
    import torch

    from nrcg.guidance import ClassifierGuidance
    from nrcg.pipeline import GuidedPipeline


class Sampler(NamedTuple):
    """A pipeline, its guidance, if any, and what decides its samples besides the seed and the number of steps."""

    pipeline: "GuidedPipeline"
    guidance: "ClassifierGuidance | None"
    eta: float  # of a DDIM
    class_label: int | None
    provenance: dict[str, Any]


def open_sampler(
    ddpm: str, scheduler: str, classifier: Path | None, target: str, scale: float | None, guidance: str,
    class_label: int | None, precision: str, where: "torch.device", compile: bool = False,
) -> Sampler:  # fmt: skip
    """What the options of `nrcg sample` of these names stand for."""
    from nrcg.guidance import guidance_from
    from nrcg.models.classifier import load_classifier, seeing
    from nrcg.models.ddpm import load_ddpm, sampling_scheduler, takes_images
    from nrcg.pipeline import GuidedPipeline
    from nrcg.speed import prepare

    section = options.parse_json(guidance, "--guidance")
    if (classifier is None) != (scale is None) or (section and classifier is None):
        raise NrcgError("--classifier and --scale: give both for guided samples, neither for unguided ones")
    ready = partial(prepare, precision=precision, compile=compile)
    provenance: dict[str, Any] = {"ddpm": ddpm, "ddpm_digest": options.network_digest(ddpm), "precision": precision}
    how = None
    unet, trained = load_ddpm(ddpm, where)
    stated = options.parse_any_json(scheduler, "--scheduler")
    sampler, eta = sampling_scheduler(trained, stated)
    provenance |= {} if stated is None else {"scheduler": stated}
    if classifier and scale is not None:
        model, card = load_classifier(classifier, where)
        model = ready(seeing(model, unet.config.in_channels))
        how = guidance_from(section, model, options.parse_target(target, card["classes"]), scale, "--guidance")
        provenance |= {"classifier": str(classifier), "classifier_digest": options.network_digest(classifier)}
        provenance |= {"target": target, "scale": scale, "guidance": section}
    provenance |= {} if class_label is None else {"class_label": class_label}
    size = unet.config.sample_size
    if classifier and "size" in card and not takes_images(size, card["size"]):
        raise NrcgError(f"{classifier}: trained on images of {card['size']} pixels, but {ddpm} draws {size}")
    return Sampler(GuidedPipeline(unet=ready(unet), scheduler=sampler), how, eta, class_label, provenance)


def tuned(
    opened: Sampler, judge: Path, reference: Path, out: Path, num_inference_steps: int, batch_size: int, seed: int,
    samples: int = 48, start: float = 1.0,
) -> Sampler:  # fmt: skip
    """The same with the scale that a search finds; its trials are written to `out`."""
    from nrcg.evaluation.scale_search import best, grid, search, table
    from nrcg.io.files import require_writable, write_text

    require_writable(out)
    how: dict[str, Any] = {"judge": judge, "reference": reference, "seed": seed, "n": samples, "start": start}
    how |= {"batch_size": batch_size, "num_inference_steps": num_inference_steps}
    guidance: Any = opened.guidance
    trials = search(opened.pipeline, guidance, eta=opened.eta, class_labels=opened.class_label, **how)
    write_text(out, table(trials).to_csv(index=False))
    scale = best(trials).scale
    print(f"scale {scale:g}, of the trials in {out}; for a sweep: {grid(trials)}")
    provenance = {**opened.provenance, "scale": scale}
    return opened._replace(guidance=replace(guidance, scale=scale), provenance=provenance)
