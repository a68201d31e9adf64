"""The CSV file of one of figures 1 to 4, and the t at which its gradients mean nothing."""

from pathlib import Path

import pandas as pd

from nrcg.errors import NrcgError
from nrcg.io.tables import read_table

FORWARD = ("accuracy", "logit_sensitivity", "gradient_sensitivity")
RELATIVE = "relative_sensitivity"
ONE_CLASS = "one_class"
MOST = 0.5  # share of images, or of the values of x̂_0, from which on a t is left out
REASONS = {  # metric of `nrcg measure forward`: what is wrong where it reaches MOST, in a word and in full
    "saturated": (
        "log p saturated",
        "1 − p is below 10⁻⁶ for at least half of the images, so ∇ log p is rounding noise",
    ),
    "clipped": ("x̂₀ clipped", "most of x̂₀ is clipped (white background aside), so no gradient passes"),
}


def read_forward(path: str | Path) -> tuple[pd.DataFrame, str]:
    """A figure's table, columns setup, metric, t (int), mean, std, n (NaN where not given), and which metric it shows.

    Raises NrcgError naming the file and column for a table that is not of exactly one of FORWARD, with a row
    for each setup and t.
    """
    table = read_table(path, text=("setup", "metric"), numbers=("t", "mean", "std", "n"))
    shown = [metric for metric in table["metric"].unique() if metric in FORWARD]
    if len(shown) != 1:
        found = ", ".join(table["metric"].unique())
        raise NrcgError(f"{path}: column 'metric' must hold one of {', '.join(FORWARD)}, not {found}")
    if table["t"].isna().any() or table.duplicated(["setup", "metric", "t"]).any():
        raise NrcgError(f"{path}: a row has no t, or a setup has two at one t; make the file again")
    return table.astype({"t": int}), shown[0]


def curve(table: pd.DataFrame, setup: str, metric: str) -> pd.DataFrame:
    """Columns mean, std and n of one curve, indexed by t upwards; empty where there is none."""
    rows = table[(table["setup"] == setup) & (table["metric"] == metric)]
    return rows.set_index("t")[["mean", "std", "n"]].sort_index()


def left_out(table: pd.DataFrame, setup: str) -> pd.Series:
    """For each t of a setup, the key of REASONS for which its gradients mean nothing there, or an empty string."""
    reasons = pd.Series("", index=sorted(table["t"][table["setup"] == setup].unique()), dtype=object)
    for metric in REASONS:
        share = curve(table, setup, metric)["mean"]
        reasons[share.index[share >= MOST]] = metric
    return reasons


def ranges(steps: pd.Index, of: pd.Series) -> list[tuple[int, int]]:
    """First and last of each run of neighbours among `steps` at which `of` (bool, indexed by t) holds."""
    runs: list[tuple[int, int]] = []
    before = None
    for t in steps:
        if of.get(t, False):
            runs = [*runs[:-1], (runs[-1][0], t)] if before else [*runs, (t, t)]
        before = of.get(t, False)
    return runs


def in_words(runs: list[tuple[int, int]]) -> str:
    """`t = 3, 59–100`."""
    return "t = " + ", ".join(f"{low}–{high}" if low < high else f"{low}" for low, high in runs)
