"""Tables and pictures of `benchmarks.cheaper`, and the gradients behind them."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers.utils.torch_utils import randn_tensor
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from tabulate import tabulate
from torch import nn
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from nrcg import EMA, GuidedDDPMPipeline
from nrcg.guidance.gradient import frozen, image_gradient, one_step_denoiser
from nrcg.guidance.pipeline import posterior
from nrcg.plots.samples import Cell, draw_sheet
from nrcg.plots.style import GREY, MARKERS, cycle_colors, new_figure, save, styled
from nrcg.rng import keyed_generator

SEEDS = range(12)
SHEET = {  # (variant, scale) of the points whose first samples are shown, and the row's label
    ("full method", 60): "full method",
    ("every 4th step", 60): "every 4th step",
    ("t ≤ 60", 60): "t ≤ 60",
    ("1/√ᾱ, EMA 0.99", 0.1): "no Jacobian, s = 0.1",
    ("1/√ᾱ, EMA 0.99", 1): "no Jacobian, s = 1",
    ("1, none", 2): "slope 1, none, s = 2",
    ("1, none", 8): "slope 1, none, s = 8",
    ("1, none, t ≥ 20", 8): "the same, t ≥ 20",
}
SWEEPS = {"1/√ᾱ, EMA 0.99": "-", "1/√ᾱ, none": ":", "1, EMA 0.99": "-", "1, none": ":"}  # in the right panel


@torch.no_grad()
def gradients(
    pipeline: GuidedDDPMPipeline, classifier: nn.Module, target: int, steps: int, n: int = 16, scale: float = 60
) -> pd.DataFrame:
    """Along n trajectories of the full method: its gradient, and the one without the Jacobian; medians of n samples.

    Columns t, slope (1/√ᾱ_t), full and cheap (Euclidean lengths), cosine (between the two).
    """
    unet, scheduler, stabilizer = pipeline.unet, pipeline.scheduler, EMA(0.99)
    scheduler.set_timesteps(steps)
    generators = [keyed_generator("sampling", 0, i) for i in range(n)]
    x = randn_tensor((n, unet.config.in_channels, *[unet.config.sample_size] * 2), generators)
    state, rows = stabilizer.init(x), []
    with frozen(unet, classifier):
        for t in tqdm(scheduler.timesteps, desc="gradients", unit="step"):
            (full, _, output), (cheap, _, _) = (
                image_gradient(classifier, x, target, "logit", one_step_denoiser(unet, scheduler, t, jacobian))
                for jacobian in (True, False)
            )
            pair = [gradient.flatten(1) for gradient in (full, cheap)]
            lengths = [float(gradient.norm(dim=1).median()) for gradient in pair]
            slope = float(scheduler.alphas_cumprod[t]) ** -0.5
            rows.append((int(t), slope, *lengths, float(cosine_similarity(*pair).median())))
            mean, variance = posterior(scheduler, output, t, x)
            direction, state = stabilizer.update(full, state)
            x = mean + variance**0.5 * randn_tensor(x.shape, generators) + scale * variance * direction
    return pd.DataFrame(rows, columns=["t", "slope", "full", "cheap", "cosine"])


def points_table(points: pd.DataFrame) -> str:
    """All points in Markdown."""
    rows = [
        [
            row.variant,
            "–" if pd.isna(row.scale) or row.variant == "unguided" else f"{row.scale:g}",
            row.target,
            f"{row.accuracy_judge:.0%}",
            f"{row.accuracy:.0%}",
            f"{row.cfd_judge:.3g}" if row.cfd_judge < 1000 else f"{row.cfd_judge:.0f}",
            f"{row.grain:.1f}",
            "–" if pd.isna(row.seconds) else f"{row.seconds:.2f} s",
            "–" if pd.isna(row.time) else f"{row.time:.2f}",
        ]
        for row in points.itertuples()
    ]
    headers = ["variant", "s", "target", "judge", "guiding", "FD (judge)", "grain", "an image", "of the full"]
    return tabulate(
        rows, headers, tablefmt="pipe", disable_numparse=True, colalign=("left", "right", "left", *["right"] * 6)
    )


def gradients_table(norms: pd.DataFrame) -> str:
    """Every sixth time step of `benchmarks.cheaper.gradients`, in Markdown."""
    chosen = norms[norms["t"].isin(norms["t"].tolist()[::6])]
    rows = [
        (
            f"{row.t:.0f}",
            f"{row.slope:.3g}",
            f"{row.full:.2g}",
            f"{row.cheap:.3g}",
            f"{row.cheap / row.slope:.3g}",
            f"{row.cosine:.2f}",
        )
        for row in chosen.itertuples()
    ]
    headers = ["t", "1/√ᾱ", "full", "no Jacobian", "slope 1", "cosine"]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=["right"] * 6)


def plot_points(points: pd.DataFrame, out: Path) -> None:
    """FD against time, a marker a point; and without the Jacobian, both classifiers' shares against the scale."""
    points = points[points["target"] == "baseball"]
    floor = float(points.loc[points["variant"] == "real images", "cfd_judge"].iloc[0])
    guided = points[points["time"].notna() & (points["variant"] != "unguided")]
    note = (
        f"SportBalls 32×32, target baseball, {guided['n'].max():.0f} samples a point. "
        "Left: hollow where the judge says less than 95 %; a line joins the scales of a variant. "
        "Right: lines the judge, crosses the guiding classifier; solid EMA 0.99, dotted no stabiliser."
    )
    with styled(None):
        fig = new_figure("", note, height=1.25)
        left, right = fig.subplots(1, 2, width_ratios=(1.25, 1))
        families = list(dict.fromkeys(guided["family"]))
        looks = {name: (color, marker) for name, color, marker in zip(families, cycle_colors(), MARKERS, strict=False)}
        _quality(left, guided, looks)
        left.axhline(floor, color="black", linestyle="--", linewidth=1)
        left.annotate(
            "real images",
            (1, floor),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            color=GREY,
            fontsize=7,
        )
        _sweeps(right, guided, looks)
        handles = [Line2D([], [], color=color, marker=marker, linestyle="") for color, marker in looks.values()]
        fig.legend(handles, list(looks), loc="outside upper left", ncols=3)
        save(fig, [out])


