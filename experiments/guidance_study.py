"""How guidance does on SportBalls at 32×32, by setup and scale, in the demo's 100 steps: the numbers of docs/results.

    python -m experiments.guidance_study --data DATA --nets resources/sportballs32 --part cheaper --out cheaper.csv

DATA is the image set of the demo, `results/demo/sportballs/data`. Scales stand in `PARTS`. The best is chosen on the
tuning samples; the table reports others, from 0 on. Rows of `--out` are kept. config/study measures all else.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from matplotlib.lines import Line2D
from tqdm import tqdm

from nrcg.evaluation.extractors import classifier as extractor_of
from nrcg.evaluation.features import reference
from nrcg.evaluation.frechet import FeatureStatistics, frechet_distance
from nrcg.evaluation.reference import Reference
from nrcg.evaluation.scale_search import TUNING, Trial, best, drawn, trial
from nrcg.evaluation.uncertainty import wilson
from nrcg.guidance import guidance_from
from nrcg.io.files import write_text
from nrcg.io.images import to_float
from nrcg.models.classifier import load_classifier, predictions
from nrcg.models.ddpm import load_ddpm
from nrcg.pipeline import GuidedPipeline
from nrcg.plots.style import cycle_colors, legend_below, new_figure, save, styled
from nrcg.runtime.device import pick_device, set_up_torch
from nrcg.speed import prepare

STEPS, SEED, TARGET = 100, 2, 0  # as the demo; the target is baseball
BATCH = 512
DATA = Path("results/demo/sportballs/data")
DARK = 200  # a picture without a value below is blank: the darkest of a real one is at most 141
EMA = {"stabilizer": {"ema": {"beta": 0.99, "steps": 400}}}


class Row(NamedTuple):
    """A setup: who guides, the slots, and the scales."""

    classifier: str
    guidance: dict[str, Any]
    scales: tuple[float, ...]


def logit(guidance: dict[str, Any], scales: tuple[float, ...]) -> Row:
    return Row("nonrobust", {"objective": "logit", **guidance}, scales)


PARTS: dict[str, dict[str, Row]] = {
    "cheaper": {
        "full": logit(EMA, (2.5, 10, 40)),
        "no stabiliser": logit({}, (0.5, 1, 2, 4)),
        "every 2nd step": logit({**EMA, "every": 2}, (2.5, 10, 40)),
        "every 4th step": logit({**EMA, "every": 4}, (2.5, 10, 40, 160)),
        "t ≤ 0.6 T": logit({**EMA, "interval": [0, 0.6]}, (2.5, 10, 40)),
        "t ≥ 0.4 T": logit({**EMA, "interval": [0.4, 1]}, (10, 40, 160)),
        "no Jacobian, 1/√ᾱ": logit({"jacobian": False}, (0.03, 0.1, 0.3, 1)),
        "no Jacobian, 1/√ᾱ, EMA 0.99": logit({**EMA, "jacobian": False}, (0.1, 0.3, 1, 3)),
        "no Jacobian, 1": logit({"jacobian": "identity"}, (0.5, 2, 8, 30)),
        "no Jacobian, 1, EMA 0.99": logit({**EMA, "jacobian": "identity"}, (5, 25, 100)),
    },
}


class Study:
    """The networks and the reference, on a device; what a row needs."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.device = given, pick_device(given.device)
        set_up_torch(given.threads)
        unet, scheduler = load_ddpm(given.nets, self.device)
        self.pipeline = GuidedPipeline(unet=prepare(unet), scheduler=scheduler)
        self.pipeline.set_progress_bar_config(disable=True)
        self.folders = {name: given.nets / name for name in ("nonrobust", "robust")}
        self.judge, _ = load_classifier(given.judge or given.nets / "judge", self.device)
        self.extractor = extractor_of(given.judge or given.nets / "judge", self.device)
        self.reference = Reference.load(given.reference).target.statistics

    def measured(self, part: str, name: str) -> list[dict[str, Any]]:
        """The table's rows of a setup."""
        row, started = PARTS[part][name], time.monotonic()
        network = prepare(load_classifier(self.folders[row.classifier], self.device)[0])

        def guidance(scale: float | None) -> Any:
            return None if scale is None else guidance_from(row.guidance, network, TARGET, scale, name)

        def tried(scale: float | None) -> Trial:
            how: dict[str, Any] = {"judge": self.judge, "extractor": self.extractor, "reference": self.reference}
            how |= {"target": TARGET, "seed": SEED, "n": self.given.tuning, "batch_size": BATCH}
            return trial(self.pipeline, guidance(scale), scale, num_inference_steps=STEPS, **how)

        tuned = best([tried(scale) for scale in row.scales]).scale
        found = []
        for scale in row.scales:
            own, judged, distance, diverged, blank = self._point(guidance(scale), network)
            low, high = (float(end) for end in wilson(judged, self.given.samples))
            found.append(
                {"part": part, "setup": name, "classifier": row.classifier, "scale": scale, "tuned": scale == tuned}
                | {"device": self.device.type}
                | {"n": self.given.samples, "own": own, "judge": judged, "low": low, "high": high}
                | {
                    "distance": distance,
                    "blank": blank,
                    "diverged": diverged,
                    "seconds": round(time.monotonic() - started, 1),
                }
            )
        return found

    def _point(self, guidance: Any, network: torch.nn.Module) -> tuple[float, float, float, int, float]:
        n, statistics = self.given.samples, FeatureStatistics(self.extractor.dim)
        own = judged = diverged = blank = 0
        for pictures, lost in drawn(self.pipeline, guidance, range(n), SEED, BATCH, num_inference_steps=STEPS):
            with torch.inference_mode():
                inputs = to_float(pictures, self.device)
                own += int((predictions(network(inputs)) == TARGET).sum())
                judged += int((predictions(self.judge(inputs)) == TARGET).sum())
            statistics.update(self.extractor(pictures))
            diverged += int(lost.sum())
            blank += int((pictures.min((1, 2, 3)) > DARK).sum())
        return own / n, judged / n, frechet_distance(statistics, self.reference), diverged, blank / n


