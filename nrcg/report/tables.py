"""Tables 1 to 3, all points, and the comparison with the paper's numbers."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.evaluation.points import POINT, REAL, REJECTION, read_points
from nrcg.evaluation.uncertainty import mark_notes
from nrcg.io.tables import read_paper, read_table
from nrcg.plots import figures
from nrcg.plots.setups import Setup, extractor_of, is_share, known_setups, metric_label, read_setups
from nrcg.plots.style import File
from nrcg.report import WORDS
from nrcg.report.text_tables import NOTE_BETWEEN, NOTE_ERROR, Table, cell, plain, write

ORDER = ("accuracy$", "accuracy/", "accuracy_judge$", "unet_evaluations", "fid", "cfid", "fd_", "cfd_", "")  # metrics
NUMBERS = {"": "value", "_low": "low", "_high": "high", "_n": "n", "_diverged": "n_diverged"}  # columns by suffix
NOTES = WORDS["tables"]
MEASURED_BY = {"accuracy": "the guiding classifier", "Inception": "Inception (pytorch-fid)"}
STATES = ("measured", "not measured", "not run")
COMPARED = [*POINT, "metric", "paper", "ours", "low", "high", "difference", "n", "n_diverged", "features",
            "measured_by", "weights", "state"]  # fmt: skip


@figures.register("table")
def write_table(
    outputs: list[str], *, csv: File, setups: File, target: str, paper: File, dataset: str | None = None,
    title: str = "", note: str = "",
) -> None:  # fmt: skip
    """Tables 1 to 3: unguided samples, the paper's setup, our best setup, and the paper's numbers.

    The paper's setup is at our best scale; the best of all setups has a separate column if it is another. An accuracy
    by another classifier has a separate row if that classifier also scored the unguided samples. Distances from few
    samples are marked.
    """
    scores, known = read_points(csv, dataset), read_setups(setups)
    points, dataset = scores.reported, scores.dataset
    free, told = points[points["scale"].isna()], read_paper(paper, dataset)
    if free.empty:
        raise NrcgError(f"{csv}: no unconditional point (blank 'scale') of {dataset}; sample and score it")
    reported = told[told["scale"].notna()]
    at_best = scores.at_best()
    if at_best.empty:
        raise NrcgError(f"{csv}: no guided point has a value for cfid or cfd_NAME in column 'metric'; score one first")
    same = at_best[at_best["setup"].isin(reported["setup"].iloc[:1])]
    same, best = (_by_classifier(part, free, known) for part in (same, at_best[at_best["setup"] == scores.best_setup]))
    shown = {"unconditional": free} | ({_heading(same, known): same} if len(same) else {})
    if _heading(best, known) not in shown:
        shown[f"our best: {_heading(best, known)}"] = best
    theirs = {}
    if len(reported):
        theirs = {"paper: unconditional": told[told["scale"].isna()], f"paper: {_heading(reported, known)}": reported}
    metrics = _in_order([name for part in (free, same, best, told) for name in part["metric"]])
    data = _numbers(metrics, {"unconditional": free, "ours": same, "best": best}, told)
    text = {"metric": [*map(_name, metrics, data["features"]), "samples n", "diverged"]}
    for heading, part in {**shown, **theirs}.items():
        digits = 2 if heading in theirs else 1
        cells = [cell(row, row.name, digits) for _, row in _indexed(part, metrics).iterrows()]
        text[heading] = [*cells, _count(part, "n"), _count(part, "n_diverged")]
    others = dict.fromkeys(name for name in map(extractor_of, metrics) if name not in ("", "Inception"))
    notes = [NOTES["best"], scores.note, *map(NOTES["extractor"].format, others)] + (
        [NOTES["theirs"]] if theirs else []
    )
    caption = title or f"{dataset}, target {target}: unconditional and guided samples"
    _write(outputs, caption, pd.DataFrame(text), data, [*notes, *note.splitlines()])


@figures.register("points")
def write_all_points(
    outputs: list[str], *, csv: File, setups: File, dataset: str | None = None, metrics: list[str] | None = None,
    chosen: bool = False, only: list[str] | None = None, title: str = "", note: str = "",
) -> None:  # fmt: skip
    """All scores of all points, one row per point: unguided samples, then by setup and scale.

    Args:
        metrics: the scores to show, in this order; all by default.
        chosen: leave out the scales that were not chosen, except 0.
        only: the guided setups to list; all by default.
    """
    scores = read_points(csv, dataset)
    points = scores.reported
    if only is not None:
        points = points[points["scale"].isna() | points["setup"].isin(only)]
    if chosen:
        points = points[(points["scale"] == points["setup"].map(scores.best)) | ~(points["scale"] > 0)]
    known = known_setups(read_setups(setups), points["setup"], csv, setups)
    order = {setup.name: i for i, setup in enumerate(known)}
    points = points.assign(guided=points["scale"].notna(), place=points["setup"].map(order))
    metrics, rows, data = metrics or _in_order(points["metric"]), [], []
    for (guided, place, scale), part in points.groupby(["guided", "place", "scale"], dropna=False):
        found, setup = _indexed(part, metrics), known[place]
        counts = {"n": _count(part, "n"), "diverged": _count(part, "n_diverged")}
        cells = {metric_label(metric): cell(row, metric) for metric, row in found.iterrows()}
        star = " *" if guided and not chosen and scores.best.get(setup.name) == scale else ""
        rows.append({"setup": setup.label, "scale": f"{scale:g}{star}" if guided else "–", **counts, **cells})
        numbers = {"n": part["n"].max(), "n_diverged": part["n_diverged"].max(), **found["value"]}
        data.append({"setup": setup.name, "scale": scale, **numbers})
    beside = {REJECTION: ("rejection sampling", scores.rejection), REAL: ("real images", scores.real)}
    for name, (label, part) in beside.items():
        if len(part):
            found = _indexed(part, metrics)
            cells = {metric_label(metric): cell(row, metric) for metric, row in found.iterrows()}
            rows.append({"setup": label, "scale": "–", "n": _count(part, "n"), "diverged": "–", **cells})
            data.append({"setup": name, "scale": np.nan, "n": part["n"].max(), "n_diverged": 0, **found["value"]})
    caption = title or f"{scores.dataset}: every setup and scale"
    notes = [
        (NOTES["best"] if scores.note else "") if chosen else f"*: {NOTES['best'][0].lower()}{NOTES['best'][1:]}",
        scores.note,
        NOTES["rejection"],
        NOTES["real"],
        *note.splitlines(),
    ]
    _write(outputs, caption, pd.DataFrame(rows), pd.DataFrame(data), notes)


@figures.register("comparison")
def write_comparison(
    outputs: list[str], *, scores: list[str], paper: File, setups: File, weights: dict[str, str], title: str = "",
    note: str = "",
) -> None:  # fmt: skip
    """Every number of the paper with ours for the same setup and scale, and the difference.

    If ours is missing, the table states why. Distances from few samples are marked.

    Args:
        scores: collected scores; each data set in one file.
        weights: for each data set in `scores`, the origin of the networks, in words.
    """
    ours, known = _read_scores(scores), read_setups(setups)
    for name in ours["dataset"].unique():
        if name not in weights:
            raise NrcgError(f"weights: no entry for data set {name!r}; describe the origin of its networks")
    told = read_table(paper, text=("dataset", "setup", "metric"), numbers=("scale", "value")).dropna(subset="value")
    table = told.rename(columns={"value": "paper"})
    table = table.merge(ours.dropna(subset="value"), "left", [*POINT, "metric"])
    table = table.merge(ours[POINT].drop_duplicates().assign(run=True), "left", POINT).rename(columns={"value": "ours"})
    measured = table["ours"].notna()
    table["state"] = np.select([measured, table["run"].notna()], STATES[:2], STATES[2])
    table["difference"] = table["ours"] - table["paper"]
    table["measured_by"] = table.apply(_measured_by, axis=1).where(measured)
    table["weights"] = table["dataset"].map(weights).where(measured)
    text = pd.DataFrame([_compared(row) for _, row in table.iterrows()])
    text["setup"] = text["setup"].map(lambda name: known[name].label if name in known else name)
    counts = {state: int((table["state"] == state).sum()) for state in STATES}
    found = ", ".join(f"{n} {state}" for state, n in counts.items())
    first = [f"{len(text)} numbers: {found} here.", NOTES["difference"]]
    last = [*(line for state, line in NOTES["absent"].items() if counts[state]), *NOTES["paper"], *note.splitlines()]
    _write(outputs, title or "The paper's numbers and ours", text, table[COMPARED], last, first, "llrlrrrrll")


def _write(
    outputs: list[str], caption: str, text: pd.DataFrame, data: pd.DataFrame, notes: Sequence[str],
    first: Sequence[str] = (), align: str = "",
) -> None:  # fmt: skip
    """Write a table with notes on its intervals and marks."""
    between = [NOTE_BETWEEN] if any("±" in str(each) for each in text.to_numpy().ravel()) else []
    notes = [*first, NOTE_ERROR, *between, *mark_notes(text.to_numpy().ravel()), *filter(None, notes)]
    write(outputs, Table(caption, text, data, notes, align=align))


def _by_classifier(point: pd.DataFrame, free: pd.DataFrame, known: dict[str, Setup]) -> pd.DataFrame:
    """A point with its accuracy renamed to accuracy/CLASSIFIER if the unguided samples have this metric."""
    setup = next(iter(point["setup"]), "")
    name = f"accuracy/{known[setup].classifier if setup in known else ''}"
    return point.replace({"metric": {"accuracy": name}}) if name in set(free["metric"]) else point


def _heading(point: pd.DataFrame, known: dict[str, Setup]) -> str:
    setup, scale = point["setup"].iloc[0], point["scale"].iloc[0]
    return f"{known[setup].label if setup in known else setup}, s = {scale:g}"


def _in_order(metrics: Sequence[str]) -> list[str]:
    """Known metrics in a fixed order, then the rest (shares per class) in order of appearance."""
    return sorted(dict.fromkeys(metrics), key=lambda name: [i for i, each in enumerate(ORDER) if re.match(each, name)])


def _indexed(points: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A point's rows indexed by these metrics; NaN if missing."""
    return points.dropna(subset="value").drop_duplicates("metric").set_index("metric").reindex(metrics)


