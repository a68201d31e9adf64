# Pictures of samples and of training, and the page of findings.


rule plot_grid:
    input:
        shards=lambda w: first(w.dataset, *grid_point(w)),
        style=config["style"],
    output:
        png=report(
            f"{FIGURE}figure9_{{which}}.png",
            caption="../report/figure9.rst",
            category=CATEGORIES["samples"],
            labels=entry(
                lambda w: f"Figure {paper(w.dataset)['grids'][w.which]}", lambda w: row_label(*grid_point(w))
            ),
        ),
        pdf=f"{FIGURE}figure9_{{which}}.pdf",
    log:
        f"{LOGS}figure9_{{which}}.log",
    benchmark:
        f"{BENCHMARKS}figure9_{{which}}.tsv"
    wildcard_constraints:
        which="unconditional|conditional",
    localrule: True
    params:
        n=PICTURED,
        title=lambda w: (
            f"Figure {paper(w.dataset)['grids'][w.which]}: {pretty(w.dataset)}, {row_label(*grid_point(w))}"
        ),
        note=lambda w: note_lines(
            "" if n_samples(w.dataset, grid_point(w)[0]) >= PICTURED else f"The paper shows {PICTURED}.",
            sampled_note(w.dataset, grid_point(w)[0]),
        ),
    shell:
        "nrcg grid {input.shards:q} --n {params.n} --style {input.style:q} --title {params.title:q}"
        " {params.note} --out {output.png:q} --out {output.pdf:q} --log {log:q}"


rule plot_side_by_side:
    input:
        scores=SCORES,
        setups=config["setups"],
        shards=lambda w: [first(w.dataset, *point) for point in points(w.dataset)],
        style=config["style"],
    output:
        png=report(
            f"{FIGURE}side_by_side.png",
            caption="../report/side_by_side.rst",
            category=CATEGORIES["samples"],
            labels=entry("Side by side", "the same seeds, each setup at its best scale"),
        ),
        pdf=f"{FIGURE}side_by_side.pdf",
    log:
        f"{LOGS}side_by_side.log",
    benchmark:
        f"{BENCHMARKS}side_by_side.tsv"
    localrule: True
    params:
        points=lambda w, input: flags(
            {
                "point": [
                    f"{setup}:{'-' if scale == 'none' else scale}={path}"
                    for (setup, scale), path in zip(points(w.dataset), input.shards)
                ]
            }
        ),
        title=lambda w: f"The same seeds, each setup at its best scale s ({pretty(w.dataset)})",
        note=lambda w: note_lines(
            "Best: nearest to the target class. A blank cell is a sample too.", run_note(w.dataset)
        ),
    shell:
        "nrcg side-by-side --scores {input.scores:q} {params.points} --setups {input.setups:q}"
        " --dataset {wildcards.dataset:q} --style {input.style:q} --title {params.title:q} {params.note}"
        " --out {output.png:q} --out {output.pdf:q} --log {log:q}"


rule plot_before_after:
    input:
        before=lambda w: first(w.dataset, UNGUIDED, "none"),
        after=lambda w: first(w.dataset, *showcase(w.dataset)),
        verdicts_before=lambda w: VERDICTS.format(dataset=w.dataset, setup=UNGUIDED, scale="none"),
        verdicts_after=lambda w: VERDICTS.format(
            dataset=w.dataset, setup=showcase(w.dataset)[0], scale=showcase(w.dataset)[1]
        ),
        style=config["style"],
    output:
        png=report(
            f"{FIGURE}before_after.png",
            caption="../report/before_after.rst",
            category=CATEGORIES["samples"],
            labels=entry("Before and after", lambda w: row_label(*showcase(w.dataset))),
        ),
        pdf=f"{FIGURE}before_after.pdf",
    log:
        f"{LOGS}before_after.log",
    benchmark:
        f"{BENCHMARKS}before_after.tsv"
    localrule: True
    params:
        target=lambda w: settings(w)["target"],
        classifier=lambda w: "guiding" if guiding(showcase(w.dataset)[0]) == UNGUIDED_SCORED_BY else "judge",
        title=lambda w: f"Before and after guidance: {pretty(w.dataset)}, {row_label(*showcase(w.dataset))}",
        note=lambda w: note_lines(sampled_note(w.dataset, showcase(w.dataset)[0])),
    shell:
        "nrcg before-after --before {input.before:q} --after {input.after:q}"
        " --verdicts-before {input.verdicts_before:q} --verdicts-after {input.verdicts_after:q}"
        " --target {params.target:q} --style {input.style:q} --classifier {params.classifier:q}"
        " --title {params.title:q} {params.note} --out {output.png:q} --out {output.pdf:q} --log {log:q}"