def draw(table: pd.DataFrame, part: str, path: Path) -> None:
    """A part's fronts: distance to the target class against the judge's share, a line per setup over its scales."""
    with styled(None):
        note = "95 % Wilson intervals; the largest marker of a line is its largest scale. Lower right is better. "
        note += "Hollow: more than a tenth of the samples are blank, which fools the judge."
        title = f"Distance to baseballs against the judge's share of them: SportBalls at 32×32, part “{part}”"
        fig = new_figure(title, note, height=1.3)
        axes = fig.add_subplot(
            xlabel="share of the target by the judge", ylabel="distance to the target class", yscale="log"
        )
        rows = table[table["part"] == part]
        handles = []
        for (name, points), color in zip(rows.groupby("setup", sort=False), cycle(cycle_colors())):
            error = [points["judge"] - points["low"], points["high"] - points["judge"]]
            line = "-" if len(handles) < len(cycle_colors()) else "--"
            place, sizes = (points["judge"], points["distance"]), [12.0 * (k + 1) for k in range(len(points))]
            axes.errorbar(*place, xerr=error, color=color, fmt=line, elinewidth=0.7)
            faces = ["white" if share > 0.1 else color for share in points["blank"]]
            axes.scatter(*place, sizes, faces, edgecolors=color, zorder=3)
            handles.append(Line2D([], [], color=color, linestyle=line, label=name))
        legend_below(fig, handles)
        save(fig, [path])


STUDIES: list[Study] = []  # of this process


def start(given: argparse.Namespace) -> None:
    STUDIES.append(Study(given))


def work(task: tuple[str, str]) -> list[dict[str, Any]]:
    return STUDIES[0].measured(*task)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="image set of the demo")
    parser.add_argument("--nets", type=Path, default=Path("resources/sportballs32"), help="DDPM, classifiers, judge")
    parser.add_argument("--judge", type=Path, help="another judge's folder")
    parser.add_argument("--part", choices=PARTS, action="append", help="repeat for several; all by default")
    parser.add_argument("--samples", type=int, default=256, help="reported samples per point")
    parser.add_argument("--tuning", type=int, default=64, help="samples per trial of a search")
    parser.add_argument("--minutes", type=float, default=600, help="rows that were not begun by then are left out")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="CSV file")
    parser.add_argument("--draw", type=Path, help="draw the first --part of the CSV file, and nothing else")
    given = parser.parse_args()
    if given.draw:
        return draw(pd.read_csv(given.out), given.part[0], given.draw)
    given.reference = given.out.with_suffix(".reference.npz")
    judge = extractor_of(given.judge or given.nets / "judge", pick_device(given.device))
    reference(given.data, judge, target=TARGET, batch_size=512).save(given.reference)
    table = pd.read_csv(given.out).to_dict("records") if given.out.is_file() else []
    there = {(row["part"], row["setup"]) for row in table}
    tasks = [(part, name) for part in given.part or PARTS for name in PARTS[part] if (part, name) not in there]
    ends = time.monotonic() + 60 * given.minutes
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.jobs, context, start, (given,)) as pool, tqdm(total=len(tasks), unit="setup") as bar:
        waiting = {pool.submit(work, task): task for task in tasks}
        for done in as_completed(waiting):
            if not done.cancelled():
                table += done.result()
                write_text(given.out, pd.DataFrame(table).to_csv(index=False))
            bar.update()
            if time.monotonic() > ends:
                for each in waiting:
                    each.cancel()
    last = TUNING + given.tuning - 1
    print(f"Samples {TUNING} to {last} chose the scales; samples 0 to {given.samples - 1} are reported.")


if __name__ == "__main__":
    main()