def _name(metric: str, features: float) -> str:
    """The metric's label, with extractor and number of features for our distances."""
    label = metric_label(metric)
    return label if np.isnan(features) else f"{label} [{extractor_of(metric) or '?'}, {features:g} features]"


def _count(points: pd.DataFrame, column: str) -> str:
    return (plain(points[column].max()) if column in points else "") or "–"


def _numbers(metrics: Sequence[str], ours: dict[str, pd.DataFrame], told: pd.DataFrame) -> pd.DataFrame:
    """The CSV file, one row per metric: unguided samples, the paper's setup, the best setup, the paper's numbers."""
    found = {name: _indexed(part, metrics) for name, part in ours.items()}
    data = {"features": pd.concat([frame["features"] for frame in found.values()], axis=1).bfill(axis=1).iloc[:, 0]}
    for name, frame in found.items():
        if name != "unconditional":
            data |= {f"{name}_{key}": next(iter(ours[name][key]), np.nan) for key in ("setup", "scale")}
        data |= {f"{name}{end}": frame[column] for end, column in NUMBERS.items()}
    free, guided = (_indexed(told[told["scale"].notna() == guided], metrics) for guided in (False, True))
    data |= {"paper_unconditional": free["value"], "paper_setup": guided["setup"], "paper_scale": guided["scale"]}
    return pd.DataFrame(data | {"paper_best": guided["value"]}, index=metrics).rename_axis("metric").reset_index()


