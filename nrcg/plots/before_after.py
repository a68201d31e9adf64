"""The same seeds before and after guidance: those that were another class than the target, and what they became."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from nrcg.errors import NrcgError
from nrcg.io.shards import Shard, open_shards
from nrcg.io.tables import read_table
from nrcg.plots.samples import Cell, cell_of, draw_sheet, same_size
from nrcg.plots.style import new_figure, save, styled, wrapped

JUDGE = "judge"  # the column of a classifier that never guided
FEWEST, MOST = 5, 12  # columns that the page has room for: samples neither blown up nor narrower than their text


@dataclass(frozen=True)
class _Side:
    """Samples of one point by seed, and what the classifiers say of them; a blank for one that diverged."""

    shards: list[Shard]
    verdicts: pd.DataFrame  # a row per seed, a column per classifier

    def has(self, seed: int) -> bool:
        """Whether the shards hold this seed's sample; verdicts may know of more."""
        return any(seed in shard.seeds for shard in self.shards)

    def cell(self, seed: int, target: str, classifier: str) -> Cell:
        own = self.verdicts.at[seed, classifier]
        lines = [(own or "diverged", own == target)]
        if JUDGE in self.verdicts and (other := self.verdicts.at[seed, JUDGE]) != own:
            lines.append((f"judge: {other}", other == target))
        shard = next(shard for shard in self.shards if seed in shard.seeds)
        return cell_of(shard, seed, tuple(lines))


def plot_before_after(
    before_shards: Sequence[str | Path],
    after_shards: Sequence[str | Path],
    outputs: Sequence[str | Path],
    *,
    verdicts_before: str | Path,
    verdicts_after: str | Path,
    classifier: str = "guiding",
    target_name: str,
    n: int = 10,
    style: str | Path | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw seeds whose unguided sample is not of the target class, above the guided samples of the same seeds.

    before_shards    unguided samples, .npy with a card beside each
    after_shards     guided ones
    outputs          .png and .pdf paths
    verdicts_before  verdicts of `nrcg score` (CSV) about the seeds of `before_shards`, and perhaps more seeds
    verdicts_after   the same about `after_shards`
    classifier       the column that decides; a column "judge" is counted too, and shown where it differs
    target_name      the class asked for
    n                at most this many seeds, up to 12: the first in order, of those in both shards, that `classifier`
                     calls another class than the target; one that diverged is of no class

    The small print counts those that became the target, among all such seeds that have verdicts both ways. Raises
    NrcgError naming the file.
    """
    if n > MOST:
        raise NrcgError(f"n = {n}: the names of classes fit below at most {MOST} samples a row")
    before = _read(before_shards, verdicts_before, classifier)
    after = _read(after_shards, verdicts_after, classifier)
    same_size([*before.shards, *after.shards])
    both = before.verdicts.index.intersection(after.verdicts.index).sort_values()
    if both.empty:
        raise NrcgError(f"{verdicts_after}: none of its seeds is in {verdicts_before}; name shards of the same seeds")
    others = [seed for seed in both if before.verdicts.at[seed, classifier] not in ("", target_name)]
    counts = _counts(after.verdicts, others, len(both), target_name, classifier)
    shown = [seed for seed in others if before.has(seed) and after.has(seed)][:n]
    with styled(style):
        if shown:
            order = f"Shown: the first {len(shown)} of the {len(others)}, in the order of their seeds."
            who = "judge" if classifier == JUDGE else f"{classifier} classifier"
            legend = f"Below each sample: the class that the {who} assigns to it, right or wrong; bold: {target_name}."
            if JUDGE in after.verdicts and classifier != JUDGE:
                legend += " Where the judge disagrees, its class is printed underneath."
            cells = [side.cell(seed, target_name, classifier) for side in (before, after) for seed in shown]
            fig = draw_sheet(cells, len(shown), title, "\n".join(filter(None, [f"{counts} {order} {legend}", note])),
                             labels=["unguided", "guided"], heads=shown, caption=f"{who}:", span=FEWEST)  # fmt: skip
        else:
            fig = new_figure(title, note, height=0.4)
            fig.text(0.01, 0.5, wrapped(counts, fig.get_figwidth(), per_inch=13), va="center", ha="left",
                     fontsize=matplotlib.rcParams["font.size"])  # fmt: skip
        save(fig, outputs)
    return fig


def _counts(after: pd.DataFrame, others: Sequence[int], n_both: int, target: str, classifier: str) -> str:
    """How many seeds were another class, and how many of these became the target, in words."""
    who = "judge" if classifier == JUDGE else f"{classifier} classifier"
    text = (
        f"Of {n_both} seeds, the {who} assigns {len(others) or 'none'} to another class than {target} without guidance"
    )
    if not others:
        return f"{text}: there is no change to show."
    hits = {name: int((after.loc[others, name] == target).sum()) for name in after}
    text += f". With guidance, it assigns {hits[classifier]} of these {len(others)} to {target}"
    if {JUDGE} < set(hits) and classifier != JUDGE:
        text += f"; the judge assigns {hits[JUDGE]} of the {len(others)} to {target}"
    return f"{text}."


def _read(paths: Sequence[str | Path], verdicts: str | Path, classifier: str) -> _Side:
    """The shards, and verdicts: of their samples at least, which must agree about which diverged."""
    shards = open_shards(paths)
    table = read_table(verdicts, text=(classifier,), numbers=("seed",))
    if JUDGE in pd.read_csv(verdicts, nrows=0):
        table[JUDGE] = read_table(verdicts, text=(JUDGE,))[JUDGE]
    diverged = {seed: bool(lost) for shard in shards for seed, lost in zip(shard.seeds, shard.diverged, strict=True)}
    blank = dict(zip(table["seed"], table[classifier] == "", strict=True))
    if len(blank) != len(table) or {seed: blank.get(seed) for seed in diverged} != diverged:
        raise NrcgError(f"{verdicts}: not the verdicts of the samples in {shards[0].path.parent}; make them again")
    return _Side(shards, table.set_index(table["seed"].astype(int)).drop(columns="seed"))
