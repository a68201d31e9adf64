"""The same seeds without and with guidance, for samples that are not of the target class without it."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from nrcg.checks import check, whole
from nrcg.errors import NrcgError
from nrcg.io.shards import Shard, open_shards
from nrcg.io.tables import read_verdicts
from nrcg.plots import WORDS
from nrcg.plots.samples import Cell, draw_sheet, same_size, seed_heads
from nrcg.plots.style import File, Page, draws, text_figure

JUDGE = "judge"  # column of the independent classifier
FEWEST, MOST = 5, 12  # columns of the page: samples are neither enlarged too much nor narrower than their text


@draws("before_after")
def plot_before_after(
    page: Page, before: list[str], after: list[str], verdicts_before: File, verdicts_after: File, target: str,
    classifier: str = "guiding", n: int = 10,
) -> Figure:  # fmt: skip
    """Unguided samples that are not of the target class, above the guided samples of the same seeds.

    The small print counts those that guidance turns into the target, among all such seeds with both verdicts.

    Args:
        before: unguided samples, .npy with a card beside each.
        after: guided samples, likewise.
        verdicts_before: verdicts (CSV) of the classifiers about the seeds of `before`; more seeds are allowed.
        verdicts_after: the same for `after`.
        classifier: column that selects the seeds; the judge's verdicts are counted too, and shown if they differ.
        n: maximum number of seeds, up to MOST: the first ones in both shards that `classifier` assigns to another
            class than the target; diverged samples have no class.
    """
    check("before_after", {"n": n}, {"n": whole(1, MOST)})  # more class names would not fit below the samples
    sides = [_read(before, verdicts_before, classifier), _read(after, verdicts_after, classifier)]
    same_size([shard for shards, _ in sides for shard in shards.values()])
    first, last = (verdicts for _, verdicts in sides)
    both = first.index.intersection(last.index).sort_values()
    if both.empty:
        raise NrcgError(f"{verdicts_after}: no seeds in common with {verdicts_before}; name shards of the same seeds")
    others = [seed for seed in both if first.at[seed, classifier] not in ("", target)]
    who = "judge" if classifier == JUDGE else f"{classifier} classifier"
    shown = [seed for seed in others if all(seed in shards for shards, _ in sides)][:n]
    became, judged = (last.loc[others] == target).sum(), classifier != JUDGE
    parts = ["counts", *["judged"] * judged] if others else ["none"]
    parts += ["shown", *["disagrees"] * judged] if shown else []
    counts = "".join(WORDS["before_after"][part] for part in parts).format(
        n=len(both), who=who, target=target, others=len(others), became=became[classifier], judged=became[JUDGE],
        shown=len(shown),
    )  # fmt: skip
    counts = f"{counts.removesuffix('.')}."
    if not shown:
        return text_figure(page, counts)
    cells = [_cell(seed, *side, target, classifier) for side in sides for seed in shown]
    return draw_sheet(cells, len(shown), page.title, f"{counts}\n{page.note}".strip(), labels=["unguided", "guided"],
                      heads=seed_heads(shown), captions=[f"{who}:"], span=FEWEST)  # fmt: skip


def _cell(seed: int, shards: dict[int, Shard], verdicts: pd.DataFrame, target: str, classifier: str) -> Cell:
    own = verdicts.at[seed, classifier]
    lines = [(own or "diverged", own == target)]
    if (other := verdicts.at[seed, JUDGE]) != own:
        lines.append((f"judge: {other}", other == target))
    return Cell.of(shards[seed], seed, tuple(lines))


def _read(paths: Sequence[File], verdicts: File, classifier: str) -> tuple[dict[int, Shard], pd.DataFrame]:
    """The shard of each seed, and its verdicts (perhaps with more seeds); blank for diverged samples."""
    shards = open_shards(paths)
    table = read_verdicts(verdicts)
    if classifier not in table:
        raise NrcgError(f"{verdicts}: no column {classifier!r}; it has {', '.join(table)}")
    diverged = {seed: bool(lost) for shard in shards for seed, lost in zip(shard.seeds, shard.diverged, strict=True)}
    blank = dict(zip(table["seed"], table[classifier] == "", strict=True))
    if len(blank) != len(table) or {seed: blank.get(seed) for seed in diverged} != diverged:
        raise NrcgError(f"{verdicts}: not the verdicts of the samples in {shards[0].path.parent}; make them again")
    table = table.set_index(table["seed"].astype(int)).drop(columns="seed")
    return {seed: shard for shard in shards for seed in shard.seeds}, table
