# Figures and tables, each drawn from one CSV file (or sample shards), and the target rules named like the paper's.


for target in TARGETS:

    rule:
        name:
            target
        input:
            wanted(target),


rule select_curves:
    input:
        lambda w: forward_tables(w.dataset),
    output:
        csv=f"{FIGURE}figure{{figure}}.csv",
    log:
        f"{LOGS}figure{{figure}}_data.log",
    benchmark:
        f"{BENCHMARKS}figure{{figure}}_data.tsv"
    wildcard_constraints:
        figure="[1-4]",
    localrule: True
    params:
        metrics=lambda w: flags({"metric": FORWARD_FIGURES[w.figure]}),
        setups=lambda w: flags({"setup": figure_setups(w.dataset, w.figure)}),
    shell:
        "nrcg select-curves {input:q} {params.metrics} {params.setups} --out {output:q} --log {log:q}"


rule plot_forward:
    input:
        csv=f"{FIGURE}figure{{figure}}.csv",
        setups=config["setups"],
        style=config["style"],
    output:
        png=report(
            f"{FIGURE}figure{{figure}}.png",
            caption="../report/forward.rst",
            category=CATEGORIES["forward"],
            labels=entry(lambda w: f"Figure {w.figure}", lambda w: FORWARD_FIGURES[w.figure][0].replace("_", " ")),
        ),
        pdf=f"{FIGURE}figure{{figure}}.pdf",
    log:
        f"{LOGS}figure{{figure}}.log",
    benchmark:
        f"{BENCHMARKS}figure{{figure}}.tsv"
    wildcard_constraints:
        figure="[1-4]",
    localrule: True
    params:
        chance=lambda w: flags({"chance": 1 / len(class_names(w.dataset)) if w.figure == "1" else None}),
        title=lambda w: forward_title(w.dataset, w.figure),
        note=lambda w: note_lines(forward_note(w.dataset)),
    shell:
        "nrcg plot-forward {input.csv:q} --setups {input.setups:q} --style {input.style:q} {params.chance}"
        " --title {params.title:q} {params.note} --out {output.png:q} --out {output.pdf:q} --log {log:q}"


rule plot_scales:
    input:
        csv=SCORES,
        setups=config["setups"],
        paper=config["paper_results"],
        style=config["style"],
    output:
        png=report(
            f"{FIGURE}figure{{number}}_{{metric}}.png",
            caption="../report/scales.rst",
            category=CATEGORIES["guided"],
            labels=entry(scale_name, scale_shown),
        ),
        pdf=f"{FIGURE}figure{{number}}_{{metric}}.pdf",
    log:
        f"{LOGS}figure{{number}}_{{metric}}.log",
    benchmark:
        f"{BENCHMARKS}figure{{number}}_{{metric}}.tsv"
    wildcard_constraints:
        number="5|6|7|8[abc]",
        metric="accuracy|accuracy_judge|fid|fd_judge|cfid|cfd_judge",
    localrule: True
    params:
        title=scale_title,
        note=lambda w: note_lines(
            run_note(w.dataset, paper_as="Star and dotted line, the paper" if in_paper(w) else "")
        ),
    shell:
        "nrcg plot-scales {input.csv:q} --metric {wildcards.metric:q} --dataset {wildcards.dataset:q}"
        " --setups {input.setups:q} --paper {input.paper:q} --style {input.style:q} --title {params.title:q}"
        " {params.note} --out {output.png:q} --out {output.pdf:q} --log {log:q}"


rule plot_contrast:
    input:
        csv=SCORES,
        setups=config["setups"],
        style=config["style"],
    output:
        png=report(
            f"{FIGURE}contrast.png",
            caption="../report/contrast.rst",
            category=CATEGORIES["guided"],
            labels=entry("Contrast", "guiding classifier against judge, by the logit and by log p"),
        ),
        pdf=f"{FIGURE}contrast.pdf",
    log:
        f"{LOGS}contrast.log",
    benchmark:
        f"{BENCHMARKS}contrast.tsv"
    localrule: True
    params:
        target=lambda w: settings(w)["target"],
        pair=flags({"setup": CONTRAST}),
        title=lambda w: (
            f"Share of {settings(w)['target']} by the guiding classifier and by the judge ({pretty(w.dataset)})"
        ),
        note=lambda w: note_lines(sampled_note(w.dataset, *CONTRAST)),
    shell:
        "nrcg plot-contrast {input.csv:q} --target {params.target:q} {params.pair} --dataset {wildcards.dataset:q}"
        " --setups {input.setups:q} --style {input.style:q} --title {params.title:q} {params.note}"
        " --out {output.png:q} --out {output.pdf:q} --log {log:q}"


