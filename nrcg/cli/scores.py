"""The verbs that score samples: metrics of one point, and the scores of all points in one table."""

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from nrcg.cli import options
from nrcg.errors import NrcgError
from nrcg.evaluation.metrics import metrics


@options.measure_verbs.command("score")
def score(
    verdicts: Annotated[Path, Option(help="CSV file from `nrcg measure features`.")],
    features: Annotated[list[str], Option(help="EXTRACTOR=NPY from `nrcg measure features`; can be repeated.")],
    reference: Annotated[list[str], Option(help="EXTRACTOR=NPZ from `nrcg measure reference`; can be repeated.")],
    judge: Annotated[Path, Option(help="Folder of the judge; its card names the classes.")],
    metric: Annotated[list[str], Option(help="Metric of features; can be repeated: " + ", ".join(metrics) + ".")],
    out: options.Out,
    scale: Annotated[float | None, Option(help="Guidance scale of the samples; without it, unguided.", min=0)] = None,
    card: Annotated[Path | None, Option(help="Card of the samples, which counts U-Net evaluations.")] = None,
    target: options.Target = "0",
    tuning: Annotated[int, Option(help="Samples with seeds below this choose scales, unreported.", min=0)] = 0,
    rejection: Annotated[
        bool, Option(help="Score only samples that the guiding classifier assigns to --target.")
    ] = False,
) -> None:
    """Accuracies and distances of the samples of a point, with 95 % intervals."""
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
    point = scores.accepted(point, how["target"]) if rejection else point
    write_table(out, scores.score(point, **how).assign(scale=scale)[["scale", *SCORE_COLUMNS]])


@options.measure_verbs.command("collect")
def collect_scores(
    out: options.Out,
    scores: Annotated[list[str] | None, Option(help="DATASET:SETUP:TRAINING=CSV from `measure score`.")] = None,
    given: Annotated[str | None, Option(help="DATASET=CSV: copy its rows from an earlier output of this verb.")] = None,
) -> None:
    """Join the scores of all setups in one CSV file, or copy given scores."""
    from nrcg.evaluation import points
    from nrcg.io.tables import write_table

    if bool(scores) == (given is not None):
        raise NrcgError("collect: give either --scores for each setup, or --given")
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
            raise NrcgError(f"--scores {name!r}: write DATASET:SETUP:TRAINING=CSV with a number for TRAINING") from None
    write_table(out, points.collect_scores(parts))
