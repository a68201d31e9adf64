"""Verbs that measure: the forward process, and the scores of samples."""

import hashlib
import shutil
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from nrcg.cli.options import (
    BatchSize,
    Data,
    Ddpm,
    Device,
    On,
    Out,
    Seed,
    Target,
    Threads,
    measure_verbs,
    network_digest,
    parse_json,
    parse_target,
    set_up,
    split_pair,
)
from nrcg.errors import NrcgError
from nrcg.runtime.preemption import stop_on_signals


@measure_verbs.command("forward")
def forward(
    data: Data,
    ddpm: Ddpm,
    classifier: Annotated[Path, Option(help="Classifier's folder.")],
    setups: Annotated[str, Option(help='JSON, or @file.json: {"raw": null, "smooth": {"ema": {"beta": 0.99}}}.')],
    out: Out,
    target: Target = "0",
    on: On = "xt",
    objective: Annotated[str, Option(help="Its gradient is analysed: log_prob, logit or one of yours.")] = "log_prob",
    images: Annotated[int, Option(help="Validation images to use; 0 is all.", min=0)] = 0,
    stride: Annotated[int, Option(help="Visit every k-th t.", min=1)] = 1,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Accuracy, logit and gradient sensitivity of a classifier along the forward process (figures 1 to 4).

    Continues with the batches it has after a signal (exit status 75) or a kill.
    """
    where = set_up(device, threads)
    from nrcg.datasets.imageset import ImageSet
    from nrcg.evaluation.forward import forward_analysis
    from nrcg.guidance import stabilizer_from
    from nrcg.io.files import fingerprint, require_writable, write_text
    from nrcg.models.classifier import load_classifier
    from nrcg.models.ddpm import load_ddpm, takes_images
    from nrcg.speed import prepare

    require_writable(out)
    sections = parse_json(setups, "--setups")
    stabilizers = {name: stabilizer_from(section, f"--setups: {name}") for name, section in sections.items()}
    image_set = ImageSet.open(data)
    model, card = load_classifier(classifier, where)
    unet, scheduler = load_ddpm(ddpm, where)
    if card["classes"] != image_set.classes:
        raise NrcgError(
            f"{classifier}: its classes are {', '.join(card['classes'])}, those of {data} "
            f"{', '.join(image_set.classes)}; name a classifier that was trained on these images"
        )
    chosen = image_set.indices("valid")[: images or None]
    pictures, labels = image_set.images[chosen], image_set.labels[chosen]
    size, expected = pictures.shape[1], unet.config.sample_size
    if on == "x0" and expected is not None and not takes_images(expected, size):
        raise NrcgError(
            f"{ddpm}: its U-Net is for images of {expected} pixels, but those of {data} have {size}; "
            "name a DDPM that was trained on these"
        )
    settings = fingerprint(
        setups=sections,
        target=target,
        on=on,
        objective=objective,
        stride=stride,
        seed=seed,
        inputs=[
            hashlib.sha256(pictures.tobytes()).hexdigest(),
            labels.tolist(),
            network_digest(classifier),
            network_digest(ddpm),
        ],
    )
    parts = out.with_suffix(".parts")
    with stop_on_signals() as stop:
        table = forward_analysis(
            pictures,
            prepare(model),
            labels=labels,
            target=parse_target(target, card["classes"]),
            unet=prepare(unet) if on == "x0" else None,
            scheduler=scheduler,
            on=on,
            objective=objective,
            setups=stabilizers,
            seed=seed,
            batch_size=batch_size,
            stride=stride,
            parts=parts / settings,
            stop=stop,
        )
    write_text(out, table.to_csv(index=False))
    shutil.rmtree(parts)


@measure_verbs.command("curves")
def select_curves(
    tables: Annotated[list[Path], Argument(help="CSV files of `nrcg measure forward`.")],
    metric: Annotated[list[str], Option(help="The figure's metric, then others to take where measured; repeat.")],
    setup: Annotated[list[str], Option(help="Curves to take, in order; repeat the option.")],
    out: Out,
) -> None:
    """Gather the curves of one figure in one CSV file."""
    from nrcg.io.tables import select_curves as select
    from nrcg.io.tables import write_table

    write_table(out, select(tables, metric, setup))


@measure_verbs.command("reference")
def reference(
    data: Data,
    extractor: Annotated[str, Option(help="inception, judge, or one of a --module.")],
    out: Out,
    weights: Annotated[Path | None, Option(help="Inception's .pth file, the judge's folder, …")] = None,
    target: Annotated[str | None, Option(help="Class (name or index); without it, all training images.")] = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Feature statistics of the training images, to which samples are compared."""
    where = set_up(device, threads)
    from nrcg.datasets.imageset import ImageSet
    from nrcg.evaluation.extractors import extractors
    from nrcg.evaluation.score import reference_statistics
    from nrcg.io.files import require_writable

    require_writable(out)
    label = None if target is None else parse_target(target, ImageSet.open(data, verify=False).classes)
    network = extractors[extractor](weights, where)
    reference_statistics(data, network, target=label, batch_size=batch_size).save(out)


@measure_verbs.command("score")
def score(
    shards: Annotated[list[Path], Argument(help="Sample shards (.npy) of one point.")],
    guiding: Annotated[Path, Option(help="Folder of the classifier whose verdict is the paper's accuracy.")],
    judge: Annotated[Path, Option(help="Folder of the judge, which never guided.")],
    references: Annotated[
        str,
        Option(help='JSON or @file.json: {EXTRACTOR: {"weights": PATH or null, "all": NPZ, "target": NPZ}, …}.'),
    ],
    verdicts: Annotated[Path, Option(help="CSV file to write: the class that each classifier gives to each sample.")],
    out: Out,
    also: Annotated[
        list[str] | None, Option(help="NAME=FOLDER, another classifier: adds the metric accuracy/NAME; repeat.")
    ] = None,
    first: Annotated[Path | None, Option(help="Shard to write, NAME.npy: the first samples, for pictures.")] = None,
    n_first: Annotated[int, Option(help="Number of samples in it, at most.", min=1)] = 256,
    target: Target = "0",
    batch_size: BatchSize = 64,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Accuracies and distances of the samples of one point (data set, setup, scale)."""
    where = set_up(device, threads)
    from nrcg.evaluation.score import load_reference
    from nrcg.evaluation.score import score as score_shards
    from nrcg.io.files import require_writable, write_text
    from nrcg.io.shards import keep_first
    from nrcg.io.tables import write_table
    from nrcg.models.classifier import load_classifier

    for path in filter(None, (out, verdicts, first)):
        require_writable(path)
    sections = parse_json(references, "--references")
    judge_model = load_classifier(judge, where)
    scores = score_shards(
        shards,
        target=parse_target(target, judge_model[1]["classes"]),
        guiding=load_classifier(guiding, where),
        judge=judge_model,
        references={name: load_reference(name, section, where) for name, section in sections.items()},
        also={name: load_classifier(path, where) for name, path in (split_pair(pair, "--also") for pair in also or [])},
        batch_size=batch_size,
        device=where,
    )
    if first:
        keep_first(shards, first, n_first)
    write_text(verdicts, scores.verdicts.to_csv(index=False))
    write_table(out, scores.metrics)


@measure_verbs.command("collect")
def collect_scores(
    out: Out,
    point: Annotated[
        list[str] | None, Option(help="DATASET:SETUP:SCALE=CSV, SCALE - where there is none; repeat.")
    ] = None,
    given: Annotated[str | None, Option(help="DATASET=CSV: take its rows from what this verb wrote before.")] = None,
) -> None:
    """Join the scores of many points in one CSV file, or take those that are given."""
    from nrcg.io.tables import collect_scores as collect
    from nrcg.io.tables import read_points, write_table

    if (point is None) == (given is None):
        raise NrcgError("collect: give --point for each point, or --given alone")
    if given is not None:
        dataset, path = split_pair(given, "--given")
        write_table(out, read_points(path, dataset))
        return
    parts = []
    for name, path in (split_pair(text, "--point") for text in point):
        try:
            dataset, setup, scale = name.split(":")
            parts.append((dataset, setup, None if scale == "-" else float(scale), path))
        except ValueError:
            raise NrcgError(f"--point {name!r}: write DATASET:SETUP:SCALE=CSV") from None
    write_table(out, collect(parts))
