"""Networks and guidance of the verbs that sample, opened from their options, with provenance for the cards."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from nrcg.checks import NAME, check_fields, number
from nrcg.cli import options
from nrcg.errors import NrcgError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nrcg.guidance import ClassifierGuidance
    from nrcg.pipeline import GuidedPipeline


class Sampler(NamedTuple):
    """A pipeline, its guidance (if any), and the inputs besides seed and steps that determine its samples."""

    pipeline: "GuidedPipeline"
    guidance: "ClassifierGuidance | None"
    options: dict[str, Any]  # `eta`, `signal_leak` and `timesteps` of the pipeline
    class_label: int | None
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Guide:
    """Guidance as given by options or JSON; `said` names the option in errors."""

    classifier: Annotated[str, NAME]
    scale: Annotated[float, number(0)]
    guidance: dict[str, Any] = field(default_factory=dict)
    said: str = "--guidance"

    def __post_init__(self) -> None:
        check_fields(self.said, self)


def guide_of(classifier: Path | None, scale: float | None, guidance: str) -> Guide | None:
    """The guide given by these options of `nrcg sample`; None for unguided samples."""
    section = options.parse_json(guidance, "--guidance")
    if (classifier is None) != (scale is None) or (section and classifier is None):
        raise NrcgError("--classifier and --scale: give both for guided samples, neither for unguided ones")
    return None if classifier is None or scale is None else Guide(str(classifier), scale, section)


def open_samplers(
    ddpm: str, scheduler: str, guides: Sequence[Guide | None], target: str, class_label: int | None, precision: str,
    where: "torch.device", compile: bool = False,
) -> list[Sampler]:  # fmt: skip
    """One sampler per guide, from the options of `nrcg sample`; each network is loaded once."""
    from nrcg.guidance import guidance_from
    from nrcg.models.classifier import load_classifier, seeing
    from nrcg.models.ddpm import load_ddpm, sampling_scheduler, takes_images
    from nrcg.pipeline import GuidedPipeline
    from nrcg.speed import native_precision, prepare

    precision = native_precision(where) if precision == "auto" else precision
    ready = partial(prepare, precision=precision, compile=compile)
    unet, trained = load_ddpm(ddpm, where)
    stated = options.parse_any_json(scheduler, "--scheduler")
    sampler, run = sampling_scheduler(trained, stated)
    common: dict[str, Any] = {"ddpm": ddpm, "ddpm_digest": options.network_digest(ddpm), "precision": precision}
    common |= {} if stated is None else {"scheduler": stated}
    common |= {} if class_label is None else {"class_label": class_label}
    pipeline, size = GuidedPipeline(unet=ready(unet), scheduler=sampler), unet.config.sample_size

    @cache
    def opened(folder: str) -> tuple["nn.Module", dict[str, Any], str]:
        model, card = load_classifier(folder, where)
        return ready(seeing(model, unet.config.in_channels)), card, options.network_digest(folder)

    def guided(guide: Guide | None) -> Sampler:
        if guide is None:
            return Sampler(pipeline, None, run, class_label, common)
        model, card, digest = opened(guide.classifier)
        index = options.parse_target(target, card["classes"])
        how = guidance_from(guide.guidance, model, index, guide.scale, guide.said)
        if "size" in card and not takes_images(size, card["size"]):
            raise NrcgError(f"{guide.classifier}: for images of {card['size']} pixels, but those of {ddpm} have {size}")
        own: dict[str, Any] = {"classifier": guide.classifier, "classifier_digest": digest, "target": target}
        own |= {"scale": guide.scale, "guidance": guide.guidance}
        return Sampler(pipeline, how, run, class_label, common | own)

    return [guided(guide) for guide in guides]


def tuned(
    opened: Sampler, judge: Path, extractor: str, weights: Path | None, reference: Path, out: Path,
    num_inference_steps: int, batch_size: int, seed: int, samples: int = 48, start: float = 1.0,
) -> Sampler:  # fmt: skip
    """The sampler with the scale found by a search; writes the trials to `out`."""
    from nrcg.evaluation.extractors import extractors
    from nrcg.evaluation.scale_search import best, grid, search, table
    from nrcg.io.files import require_writable, write_text

    require_writable(out)
    network = extractors[extractor](weights or (judge if extractor == "classifier" else None), opened.pipeline.device)
    how: dict[str, Any] = {"judge": judge, "extractor": network, "reference": reference, "seed": seed, "n": samples}
    how |= {"start": start, "batch_size": batch_size, "num_inference_steps": num_inference_steps}
    guidance: Any = opened.guidance
    trials = search(opened.pipeline, guidance, class_labels=opened.class_label, **opened.options, **how)
    write_text(out, table(trials).to_csv(index=False))
    scale = best(trials).scale
    print(f"scale {scale:g} (trials: {out}); scales for a sweep: {grid(trials)}")
    provenance = {**opened.provenance, "scale": scale}
    return opened._replace(guidance=replace(guidance, scale=scale), provenance=provenance)
