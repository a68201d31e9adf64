"""The verb that draws samples."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from nrcg.cli import options
from nrcg.cli.slots import WithSlots
from nrcg.errors import NrcgError
from nrcg.runtime.preemption import stop_on_signals

MAX_SAMPLES = 10**12  # more than any disk holds
GUIDANCE = 'Arguments of ClassifierGuidance, JSON or @file.json: {"on": "x0", "stabilizer": {"ema": {"beta": 0.99}}}.'
SCHEDULER = 'Scheduler of diffusers, JSON: "DDIMScheduler" or {"DDIMScheduler": {"eta": 1}}; null is the DDPM\'s.'


@options.app.command(cls=WithSlots)
def sample(
    ddpm: options.Ddpm,
    out: Annotated[Path, Option("--out", help="Shard to write: NAME.npy, with its card NAME.json beside it.")],
    start: Annotated[int, Option(help="First sample of the shard.", min=0, max=MAX_SAMPLES)],
    stop: Annotated[int, Option(help="Sample after the last.", min=1, max=MAX_SAMPLES)],
    num_inference_steps: Annotated[int, Option(help="Reverse steps.", min=1)],
    classifier: Annotated[Path | None, Option(help="Guiding classifier's folder; without it, unguided.")] = None,
    target: options.Target = "0",
    scale: Annotated[float | None, Option(help="Guidance scale s of eq. 1; needs --classifier.", min=0)] = None,
    guidance: Annotated[str, Option(help=GUIDANCE)] = "{}",
    scheduler: Annotated[str, Option(help=SCHEDULER)] = "null",
    class_label: options.ClassLabel = None,
    precision: Annotated[str, Option(help="Inside the networks: fp32 or bf16.")] = "fp32",
    compile: Annotated[bool, Option(help="Compile the networks where it pays: long work on CUDA.")] = True,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Draw a shard of samples, guided or not; the random draws of sample i depend on (seed, i) alone.

    Continues with the batches it has after a signal (exit status 75) or a kill.
    """
    if out.suffix != ".npy":
        raise NrcgError(f"--out {out}: a shard is a NumPy file; name it {out.parent / out.stem}.npy")
    section = options.parse_json(guidance, "--guidance")
    if (classifier is None) != (scale is None) or (section and classifier is None):
        raise NrcgError("--classifier and --scale: give both for guided samples, neither for unguided ones")
    where = options.set_up(device, threads)
    from nrcg.guidance import guidance_from
    from nrcg.models.classifier import load_classifier, seeing
    from nrcg.models.ddpm import load_ddpm, sampling_scheduler, takes_images
    from nrcg.pipeline import GuidedPipeline
    from nrcg.sampling import sample_shard
    from nrcg.speed import prepare, worth_compiling

    pays = worth_compiling((stop - start) * num_inference_steps, where)
    ready = partial(prepare, precision=precision, compile=compile and pays)
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
    pipeline = GuidedPipeline(unet=ready(unet), scheduler=sampler)
    run: dict[str, Any] = {"num_inference_steps": num_inference_steps, "batch_size": batch_size, "seed": seed}
    run |= {"class_label": class_label, "eta": eta}
    with stop_on_signals() as asked:
        sample_shard(out, range(start, stop), pipeline=pipeline, guidance=how, provenance=provenance, stop=asked, **run)