def _quality(ax: Axes, guided: pd.DataFrame, looks: dict[str, tuple[str, str]]) -> None:
    for _, rows in guided.groupby("variant", sort=False):
        color, marker = looks[rows["family"].iloc[0]]
        ax.plot(rows["time"], rows["cfd_judge"], color=color, linewidth=0.6, alpha=0.5)
        for row in rows.itertuples():
            ax.plot(
                row.time,
                row.cfd_judge,
                marker=marker,
                color=color,
                markerfacecolor=color if row.accuracy_judge >= 0.95 else "white",
            )
    ax.set(yscale="log", xlabel="time an image, full method = 1", ylabel="FD to target class (judge)", xlim=(0, None))


def _sweeps(ax: Axes, guided: pd.DataFrame, looks: dict[str, tuple[str, str]]) -> None:
    for name, line in SWEEPS.items():
        rows = guided[guided["variant"] == name].sort_values("scale")
        color, marker = looks[rows["family"].iloc[0]]
        ax.plot(rows["scale"], rows["accuracy_judge"], color=color, marker=marker, linestyle=line)
        ax.plot(rows["scale"], rows["accuracy"], color=color, marker="x", linestyle="")
    ax.set(xscale="log", xlabel="guidance scale s", ylabel="share of the target")
    ax.yaxis.set_major_formatter(PercentFormatter(1))


def plot_samples(shown: dict[tuple[str, float], np.ndarray], out: Path) -> None:
    """A row a point, a column a seed."""
    seeds = SEEDS[: min(map(len, shown.values()))]
    cells = [Cell(shown[key][seed], False) for key in SHEET for seed in seeds]
    with styled(None):
        save(draw_sheet(cells, len(seeds), "", "", labels=list(SHEET.values()), heads=seeds), [out])
