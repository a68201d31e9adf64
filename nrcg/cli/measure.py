"""Verbs that measure the forward process, sampling trajectories, and the scores of samples."""

import hashlib
import shutil
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from nrcg.cli import options
from nrcg.cli.networks import Guide, guide_of, open_samplers, tuned
from nrcg.cli.sample import GUIDANCE, MAX_SAMPLES, SCHEDULER
from nrcg.cli.slots import WithSlots
from nrcg.errors import NrcgError
from nrcg.registry import call
from nrcg.runtime.preemption import stop_on_signals

EXTRACTORS = 'JSON or @file.json: {NAME: {"extractor": "classifier", "weights": PATH or null}, …}.'
ALSO = 'Traces with other guidance, JSON or @file.json: {NPY: {"classifier": FOLDER, "scale": s, "guidance": {…}}, …}.'


@options.measure_verbs.command("forward")
def forward(
    data: options.Data,
    ddpm: options.Ddpm,
    classifier: Annotated[Path, Option(help="Classifier's folder.")],
    setups: Annotated[str, Option(help='JSON, or @file.json: {"raw": null, "smooth": {"ema": {"beta": 0.99}}}.')],
    out: options.Out,
    target: options.Target = "0",
    on: options.On = "xt",
    objective: Annotated[str, Option(help="Objective to analyse: log_prob, logit or one of a --module.")] = "log_prob",
    class_label: options.ClassLabel = None,
    images: Annotated[int, Option(help="Number of validation images; 0 means all.", min=0)] = 0,
    stride: Annotated[int, Option(help="Use every k-th t.", min=1)] = 1,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Accuracy, logit and gradient sensitivity of a classifier along the forward process (figures 1 to 4).

    After a signal (exit status 75) or a kill, the same command resumes from the finished batches.
    """
    where = options.set_up(device, threads)
    from nrcg.datasets.imageset import ImageSet
    from nrcg.evaluation.forward import forward_analysis
    from nrcg.guidance import stabilizer_from
    from nrcg.io.files import fingerprint, require_writable, write_text
    from nrcg.models.classifier import load_classifier, seeing
    from nrcg.models.ddpm import load_ddpm, takes_images
    from nrcg.speed import prepare

    require_writable(out)
    sections = options.parse_json(setups, "--setups")
    stabilizers = {name: stabilizer_from(section, f"--setups: {name}") for name, section in sections.items()}
    image_set = ImageSet.open(data)
    model, card = load_classifier(classifier, where)
    unet, scheduler = load_ddpm(ddpm, where)
    if card["classes"] != image_set.classes:
        own, other = ", ".join(card["classes"]), ", ".join(image_set.classes)
        raise NrcgError(f"{classifier}: classes {own}, but {data} has {other}; train a classifier on these images")
    chosen = image_set.indices("valid")[: images or None]
    pictures, labels = image_set.images[chosen], image_set.labels[chosen]
    size, wanted = image_set.card["size"], unet.config.sample_size
    if on == "x0" and wanted is not None and not takes_images(wanted, size):
        raise NrcgError(f"{ddpm}: for images of {wanted} pixels, but those of {data} have {size}; train one on these")
    channels = unet.config.in_channels
    how: dict[str, Any] = {"on": on, "objective": objective, "stride": stride, "seed": seed}
    inputs = [hashlib.sha256(pictures.tobytes()).hexdigest(), labels.tolist()]
    inputs += [options.network_digest(folder) for folder in (classifier, ddpm)]
    identity = fingerprint(**how, setups=sections, target=target, class_label=class_label, inputs=inputs)
    unfinished = out.with_suffix(".unfinished")
    with stop_on_signals() as stop:
        table = forward_analysis(
            pictures,
            prepare(seeing(model, channels)),
            labels=labels,
            channels=channels,
            class_label=class_label,
            target=options.parse_target(target, card["classes"]),
            unet=prepare(unet) if on == "x0" else None,
            scheduler=scheduler,
            setups=stabilizers,
            batch_size=batch_size,
            unfinished=unfinished / identity,
            stop=stop,
            **how,
        )
    write_text(out, table.to_csv(index=False))
    shutil.rmtree(unfinished)


@options.measure_verbs.command("trace", cls=WithSlots)
def trace(
    ddpm: options.Ddpm,
    out: Annotated[Path, Option("--out", help="NAME.npy for x̂_0 over time; NAME.csv and NAME.json beside it.")],
    num_inference_steps: Annotated[int, Option(help="Reverse steps.", min=1)],
    start: Annotated[int, Option(help="First sample.", min=0, max=MAX_SAMPLES)] = 0,
    stop: Annotated[int, Option(help="Last sample plus one.", min=1, max=MAX_SAMPLES)] = 16,
    classifier: Annotated[Path | None, Option(help="Guiding classifier's folder; default: unguided.")] = None,
    target: options.Target = "0",
    scale: Annotated[float | None, Option(help="Guidance scale s of eq. 1; needs --classifier.", min=0)] = None,
    guidance: Annotated[str, Option(help=GUIDANCE)] = "{}",
    also: Annotated[str, Option(help=ALSO)] = "{}",
    scheduler: Annotated[str, Option(help=SCHEDULER)] = "null",
    class_label: options.ClassLabel = None,
    precision: options.Precision = "fp32",
    frames: Annotated[int, Option(help="Number of steps with x̂_0 in the output.", min=1)] = 50,
    shown: Annotated[int, Option(help="Number of samples with x̂_0 in the output.", min=1)] = 8,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Gradients, clipping and x̂_0 at each step of the samples that `nrcg sample` would draw."""
    guides = {out: guide_of(classifier, scale, guidance)}
    for name, section in options.parse_json(also, "--also").items():
        if Path(name) in guides:
            raise NrcgError(f"--also: {name}: named before; use a separate file for each trace")
        guides[Path(name)] = call(Guide, f"--also: {name}", section, said=f"--also: {name}")
    for path in guides:
        if path.suffix != ".npy":
            raise NrcgError(f"{path}: not a NumPy file name; use {path.parent / path.stem}.npy")
    where = options.set_up(device, threads)
    from nrcg.evaluation.traces import trace_shard

    opened = open_samplers(ddpm, scheduler, [*guides.values()], target, class_label, precision, where)
    how: dict[str, Any] = {"num_inference_steps": num_inference_steps, "batch_size": batch_size, "seed": seed}
    for path, sampler in zip(guides, opened, strict=True):
        trace_shard(path, range(start, stop), n_frames=frames, n_shown=shown, **how, **sampler._asdict())


@options.measure_verbs.command("scale", cls=WithSlots)
def scale(
    ddpm: options.Ddpm,
    classifier: Annotated[Path, Option(help="Guiding classifier's folder.")],
    judge: Annotated[Path, Option(help="Folder of the judge, an independent classifier.")],
    reference: Annotated[Path, Option(help="The extractor's features of the images, from `measure reference` (.npz).")],
    out: options.Out,
    num_inference_steps: Annotated[int, Option(help="Reverse steps.", min=1)],
    target: options.Target = "0",
    guidance: Annotated[str, Option(help=GUIDANCE)] = "{}",
    scheduler: Annotated[str, Option(help=SCHEDULER)] = "null",
    class_label: options.ClassLabel = None,
    precision: options.Precision = "fp32",
    extractor: Annotated[str, Option(help="Features of the distance; classifier means the judge's.")] = "classifier",
    weights: Annotated[Path | None, Option(help="Weights of the extractor, as in `measure reference`.")] = None,
    first: Annotated[float, Option(help="First scale to try.", min=1e-6)] = 1.0,
    samples: Annotated[int, Option(help="Samples per trial.", min=2)] = 48,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Search for a guidance scale on separate samples; write the trials to a CSV file, print a grid of scales."""
    where = options.set_up(device, threads)
    guides = [guide_of(classifier, 1.0, guidance)]
    (opened,) = open_samplers(ddpm, scheduler, guides, target, class_label, precision, where)
    search = judge, extractor, weights, reference, out
    tuned(opened, *search, num_inference_steps, batch_size, seed, samples, first)


@options.measure_verbs.command("grids")
def grids(
    trials: Annotated[list[str], Argument(help="DATASET:SETUP=CSV from `nrcg measure scale`.")],
    out: options.Out,
    best: Annotated[Path | None, Option(help="Second overlay, with the best scale of each setup alone.")] = None,
) -> None:
    """Write a config overlay with the scales that were found and a note on the samples used."""
    from nrcg.evaluation.scale_search import overlay
    from nrcg.io.files import write_text

    named = {}
    for text in trials:
        name, path = options.split_pair(text, "trials")
        dataset, _, setup = name.partition(":")
        named[dataset, setup] = path
    write_text(out, overlay(named))
    if best:
        write_text(best, overlay(named, sweep=False))


@options.measure_verbs.command("curves")
def select_curves(
    tables: Annotated[list[Path], Argument(help="CSV files from `nrcg measure forward`.")],
    metric: Annotated[list[str], Option(help="The figure's metric, then optional others; can be repeated.")],
    setup: Annotated[list[str], Option(help="Setup to include; repeat for more, in order.")],
    out: options.Out,
) -> None:
    """Collect the curves of one figure in one CSV file."""
    from nrcg.io import tables as io

    io.write_table(out, io.select_curves(tables, metric, setup))


@options.measure_verbs.command("reference")
def reference(
    data: options.Data,
    extractor: Annotated[str, Option(help="inception, classifier (last features), or one of a --module.")],
    target: Annotated[str, Option(help="Target class: name or index.")],
    out: options.Out,
    weights: Annotated[Path | None, Option(help="Inception's .pth file, a classifier's folder, …")] = None,
    images: Annotated[int, Option(help="Number of training images, chosen at random; 0 means all.", min=0)] = 0,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Features (.npz) of the training images, all and of the target class, for comparison with samples."""
    where = options.set_up(device, threads)
    from nrcg.datasets.imageset import ImageSet
    from nrcg.evaluation.extractors import extractors
    from nrcg.evaluation.features import reference as look_at_images
    from nrcg.io.files import require_writable

    require_writable(out)
    label = options.parse_target(target, ImageSet.open(data, verify=False).classes)
    network = extractors[extractor](weights, where)
    look_at_images(data, network, target=label, images=images, batch_size=batch_size).save(out)


@options.measure_verbs.command("features")
def features(
    guiding: Annotated[Path, Option(help="Folder of the guiding classifier, for the paper's accuracy.")],
    judge: Annotated[Path, Option(help="Folder of the judge, an independent classifier.")],
    extractors: Annotated[str, Option(help=EXTRACTORS)],
    verdicts: Annotated[Path, Option(help="Output CSV file: the class of each sample by each classifier.")],
    out: Annotated[Path, Option("--out", help="Output folder for one EXTRACTOR.npy per extractor.")],
    shards: Annotated[list[Path] | None, Argument(help="Sample shards (.npy) of one point.")] = None,
    data: Annotated[Path | None, Option(help="Image set whose validation images replace the shards.")] = None,
    images: Annotated[int, Option(help="With --data: number of images of the target class.", min=2)] = 256,
    target: options.Target = "0",
    also: Annotated[list[str] | None, Option(help="NAME=FOLDER of another classifier; can be repeated.")] = None,
    first: Annotated[Path | None, Option(help="Output shard NAME.npy: the first samples, for pictures.")] = None,
    n_first: Annotated[int, Option(help="Largest number of samples in --first.", min=1)] = 256,
    first_seed: Annotated[int, Option(help="First seed in --first.", min=0)] = 0,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Classify the samples of one point (data set, setup, scale) and extract their features."""
    where = options.set_up(device, threads)
    from nrcg.evaluation import extractors as networks
    from nrcg.evaluation.features import held_out, look
    from nrcg.io.files import require_writable, write_text
    from nrcg.io.shards import keep_first, open_shards, verify
    from nrcg.models.classifier import load_classifier

    if bool(shards) == (data is not None):
        raise NrcgError("measure features: give either sample shards or --data")
    for path in filter(None, (verdicts, first)):
        require_writable(path)
    sections = options.parse_json(extractors, "--extractors")
    others = dict(options.split_pair(pair, "--also") for pair in also or ())
    judges = load_classifier(judge, where)
    if data is None:
        verify(shards or ())
        samples = open_shards(shards or ())
    else:
        samples = [held_out(data, images, options.parse_target(target, judges[1]["classes"]))]
    found = look(
        samples,
        guiding=load_classifier(guiding, where),
        judge=judges,
        extractors={name: networks.load_extractor(name, section, where) for name, section in sections.items()},
        out=out,
        also={name: load_classifier(folder, where) for name, folder in others.items()},
        batch_size=batch_size,
        device=where,
    )
    if first:
        keep_first(shards or (), first, n_first, first_seed)
    write_text(verdicts, found.to_csv(index=False))
