# Pictures of samples and trainings, and the page of findings.


def grid_point(wildcards):
    """(setup, scale) of a grid: the unguided samples, or the point that the config shows."""
    if wildcards.which == UNGUIDED:
        return UNGUIDED, "none"
    shown = settings(wildcards)["showcase"]
    return shown["setup"], f"{shown['scale']:g}"


rule plot_grid:
    input:
        shards=lambda w: shards(w.dataset, *grid_point(w), first=GRID_SAMPLES),
        style=config["style"],
    output:
        report(FIGURE + "figure9_{which}.png", caption="../report/figure9.rst", category="Samples"),
        FIGURE + "figure9_{which}.pdf",
    params:
        n=GRID_SAMPLES,
        title=lambda w: f"Figure 9: {PRETTY[settings(w)['kind']]}, {row_label(*grid_point(w))}",
        note=lambda w: note(w.dataset),
    wildcard_constraints:
        which="unconditional|conditional",
    log:
        LOGS + "figure9_{which}.log",
    benchmark:
        BENCHMARKS + "figure9_{which}.tsv"
    localrule: True
    shell:
        "nrcg grid {input.shards} --n {params.n} --style {input.style} --title {params.title:q}"
        " --note {params.note:q} --out {output[0]} --out {output[1]} 2>&1 | tee {log}"


rule plot_side_by_side:
    input:
        shards=lambda w: [shards(w.dataset, *point, first=1)[0] for point in compared_points(w.dataset)],
        style=config["style"],
    output:
        report(FIGURE + "side_by_side.png", caption="../report/side_by_side.rst", category="Samples"),
        FIGURE + "side_by_side.pdf",
    params:
        rows=lambda w, input: flags(
            {
                "row": [
                    f"{row_label(*point)}={path}"
                    for point, path in zip(compared_points(w.dataset), input.shards)
                ]
            }
        ),
        title=lambda w: f"The same seeds across setups and scales s: {PRETTY[settings(w)['kind']]}",
        note=lambda w: note(w.dataset),
    log:
        LOGS + "side_by_side.log",
    benchmark:
        BENCHMARKS + "side_by_side.tsv"
    localrule: True
    shell:
        "nrcg side-by-side {params.rows} --style {input.style} --title {params.title:q} --note {params.note:q}"
        " --out {output[0]} --out {output[1]} 2>&1 | tee {log}"


rule plot_classifiers:
    input:
        logs=lambda w: [
            CLASSIFIER.format(dataset=w.dataset, classifier=name) + "/log.csv" for name in settings(w)["classifiers"]
        ],
        style=config["style"],
    output:
        report(FIGURE + "classifiers.png", caption="../report/classifiers.rst", category="Training"),
        FIGURE + "classifiers.pdf",
    params:
        logs=lambda w, input: flags(
            {"log": [f"{name}={path}" for name, path in zip(settings(w)["classifiers"], input.logs)]}
        ),
    log:
        LOGS + "classifiers.log",
    benchmark:
        BENCHMARKS + "classifiers.tsv"
    localrule: True
    shell:
        "nrcg plot-classifier-logs {params.logs} --style {input.style}"
        " --out {output[0]} --out {output[1]} 2>&1 | tee {log}"


rule plot_ddpm_loss:
    input:
        csv=DDPM + "/log.csv",
        style=config["style"],
    output:
        report(FIGURE + "ddpm_loss.png", caption="../report/ddpm_loss.rst", category="Training"),
        FIGURE + "ddpm_loss.pdf",
    log:
        LOGS + "ddpm_loss.log",
    benchmark:
        BENCHMARKS + "ddpm_loss.tsv"
    localrule: True
    shell:
        "nrcg plot-ddpm-log {input.csv} --style {input.style} --out {output[0]} --out {output[1]} 2>&1 | tee {log}"


rule write_findings:
    input:
        figures=expand(FIGURE + "figure{figure}.csv", figure=FORWARD_FIGURES, allow_missing=True),
        scores=SCORES,
        unconditional=lambda w: shards(w.dataset, UNGUIDED, "none", first=GRID_SAMPLES),
        setups=config["setups"],
    output:
        report(FIGURE + "findings.md", caption="../report/findings.rst", category="Findings"),
        FIGURE + "findings.csv",
    params:
        options=lambda w, input: flags(
            {
                "figure": [f"{number}={path}" for number, path in zip(FORWARD_FIGURES, input.figures)],
                "unconditional": list(input.unconditional),
                "target": settings(w)["target"],
                "classes": len(class_names(w.dataset)),
                "note": note(w.dataset),
            }
        ),
    log:
        LOGS + "findings.log",
    benchmark:
        BENCHMARKS + "findings.tsv"
    localrule: True
    shell:
        "nrcg findings {params.options} --scores {input.scores} --dataset {wildcards.dataset}"
        " --setups {input.setups} --out {output[0]} --out {output[1]} 2>&1 | tee {log}"