rule plot_classifiers:
    input:
        logs=lambda w: list(classifier_logs(w.dataset).values()),
        setups=config["setups"],
        style=config["style"],
    output:
        png=report(
            f"{FIGURE}classifiers.png",
            caption="../report/classifiers.rst",
            category=CATEGORIES["training"],
            labels=entry("Classifiers", "loss and accuracy while they train"),
        ),
        pdf=f"{FIGURE}classifiers.pdf",
    log:
        f"{LOGS}classifiers.log",
    benchmark:
        f"{BENCHMARKS}classifiers.tsv"
    localrule: True
    params:
        logs=lambda w: flags({"curves": [f"{name}={path}" for name, path in classifier_logs(w.dataset).items()]}),
        title=lambda w: f"Training of the classifiers and the judge ({pretty(w.dataset)})",
        note=lambda w: note_lines(classifiers_note(w)),
    shell:
        "nrcg plot-classifier-logs {params.logs} --setups {input.setups:q} --style {input.style:q}"
        " --title {params.title:q} {params.note} --out {output.png:q} --out {output.pdf:q} --log {log:q}"


rule plot_ddpm_loss:
    input:
        csv=f"{DDPM}/log.csv",
        style=config["style"],
    output:
        png=report(
            f"{FIGURE}ddpm_loss.png",
            caption="../report/ddpm_loss.rst",
            category=CATEGORIES["training"],
            labels=entry("DDPM", "loss while it trains"),
        ),
        pdf=f"{FIGURE}ddpm_loss.pdf",
    log:
        f"{LOGS}ddpm_loss.log",
    benchmark:
        f"{BENCHMARKS}ddpm_loss.tsv"
    localrule: True
    params:
        title=lambda w: f"Training loss of the DDPM ({pretty(w.dataset)})",
    shell:
        "nrcg plot-ddpm-log {input.csv:q} --style {input.style:q} --title {params.title:q} --out {output.png:q}"
        " --out {output.pdf:q} --log {log:q}"


rule write_findings:
    input:
        figures=lambda w: expand(f"{FIGURE}figure{{figure}}.csv", figure=forward_numbers(w.dataset), dataset=w.dataset),
        scores=SCORES,
        unconditional=lambda w: first(w.dataset, UNGUIDED, "none"),
        cards=lambda w: [classifier_files(name)(w)[1] for name in guiding_classifiers(w.dataset)],
        setups=config["setups"],
    output:
        md=f"{FIGURE}findings.md",
        csv=f"{FIGURE}findings.csv",
        html=report(
            f"{FIGURE}findings.html",
            caption="../report/findings.rst",
            category=CATEGORIES["findings"],
            labels=entry("Findings", "the paper's claims, and whether this run shows them"),
        ),
    log:
        f"{LOGS}findings.log",
    benchmark:
        f"{BENCHMARKS}findings.tsv"
    localrule: True
    params:
        options=lambda w, input: flags(
            {
                "figure": [f"{number}={path}" for number, path in zip(forward_numbers(w.dataset), input.figures)],
                "unconditional": input.unconditional,
                "classifier": [f"{name}={path}" for name, path in zip(guiding_classifiers(w.dataset), input.cards)],
                "target": settings(w)["target"],
                "classes": len(class_names(w.dataset)),
                "title": f"Findings: {pretty(w.dataset)}",
                "note": run_note(w.dataset).splitlines(),
            }
        ),
    shell:
        "nrcg findings {params.options} --scores {input.scores:q} --dataset {wildcards.dataset:q}"
        " --setups {input.setups:q} --out {output.md:q} --out {output.csv:q} --out {output.html:q} --log {log:q}"
