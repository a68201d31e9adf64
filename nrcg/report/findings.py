"""The page of findings: whether the run supports the paper's claims, which are listed in words.yaml."""

from typing import Any

import numpy as np
import pandas as pd

from nrcg.checks import check, whole
from nrcg.evaluation.points import POINT
from nrcg.plots import figures as registry
from nrcg.plots.style import File
from nrcg.report import WORDS, claims
from nrcg.report.measurements import ROLES, Absent, Evidence
from nrcg.report.text_tables import Table, write

VERDICTS = {True: "supported", False: "not supported", None: "undecided"}


@registry.register("findings")
def write_findings(
    outputs: list[str], *, figures: dict[str, str], scores: File, unconditional: list[str], setups: File,
    roles: dict[str, str], target: str, classes: int, dataset: str, classifiers: dict[str, str] | None = None,
    title: str = "", note: str = "",
) -> None:  # fmt: skip
    """The paper's claims, each with the measurement, the threshold, and a verdict.

    A claim is undecided if the 95 % interval of the measurement contains the threshold, and "not measured" if the files
    lack a number.

    Args:
        figures: figure number, 1 to 4 → CSV file for `plot_forward`; any may be missing.
        unconditional: unguided samples, .npy with a card beside each; may be empty.
        roles: setups by role (keys of `measurements.ROLES`); claims about missing roles are not measured.
        classes: number of classes; chance level is 1 / classes.
        dataset: data set in `scores`; some claims are about a single data set.
        classifiers: name of a guiding classifier → its card.json, for valid_accuracy.
    """
    check("findings", {"classes": classes}, {"classes": whole(2)})
    evidence = Evidence(figures, scores, setups, roles, classifiers or {}, unconditional, target, classes, dataset)
    found = pd.DataFrame([_judge(evidence, **claim) for claim in WORDS["claims"]])
    sizes = sorted({f"{n:g}" for n in evidence.points.groupby(POINT, dropna=False)["n"].max().dropna()}, key=float)
    counts = [f"{(found['verdict'] == verdict).sum()} {verdict}" for verdict in (*VERDICTS.values(), "not measured")]
    intro = [
        WORDS["findings_intro"].format(dataset=dataset, target=target, sizes=" or ".join(sizes)),
        *filter(None, [evidence.scores.note]),
        *note.splitlines(),
        f"{len(found)} claims: {', '.join(counts)}.",
    ]
    decades = {name: np.log10(WORDS["limits"][name]) for name in ("far", "level")}
    notes = [line.format(**WORDS["limits"], decades=decades) for line in WORDS["findings"]]
    text = found[["verdict", "claim", "measured", "threshold"]].rename(columns={"threshold": "our threshold"})
    write(outputs, Table(title or "Findings", text, found, notes, intro, align="llll"))


def _judge(
    evidence: Evidence, text: str, threshold: str, check: str, dataset: str = "", **arguments: Any
) -> dict[str, str]:
    try:
        if dataset not in ("", evidence.dataset):
            raise Absent(f"a claim about {dataset}, not {evidence.dataset}")
        measured, holds = getattr(claims, check)(evidence, **arguments)
        verdict = VERDICTS[holds if holds is None else bool(holds)]
    except Absent as absent:
        measured, verdict = str(absent), "not measured"
    text = text.format_map({role: evidence.label(role) for role in ROLES})
    threshold = threshold.format(**WORDS["limits"]).replace("%", " %")
    return {"claim": text, "measured": measured, "threshold": threshold, "verdict": verdict}
