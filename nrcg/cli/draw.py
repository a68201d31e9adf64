"""Verbs that draw: figures, grids and tables, from CSV files and sample shards."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from nrcg.cli.options import Dataset, Note, Outs, Paper, Setups, Style, Title, draw_verbs, split_pair
from nrcg.errors import NrcgError

Csv = Annotated[Path, Argument(help="Tidy CSV file to draw.")]
PaperTable = Annotated[Path, Option("--paper", help="Table (TSV) of what the paper reports, to show beside.")]
TargetName = Annotated[str, Option("--target", help="Name of the target class, for labels.")]


@draw_verbs.command("forward")
def plot_forward(
    csv: Csv,
    out: Outs,
    setups: Setups,
    chance: Annotated[float | None, Option(help="Accuracy of guessing, drawn as a line.")] = None,
    style: Style = None,
    title: Title = "",
    note: Note = (),
) -> None:
    """Figures 1 to 4: a metric along the forward process, a curve a setup."""
    from nrcg.plots.forward import plot_forward as plot

    plot(csv, out, setups_tsv=setups, chance=chance, style=style, title=title, note="\n".join(note))


@draw_verbs.command("scales")
def plot_scales(
    csv: Csv,
    metric: Annotated[str, Option(help="accuracy, accuracy_judge, fid, cfid, fd_judge or cfd_judge.")],
    out: Outs,
    setups: Setups,
    dataset: Dataset = None,
    paper: Paper = None,
    style: Style = None,
    title: Title = "",
    note: Note = (),
) -> None:
    """Figures 5 to 8: a score against the guidance scale, one line per setup."""
    from nrcg.plots.scales import plot_scales as plot

    plot(
        csv,
        metric,
        out,
        setups_tsv=setups,
        dataset=dataset,
        paper_csv=paper,
        style=style,
        title=title,
        note="\n".join(note),
    )


@draw_verbs.command("contrast")
def plot_contrast(
    csv: Csv,
    out: Outs,
    setups: Setups,
    target: TargetName,
    setup: Annotated[list[str], Option(help="The setup with the logit objective, then the one with log_prob.")],
    dataset: Dataset = None,
    style: Style = None,
    title: Title = "",
    note: Note = (),
) -> None:
    """Share of the target class by the guiding classifier and by the judge, for two objectives."""
    from nrcg.plots.scales import plot_contrast as plot

    if len(setup) != 2:
        raise NrcgError(f"--setup: {len(setup)} given; give two, logit and log_prob")
    plot(
        csv,
        out,
        setups_tsv=setups,
        target_name=target,
        setups=(setup[0], setup[1]),
        dataset=dataset,
        style=style,
        title=title,
        note="\n".join(note),
    )


@draw_verbs.command("table")
def table(
    csv: Csv,
    out: Outs,
    setups: Setups,
    target: TargetName,
    paper: PaperTable,
    dataset: Dataset = None,
    title: Title = "",
    note: Note = (),
) -> None:
    """Tables 1 to 3: unconditional and guided samples, the paper's numbers beside ours."""
    from nrcg.report.tables import write_table

    write_table(
        csv,
        out,
        setups_tsv=setups,
        target_name=target,
        paper_csv=paper,
        dataset=dataset,
        title=title,
        note="\n".join(note),
    )


@draw_verbs.command("points")
def all_points(
    csv: Csv, out: Outs, setups: Setups, dataset: Dataset = None, title: Title = "", note: Note = ()
) -> None:
    """Every score of every point, as one table."""
    from nrcg.report.tables import write_all_points

    write_all_points(csv, out, setups_tsv=setups, dataset=dataset, title=title, note="\n".join(note))


@draw_verbs.command("comparison")
def comparison(
    scores: Annotated[list[Path], Argument(help="Collected scores (CSV), of one or more data sets.")],
    out: Outs,
    setups: Setups,
    paper: PaperTable,
    weights: Annotated[list[str], Option(help="DATASET=TEXT, whose networks were run; repeat.")],
    title: Title = "",
    note: Note = (),
) -> None:
    """Every number that the paper reports, and ours beside it."""
    from nrcg.report.comparison import write_comparison

    texts = dict(split_pair(text, "--weights") for text in weights)
    write_comparison(scores, out, paper_tsv=paper, setups_tsv=setups, weights=texts, title=title, note="\n".join(note))


@draw_verbs.command("grid")
def grid(
    shards: Annotated[list[Path], Argument(help="Sample shards (.npy), in order.")],
    out: Outs,
    n: Annotated[int, Option(help="Samples to show.", min=1)] = 256,
    columns: Annotated[int, Option(min=1)] = 16,
    style: Style = None,
    title: Title = "",
    note: Note = (),
) -> None:
    """Figure 9: the first samples of a point."""
    from nrcg.plots.samples import plot_grid

    plot_grid(shards, out, n=n, columns=columns, style=style, title=title, note="\n".join(note))