rule write_table:
    input:
        csv=SCORES,
        setups=config["setups"],
        paper=config["paper_results"],
    output:
        csv=f"{FIGURE}table{{number}}.csv",
        md=f"{FIGURE}table{{number}}.md",
        tex=f"{FIGURE}table{{number}}.tex",
        html=report(
            f"{FIGURE}table{{number}}.html",
            caption="../report/table.rst",
            category=CATEGORIES["tables"],
            labels=entry(lambda w: f"Table {w.number}", "unconditional and guided samples, and the paper's numbers"),
        ),
    log:
        f"{LOGS}table{{number}}.log",
    benchmark:
        f"{BENCHMARKS}table{{number}}.tsv"
    wildcard_constraints:
        number="[123]",
    localrule: True
    params:
        target=lambda w: settings(w)["target"],
        title=lambda w: f"Table {w.number}: {pretty(w.dataset)}, target {settings(w)['target']}",
        note=lambda w: note_lines(run_note(w.dataset, paper_as="The paper")),
    shell:
        "nrcg table {input.csv:q} --setups {input.setups:q} --paper {input.paper:q} --dataset {wildcards.dataset:q}"
        " --target {params.target:q} --title {params.title:q} {params.note} --out {output.csv:q}"
        " --out {output.md:q} --out {output.tex:q} --out {output.html:q} --log {log:q}"


rule write_all_points:
    input:
        csv=SCORES,
        setups=config["setups"],
    output:
        csv=f"{FIGURE}all_points.csv",
        md=f"{FIGURE}all_points.md",
        tex=f"{FIGURE}all_points.tex",
        html=report(
            f"{FIGURE}all_points.html",
            caption="../report/all_points.rst",
            category=CATEGORIES["tables"],
            labels=entry("All points", "every score of every setup and scale"),
        ),
    log:
        f"{LOGS}all_points.log",
    benchmark:
        f"{BENCHMARKS}all_points.tsv"
    localrule: True
    params:
        title=lambda w: f"All points: {pretty(w.dataset)}",
        note=lambda w: note_lines(run_note(w.dataset)),
    shell:
        "nrcg all-points {input.csv:q} --setups {input.setups:q} --dataset {wildcards.dataset:q}"
        " --title {params.title:q} {params.note} --out {output.csv:q} --out {output.md:q}"
        " --out {output.tex:q} --out {output.html:q} --log {log:q}"


rule compare:
    input:
        scores=expand(SCORES, dataset=DATASETS),
        setups=config["setups"],
        paper=config["paper_results"],
    output:
        csv=COMPARISON[0],
        md=COMPARISON[1],
        tex=COMPARISON[2],
        html=report(
            COMPARISON[3],
            caption="../report/comparison.rst",
            category=CATEGORIES["tables"],
            labels={"name": "Comparison", "data set": "all", "shows": "every number of the paper, ours beside it"},
        ),
    log:
        f"{RUN}/logs/comparison.log",
    benchmark:
        f"{RUN}/benchmarks/comparison.tsv"
    localrule: True
    params:
        weights=flags({"weights": [f"{dataset}={weights_note(dataset)}" for dataset in DATASETS]}),
        note=lambda w: note_lines(
            *(f"{pretty(dataset)}: {run_note(dataset, paper_as='The paper')}" for dataset in DATASETS)
        ),
    shell:
        "nrcg comparison {input.scores:q} --setups {input.setups:q} --paper {input.paper:q} {params.weights}"
        " {params.note} --out {output.csv:q} --out {output.md:q} --out {output.tex:q} --out {output.html:q}"
        " --log {log:q}"


include: "grids.smk"
