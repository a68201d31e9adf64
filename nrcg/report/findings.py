"""The page that says which of the paper's claims are seen: each is a function in `claims_forward`, `claims_samples`."""

import numpy as np
import pandas as pd

from nrcg.checks import check, whole
from nrcg.plots import figures as registry
from nrcg.plots.style import File
from nrcg.report.claims_forward import FAR, LEVEL
from nrcg.report.claims_samples import AWAY
from nrcg.report.measurements import CLAIMS, Evidence
from nrcg.report.text_tables import Table, write

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


@registry.register("findings")
def write_findings(
    outputs: list[str], *, figures: dict[str, str], scores: File, unconditional: list[str], setups: File,
    roles: dict[str, str], target: str, classes: int, dataset: str, classifiers: dict[str, str] | None = None,
    title: str = "", note: str = "",
) -> None:  # fmt: skip
    """The paper's claims, each with what was measured, its threshold, and whether it is seen.

    A number that the files do not hold makes the verdict "not measured", never a guess.

    Args:
        figures: figure number, 1 to 4 → its CSV file as drawn by `plot_forward`; any may be missing.
        unconditional: unguided samples, .npy with a card beside each; may be empty.
        roles: which setup the claims mean, by the keys of `measurements.ROLES`; without one, its claims are not
            measured.
        classes: number of classes; chance is one in as many.
        dataset: which data set of `scores`; some claims are about one alone.
        classifiers: name of a guiding classifier → its card.json, whose valid_accuracy is quoted.
    """
    check("findings", {"classes": classes}, {"classes": whole(2)})
    evidence = Evidence(figures, scores, setups, roles, classifiers or {}, unconditional, target, classes, dataset)
    found = pd.DataFrame([evidence.judge(claim) for claim in CLAIMS])
    sizes = sorted({f"{n:g}" for n in evidence.points["n"].dropna()}, key=float)
    counts = [f"{(found['verdict'] == verdict).sum()} {verdict}" for verdict in ("seen", "not seen", "not measured")]
    intro = [
        f"The paper's claims and what this run measured on {dataset}, target class {target}, with "
        f"{' or '.join(sizes)} samples per point. Numbers and verdicts are computed from the run's own files alone.",
        *note.splitlines(),
        f"{len(found)} claims: {', '.join(counts)}.",
    ]
    text = found[["verdict", "claim", "measured", "threshold"]]
    write(outputs, Table(title or "Findings", text, found, NOTES, intro, align="llll"))
