"""Verbs that measure: the forward process, samples on their way, and their scores."""

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
from nrcg.evaluation.metrics import metrics
from nrcg.registry import call
from nrcg.runtime.preemption import stop_on_signals

EXTRACTORS = 'JSON or @file.json: {NAME: {"extractor": "classifier", "weights": PATH or null}, …}.'
ALSO = 'Traces of other guidance, JSON or @file.json: {NPY: {"classifier": FOLDER, "scale": s, "guidance": {…}}, …}.'


@options.measure_verbs.command("forward")
def forward(
    data: options.Data,
    ddpm: options.Ddpm,
    classifier: Annotated[Path, Option(help="Classifier's folder.")],
    setups: Annotated[str, Option(help='JSON, or @file.json: {"raw": null, "smooth": {"ema": {"beta": 0.99}}}.')],
    out: options.Out,
    target: options.Target = "0",
    on: options.On = "xt",
    objective: Annotated[str, Option(help="Its gradient is analysed: log_prob, logit or one of yours.")] = "log_prob",
    class_label: options.ClassLabel = None,
    images: Annotated[int, Option(help="Validation images to use; 0 is all.", min=0)] = 0,
    stride: Annotated[int, Option(help="Visit every k-th t.", min=1)] = 1,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Accuracy, logit and gradient sensitivity of a classifier along the forward process (figures 1 to 4).

    Continues with the batches it has after a signal (exit status 75) or a kill.
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
        raise NrcgError(f"{classifier}: its classes are {own}, those of {data} {other}; train one on these images")
    chosen = image_set.indices("valid")[: images or None]
    pictures, labels = image_set.images[chosen], image_set.labels[chosen]
    size, wanted = image_set.card["size"], unet.config.sample_size
    if on == "x0" and wanted is not None and not takes_images(wanted, size):
        raise NrcgError(f"{ddpm}: its U-Net draws {wanted} pixels, but {data} has images of {size}; train one on these")
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
    out: Annotated[Path, Option("--out", help="NAME.npy: x̂_0 on the way; NAME.csv and NAME.json go beside it.")],
    num_inference_steps: Annotated[int, Option(help="Reverse steps.", min=1)],
    start: Annotated[int, Option(help="First sample.", min=0, max=MAX_SAMPLES)] = 0,
    stop: Annotated[int, Option(help="Sample after the last.", min=1, max=MAX_SAMPLES)] = 16,
    classifier: Annotated[Path | None, Option(help="Guiding classifier's folder; without it, unguided.")] = None,
    target: options.Target = "0",
    scale: Annotated[float | None, Option(help="Guidance scale s of eq. 1; needs --classifier.", min=0)] = None,
    guidance: Annotated[str, Option(help=GUIDANCE)] = "{}",
    also: Annotated[str, Option(help=ALSO)] = "{}",
    scheduler: Annotated[str, Option(help=SCHEDULER)] = "null",
    class_label: options.ClassLabel = None,
    precision: options.Precision = "fp32",
    frames: Annotated[int, Option(help="Steps whose x̂_0 is kept.", min=1)] = 50,
    shown: Annotated[int, Option(help="Samples whose x̂_0 is kept.", min=1)] = 8,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Gradients, clipping and x̂_0 at each step of samples, those that `nrcg sample` draws."""
    guides = {out: guide_of(classifier, scale, guidance)}
    for name, section in options.parse_json(also, "--also").items():
        if Path(name) in guides:
            raise NrcgError(f"--also: {name}: named before; give each trace a file of its own")
        guides[Path(name)] = call(Guide, f"--also: {name}", section, said=f"--also: {name}")
    for path in guides:
        if path.suffix != ".npy":
            raise NrcgError(f"{path}: frames are a NumPy file; name it {path.parent / path.stem}.npy")
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
    judge: Annotated[Path, Option(help="Folder of the judge, which does not guide.")],
    reference: Annotated[Path, Option(help="The judge's features of the images, by `measure reference` (.npz).")],
    out: options.Out,
    num_inference_steps: Annotated[int, Option(help="Reverse steps.", min=1)],
    target: options.Target = "0",
    guidance: Annotated[str, Option(help=GUIDANCE)] = "{}",
    scheduler: Annotated[str, Option(help=SCHEDULER)] = "null",
    class_label: options.ClassLabel = None,
    precision: options.Precision = "fp32",
    first: Annotated[float, Option(help="Scale to begin with.", min=1e-6)] = 1.0,
    samples: Annotated[int, Option(help="Samples per trial.", min=2)] = 48,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Search for a guidance scale on samples that no point reports; write the trials as a CSV file, print a grid."""
    where = options.set_up(device, threads)
    guides = [guide_of(classifier, 1.0, guidance)]
    (opened,) = open_samplers(ddpm, scheduler, guides, target, class_label, precision, where)
    tuned(opened, judge, reference, out, num_inference_steps, batch_size, seed, samples, first)


@options.measure_verbs.command("grids")
def grids(
    trials: Annotated[list[str], Argument(help="DATASET:SETUP=CSV of `nrcg measure scale`.")],
    out: options.Out,
) -> None:
    """Write an overlay of the config with the scales that were found, and a note that says on which samples."""
    from nrcg.evaluation.scale_search import overlay
    from nrcg.io.files import write_text

    named = {}
    for text in trials:
        name, path = options.split_pair(text, "trials")
        dataset, _, setup = name.partition(":")
        named[dataset, setup] = path
    write_text(out, overlay(named))


@options.measure_verbs.command("curves")
def select_curves(
    tables: Annotated[list[Path], Argument(help="CSV files of `nrcg measure forward`.")],
    metric: Annotated[list[str], Option(help="The figure's metric, then others to take where measured; repeat.")],
    setup: Annotated[list[str], Option(help="Curves to take, in order; repeat the option.")],
    out: options.Out,
) -> None:
    """Gather the curves of one figure in one CSV file."""
    from nrcg.io import tables as io

    io.write_table(out, io.select_curves(tables, metric, setup))


@options.measure_verbs.command("reference")
def reference(
    data: options.Data,
    extractor: Annotated[str, Option(help="inception, classifier (its last features), or one of a --module.")],
    target: Annotated[str, Option(help="Target class: its name or index.")],
    out: options.Out,
    weights: Annotated[Path | None, Option(help="Inception's .pth file, a classifier's folder, …")] = None,
    images: Annotated[int, Option(help="Training images to use, drawn at random; 0 is all.", min=0)] = 0,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Features of the training images, of all classes and of the target class, to which samples are compared (.npz)."""
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
    guiding: Annotated[Path, Option(help="Folder of the classifier whose verdict is the paper's accuracy.")],
    judge: Annotated[Path, Option(help="Folder of the judge, which never guided.")],
    extractors: Annotated[str, Option(help=EXTRACTORS)],
    verdicts: Annotated[Path, Option(help="CSV file to write: what class each classifier gives to each sample.")],
    out: Annotated[Path, Option("--out", help="Folder to write: EXTRACTOR.npy of each extractor.")],
    shards: Annotated[list[Path] | None, Argument(help="Sample shards (.npy) of one point.")] = None,
    data: Annotated[Path | None, Option(help="In place of shards: an image set, its validation images.")] = None,
    images: Annotated[int, Option(help="Number of these, of the target class.", min=2)] = 256,
    target: options.Target = "0",
    also: Annotated[list[str] | None, Option(help="NAME=FOLDER of another classifier; repeat.")] = None,
    first: Annotated[Path | None, Option(help="Shard to write, NAME.npy: samples for pictures.")] = None,
    n_first: Annotated[int, Option(help="Number of samples in it, at most.", min=1)] = 256,
    first_seed: Annotated[int, Option(help="Seed of the first of them.", min=0)] = 0,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Show the samples of one point (data set, setup, scale) to classifiers and feature extractors."""
    where = options.set_up(device, threads)
    from nrcg.evaluation import extractors as networks
    from nrcg.evaluation.features import held_out, look
    from nrcg.io.files import require_writable, write_text
    from nrcg.io.shards import keep_first, open_shards, verify
    from nrcg.models.classifier import load_classifier

    if bool(shards) == (data is not None):
        raise NrcgError("measure features: give sample shards, or --data in their place")
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


@options.measure_verbs.command("score")
def score(
    verdicts: Annotated[Path, Option(help="CSV file of `nrcg measure features`.")],
    features: Annotated[list[str], Option(help="EXTRACTOR=NPY of `nrcg measure features`; repeat.")],
    reference: Annotated[list[str], Option(help="EXTRACTOR=NPZ of `nrcg measure reference`; repeat.")],
    judge: Annotated[Path, Option(help="Folder of the judge, whose card names the classes.")],
    metric: Annotated[list[str], Option(help="Metric of features; repeat. Known: " + ", ".join(metrics) + ".")],
    out: options.Out,
    scale: Annotated[float | None, Option(help="Guidance scale of the samples; without it, unguided.", min=0)] = None,
    card: Annotated[Path | None, Option(help="Card of the samples, which counts U-Net evaluations.")] = None,
    target: options.Target = "0",
    tuning: Annotated[int, Option(help="Samples of seeds below it choose scales, and are not reported.", min=0)] = 0,
) -> None:
    """Shares and distances of the samples of a point, with 95 % intervals."""
    from nrcg.evaluation import score as scores
    from nrcg.evaluation.reference import Reference
    from nrcg.io.files import read_card, require_writable
    from nrcg.io.tables import SCORE_COLUMNS, write_table

    require_writable(out)
    classes = read_card(judge / "card.json", classes=list)["classes"]
    pairs = {key: dict(options.split_pair(each, f"--{key}") for each in given)
             for key, given in {"features": features, "reference": reference}.items()}  # fmt: skip
    how: dict[str, Any] = {"target": classes[options.parse_target(target, classes)], "classes": classes}
    how |= {"chosen": metric, "tuning": tuning}
    how["references"] = {name: Reference.load(path) for name, path in pairs["reference"].items()}
    point = scores.read_point(verdicts, pairs["features"], card)
    write_table(out, scores.score(point, **how).assign(scale=scale)[["scale", *SCORE_COLUMNS]])


@options.measure_verbs.command("collect")
def collect_scores(
    out: options.Out,
    scores: Annotated[list[str] | None, Option(help="DATASET:SETUP:TRAINING=CSV of `measure score`; repeat.")] = None,
    given: Annotated[str | None, Option(help="DATASET=CSV: take its rows from what this verb wrote before.")] = None,
) -> None:
    """Join the scores of all setups in one CSV file, or take those that are given."""
    from nrcg.evaluation import points
    from nrcg.io.tables import write_table

    if bool(scores) == (given is not None):
        raise NrcgError("collect: give --scores for each setup, or --given alone")
    if given is not None:
        dataset, path = options.split_pair(given, "--given")
        write_table(out, points.read_scores(path, dataset))
        return
    parts = []
    for name, path in (options.split_pair(text, "--scores") for text in scores or ()):
        try:
            dataset, setup, repeat = name.split(":")
            parts.append((dataset, setup, int(repeat), path))
        except ValueError:
            raise NrcgError(f"--scores {name!r}: write DATASET:SETUP:TRAINING=CSV, the training a number") from None
    write_table(out, points.collect_scores(parts))
