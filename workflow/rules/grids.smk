# Pictures of samples and trainings, and the page of findings.


rule plot_grid:
    input:
        shards=lambda w: first(w.dataset, *grid_point(w)),
        style=config["style"],
    output:
        png=report(f"{FIGURE}figure9_{{which}}.png", caption="../report/figure9.rst", category="Samples"),
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
        note=lambda w: note(w.dataset),
    shell:
        "nrcg grid {input.shards:q} --n {params.n} --style {input.style:q} --title {params.title:q}"
        " --note {params.note:q} --out {output.png:q} --out {output.pdf:q} --log {log:q}"


rule plot_side_by_side:
    input:
        shards=lambda w: [first(w.dataset, *point) for point in compared_points(w.dataset)],
        style=config["style"],
    output:
        png=report(f"{FIGURE}side_by_side.png", caption="../report/side_by_side.rst", category="Samples"),
        pdf=f"{FIGURE}side_by_side.pdf",
    log:
        f"{LOGS}side_by_side.log",
    benchmark:
        f"{BENCHMARKS}side_by_side.tsv"
    localrule: True
    params:
        rows=lambda w, input: flags(
            {"row": [f"{row_label(*point)}={path}" for point, path in zip(compared_points(w.dataset), input.shards)]}
        ),
        title=lambda w: f"The same seeds across setups and scales s: {pretty(w.dataset)}",
        note=lambda w: note(w.dataset),
    shell:
        "nrcg side-by-side {params.rows} --style {input.style:q} --title {params.title:q} --note {params.note:q}"
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
        png=report(f"{FIGURE}before_after.png", caption="../report/before_after.rst", category="Samples"),
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
        note=lambda w: note(w.dataset),
    shell:
        "nrcg before-after --before {input.before:q} --after {input.after:q}"
        " --verdicts-before {input.verdicts_before:q} --verdicts-after {input.verdicts_after:q}"
        " --target {params.target:q} --style {input.style:q} --classifier {params.classifier:q}"
        " --title {params.title:q} --note {params.note:q} --out {output.png:q} --out {output.pdf:q} --log {log:q}"


rule plot_classifiers:
    input:
        logs=lambda w: list(classifier_logs(w.dataset).values()),
        style=config["style"],
    output:
        png=report(f"{FIGURE}classifiers.png", caption="../report/classifiers.rst", category="Training"),
        pdf=f"{FIGURE}classifiers.pdf",
    log:
        f"{LOGS}classifiers.log",
    benchmark:
        f"{BENCHMARKS}classifiers.tsv"
    localrule: True
    params:
        logs=lambda w: flags({"curves": [f"{name}={path}" for name, path in classifier_logs(w.dataset).items()]}),
    shell:
        "nrcg plot-classifier-logs {params.logs} --style {input.style:q} --out {output.png:q} --out {output.pdf:q}"
        " --log {log:q}"


rule plot_ddpm_loss:
    input:
        csv=f"{DDPM}/log.csv",
        style=config["style"],
    output:
        png=report(f"{FIGURE}ddpm_loss.png", caption="../report/ddpm_loss.rst", category="Training"),
        pdf=f"{FIGURE}ddpm_loss.pdf",
    log:
        f"{LOGS}ddpm_loss.log",
    benchmark:
        f"{BENCHMARKS}ddpm_loss.tsv"
    localrule: True
    shell:
        "nrcg plot-ddpm-log {input.csv:q} --style {input.style:q} --out {output.png:q} --out {output.pdf:q}"
        " --log {log:q}"


rule write_findings:
    input:
        figures=lambda w: expand(f"{FIGURE}figure{{figure}}.csv", figure=forward_numbers(w.dataset), dataset=w.dataset),
        scores=SCORES,
        unconditional=lambda w: first(w.dataset, UNGUIDED, "none"),
        setups=config["setups"],
    output:
        md=report(f"{FIGURE}findings.md", caption="../report/findings.rst", category="Findings"),
        csv=f"{FIGURE}findings.csv",
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
                "target": settings(w)["target"],
                "classes": len(class_names(w.dataset)),
                "note": note(w.dataset),
            }
        ),
    shell:
        "nrcg findings {params.options} --scores {input.scores:q} --dataset {wildcards.dataset:q}"
        " --setups {input.setups:q} --out {output.md:q} --out {output.csv:q} --log {log:q}"