@draw_verbs.command("side-by-side")
def side_by_side(
    scores: Annotated[Path, Option(help="Collected scores (CSV), which say the best scale of each setup.")],
    point: Annotated[list[str], Option(help="SETUP:SCALE=SHARD, SCALE - where there is none; repeat.")],
    out: Outs,
    setups: Setups,
    dataset: Dataset = None,
    n: Annotated[int, Option(help="Seeds to show.", min=1)] = 10,
    style: Style = None,
    title: Title = "",
    note: Note = (),
) -> None:
    """The same seeds under each setup, at the scale that comes nearest to the target class."""
    from nrcg.plots.samples import plot_side_by_side
    from nrcg.report.best import best_rows

    shards = {}
    for name, path in (split_pair(text, "--point") for text in point):
        setup, _, scale = name.rpartition(":")
        try:
            shards[setup, None if scale == "-" else float(scale)] = Path(path)
        except ValueError:
            raise NrcgError(f"--point {name!r}: write SETUP:SCALE=SHARD") from None
    rows = best_rows(scores, shards, setups, dataset)
    plot_side_by_side(rows, out, n=n, style=style, title=title, note="\n".join(note))


@draw_verbs.command("before-after")
def before_after(
    before: Annotated[list[Path], Option(help="Unguided sample shards (.npy); repeat.")],
    after: Annotated[list[Path], Option(help="Guided sample shards (.npy); repeat.")],
    verdicts_before: Annotated[Path, Option(help="Verdicts of `nrcg score` on the unguided samples (CSV).")],
    verdicts_after: Annotated[Path, Option(help="Verdicts on the guided samples (CSV).")],
    target: TargetName,
    out: Outs,
    classifier: Annotated[str, Option(help="Whose verdicts count: guiding or judge.")] = "guiding",
    n: Annotated[int, Option(help="Seeds to show, up to 12.", min=1)] = 10,
    style: Style = None,
    title: Title = "",
    note: Note = (),
) -> None:
    """Seeds that were another class than the target, before and after guidance."""
    from nrcg.plots.before_after import plot_before_after as plot

    plot(
        before,
        after,
        out,
        verdicts_before=verdicts_before,
        verdicts_after=verdicts_after,
        classifier=classifier,
        target_name=target,
        n=n,
        style=style,
        title=title,
        note="\n".join(note),
    )


@draw_verbs.command("ddpm-log")
def plot_ddpm_log(csv: Csv, out: Outs, style: Style = None, title: Title = "", note: Note = ()) -> None:
    """Training loss of a DDPM."""
    from nrcg.plots.training import plot_ddpm_log as plot

    plot(csv, out, style=style, title=title, note="\n".join(note))


@draw_verbs.command("classifier-logs")
def plot_classifier_logs(
    curves: Annotated[list[str], Option(help="ROLE=CSV, for example robust=log.csv; repeat.")],
    out: Outs,
    setups: Setups,
    style: Style = None,
    title: Title = "",
    note: Note = (),
) -> None:
    """Loss and validation accuracy while the classifiers train."""
    from nrcg.plots.training import plot_classifier_logs as plot

    logs = [split_pair(text, "--curves") for text in curves]
    plot(logs, out, setups_tsv=setups, style=style, title=title, note="\n".join(note))


@draw_verbs.command("findings")
def findings(
    scores: Annotated[Path, Option(help="Collected scores (CSV).")],
    unconditional: Annotated[list[Path], Option(help="Unguided sample shards (.npy); repeat.")],
    out: Outs,
    setups: Setups,
    target: TargetName,
    dataset: Annotated[str, Option(help="Data set.")],
    classes: Annotated[int, Option(help="Number of classes.", min=2)],
    figure: Annotated[
        list[str] | None, Option(help="NUMBER=CSV of figures 1 to 4, where there are any; repeat.")
    ] = None,
    classifier: Annotated[
        list[str] | None, Option(help="ROLE=CARD.JSON, whose valid_accuracy the page quotes; repeat.")
    ] = None,
    title: Title = "",
    note: Note = (),
) -> None:
    """The paper's claims, each with what was measured and whether it is seen."""
    from nrcg.report.findings import write_findings

    write_findings(
        out,
        figures={int(number): Path(csv) for number, csv in (split_pair(text, "--figure") for text in figure or [])},
        classifiers=dict(split_pair(text, "--classifier") for text in classifier or []),
        scores=scores,
        unconditional_shards=unconditional,
        setups_tsv=setups,
        target_name=target,
        n_classes=classes,
        dataset=dataset,
        title=title,
        note="\n".join(note),
    )
