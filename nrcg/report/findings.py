"""The page that says which of the paper's claims are seen, with the numbers and the thresholds.

Each claim is a small function in `claims_forward` and `claims_samples`. A number that the files do not hold makes the
verdict "not measured", never a guess.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from nrcg.errors import NrcgError
from nrcg.io.files import write_text
from nrcg.report import claims_forward, claims_samples, pages
from nrcg.report.claims_forward import FAR, LEVEL
from nrcg.report.measurements import AWAY, VERDICTS, Evidence, Finding, read_evidence

HEADER = ("claim", "measured", "threshold", "verdict")
CLAIMS = (*claims_forward.CLAIMS, *claims_samples.CLAIMS)

NOTES = (
    "Ratios of curves are geometric means over t, as one reads them off a log axis; t at which a curve is zero or not "
    "finite are left out. T is the largest t. The least t stands for a clean image.",
    f"Far above begins at a factor of {FAR:g}, {np.log10(FAR):.2f} of a decade. Within a factor of {LEVEL:g}, "
    f"{np.log10(LEVEL):.2f} of a decade, two curves count as at one level, and a curve below the other has reached it; "
    "the ratio without EMA stands beside it, so that one sees what EMA adds.",
    "The distance to all images grows with any steering, good or bad. The distance to the target class tells them "
    "apart: samples that are steered come nearer to it than unguided ones, samples that are destroyed do not.",
    "Shares are of all samples; one that diverged counts as a miss. The judge never guided. “By its own classifier” is "
    "by the one that guided, as in the paper; the unguided share beside it is by the same classifier.",
    f"The background of a sample is every pixel farther than {AWAY:g} image widths from its centre of darkness (mean "
    "position, weighted by 1 − brightness, the mean of R, G and B on [0, 1]); the mean is over samples.",
)


def write_findings(
    outputs: Sequence[str | Path],
    *,
    figures: Mapping[int, str | Path],
    scores: str | Path,
    unconditional_shards: Sequence[str | Path],
    setups_tsv: str | Path,
    target_name: str,
    n_classes: int,
    dataset: str,
    classifiers: Mapping[str, str | Path] | None = None,
    title: str = "",
    note: str = "",
) -> None:
    """Write every claim with what was measured, its threshold, and the verdict: seen, not seen or not measured.

    outputs               .md and .html (pages) and .csv (columns claim, measured, threshold, verdict) paths
    figures               figure number, 1 to 4, → its CSV file as drawn by `plot_forward`; any may be missing
    scores                collected metrics: dataset, setup, scale, metric, value, stderr, n, n_diverged, features
    unconditional_shards  unguided samples, .npy with a card beside each; may be empty
    target_name           the class asked for
    n_classes             of the data set; chance is one in as many
    dataset               which data set of `scores`; some claims are about one alone
    classifiers           role of a guiding classifier → its card.json, whose valid_accuracy is quoted
    title                 of the pages
    note                  how large the run was

    Raises NrcgError naming a file and column that does not fit.
    """
    outputs = [Path(path) for path in outputs]
    for path in outputs:
        if path.suffix not in (".md", ".html", ".csv"):
            raise NrcgError(f"{path}: findings are written as .md, .html or .csv; choose one of these names")
    evidence = read_evidence(figures, scores, unconditional_shards, setups_tsv=setups_tsv,
                             classifiers=classifiers or {}, target_name=target_name, n_classes=n_classes,
                             dataset=dataset)  # fmt: skip
    findings = [claim(evidence) for claim in CLAIMS]
    title = title or "Findings"
    intro = [_intro(evidence), *note.splitlines(), _counts(findings)]
    for path in outputs:
        if path.suffix == ".csv":
            write_text(path, pd.DataFrame(map(asdict, findings)).to_csv(index=False, lineterminator="\n"))
        else:
            write_text(path, (_markdown if path.suffix == ".md" else _html)(title, intro, findings))


def _intro(evidence: Evidence) -> str:
    sizes = sorted({f"{n:g}" for n in evidence.points["n"].dropna()}, key=float)
    return (
        f"The paper's claims and what this run measured on {evidence.dataset}, target class {evidence.target}, with "
        f"{' or '.join(sizes)} samples per point. Numbers and verdicts are computed from the run's own files alone."
    )


def _counts(findings: Sequence[Finding]) -> str:
    counts = [f"{sum(finding.verdict == verdict for finding in findings)} {verdict}" for verdict in VERDICTS]
    return f"{len(findings)} claims: {', '.join(counts)}."


def _markdown(title: str, intro: Sequence[str], findings: Sequence[Finding]) -> str:
    rows = [(f.claim, f.measured, f.threshold, f"**{f.verdict}**") for f in findings]
    table = [HEADER, ("---",) * 4, *rows]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    parts = [f"# {title}", *intro, "\n".join(lines), "\n".join(f"- {line}" for line in NOTES)]
    return "\n\n".join(parts) + "\n"


def _html(title: str, intro: Sequence[str], findings: Sequence[Finding]) -> str:
    header, rows = HEADER[-1:] + HEADER[:-1], [(f.verdict, f.claim, f.measured, f.threshold) for f in findings]
    body = pages.table(header, rows, align="llll", caption="Claims of the paper")
    return pages.page(title, f"<h1>{escape(title)}</h1>", *map(pages.paragraph, intro), body, pages.notes(NOTES))