def _read_scores(paths: list[str]) -> pd.DataFrame:
    points: dict[str, pd.DataFrame] = {}
    for path in paths:
        for name in read_table(path, text=("dataset",))["dataset"].unique():
            if name in points:
                raise NrcgError(f"{path}: data set {name!r} is also in another file of scores; name one of them")
            points[name] = read_points(path, name).reported
    if not points:
        raise NrcgError("scores: name at least one file")
    return pd.concat(points.values())


def _compared(row: pd.Series) -> dict[str, str]:
    metric, theirs, ours = row["metric"], pd.Series({"value": row["paper"]}), row.rename({"ours": "value"})
    start = {"data set": row["dataset"], "setup": row["setup"], "s": plain(row["scale"]) or "–",
             "metric": metric_label(metric), "paper": cell(theirs, metric, digits=2)}  # fmt: skip
    if row["state"] != "measured":
        return start | {"ours": row["state"]} | dict.fromkeys(("difference", "n", "measured by", "weights"), "–")
    factor, unit = (100, " pp") if is_share(metric) else (1, "")
    lost = f" ({row['n_diverged']:g} diverged)" if row["n_diverged"] > 0 else ""
    return start | {
        "ours": cell(ours, metric, digits=2),
        "difference": f"{factor * row['difference']:+.2f}{unit}".replace("-", "−"),
        "n": f"{plain(row['n'])}{lost}",
        "measured by": row["measured_by"],
        "weights": row["weights"],
    }


def _measured_by(row: pd.Series) -> str:
    extractor = extractor_of(row["metric"])
    by = MEASURED_BY.get(extractor or row["metric"], extractor or "–")
    return by if np.isnan(row["features"]) else f"{by}, {row['features']:g} features"
