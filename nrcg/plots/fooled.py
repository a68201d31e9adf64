"""Samples about which the guiding classifier and the judge disagree, for each setup at its chosen scale."""

from matplotlib.figure import Figure

from nrcg.checks import check, whole
from nrcg.errors import NrcgError
from nrcg.evaluation.points import read_points
from nrcg.io.shards import Shard
from nrcg.io.tables import read_verdicts
from nrcg.plots import WORDS
from nrcg.plots.samples import Cell, JudgedPoint, draw_sheet, same_size
from nrcg.plots.setups import Setup, read_setups
from nrcg.plots.style import File, Page, draws, text_figure
from nrcg.registry import call

CAPTIONS = ("seed:", "guiding classifier:", "judge:")  # of the lines below a sample


@draws("fooled")
def plot_fooled(
    page: Page, csv: File, setups: File, points: list[dict], target: str, dataset: str | None = None, n: int = 8
) -> Figure:
    """Samples that the guiding classifier and the judge assign to different classes, one row per setup that has any.

    Args:
        csv: determines the chosen scale of each setup; setups without scores are omitted.
        points: {"setup": name, "scale": number or null, "shard": path, "verdicts": path} per point.
        target: name of the target class.
        n: maximum number of samples per setup, the first by seed.
    """
    check("fooled", {"n": n}, {"n": whole(1, 12)})  # more class names would not fit below the samples
    best = read_points(csv, dataset).best
    known = {name: setup for name, setup in read_setups(setups).items() if name in best}
    given = {(each.setup, each.scale): each for each in (call(JudgedPoint, "points", point) for point in points)}
    if not known:
        raise NrcgError(f"{csv}: no setup of {setups} has a chosen scale; name the setups of these scores")
    rows = [_row(setup, best[name], given, target, n) for name, setup in known.items()]
    empty = Cell(same_size([shard for _, _, shard in rows])[0].images[0], lost=False, unused=True)
    none = "; ".join(label for label, cells, _ in rows if not cells)
    notes = [WORDS["fooled"]["none"].format(setups=none)] if none else []
    columns = max(len(cells) for _, cells, _ in rows)
    if not columns:
        return text_figure(page, notes[0])
    cells = [cell for _, found, _ in rows if found for cell in [*found, *[empty] * (columns - len(found))]]
    labels = [label for label, found, _ in rows if found]
    note = "\n".join(filter(None, [WORDS["fooled"]["shown"].format(target=target), *notes, page.note]))
    return draw_sheet(cells, columns, page.title, note, labels=labels, captions=CAPTIONS, span=n)


def _row(
    setup: Setup, scale: float, given: dict[tuple[str, float | None], JudgedPoint], target: str, n: int
) -> tuple[str, list[Cell], Shard]:
    """Label, samples and shard of a setup at a scale."""
    if (setup.name, scale) not in given:
        raise NrcgError(f"no shard of {setup.name} at scale {scale:g}; add it to `points`")
    point = given[setup.name, scale]
    shard, verdicts = Shard.open(point.shard), read_verdicts(point.verdicts).set_index("seed")
    verdicts = verdicts.loc[verdicts.index >= shard.seeds.start]
    differ = verdicts[(verdicts["guiding"] != verdicts["judge"]) & ~verdicts["diverged"]]
    cells = []
    for seed in [seed for seed in differ.index if seed in shard.seeds][:n]:
        own, other = differ.loc[seed, ["guiding", "judge"]]
        lines = ((str(seed), False), (own, own == target), (other, other == target))
        cells.append(Cell.of(shard, seed, lines))
    return f"{setup.label}, s = {scale:g}: {len(differ)} of {len(verdicts)}", cells, shard
