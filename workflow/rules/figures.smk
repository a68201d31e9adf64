# Figures and tables, each drawn from one CSV file (or sample shards), and the target rules named like the paper's.


rule figure1:
    input:
        figure_files("figure1"),


rule figure2:
    input:
        figure_files("figure2"),


rule figure3:
    input:
        figure_files("figure3"),


rule figure4:
    input:
        figure_files("figure4"),


rule figure8:
    input:
        figure_files(*[SCALE_FIGURES[metric] for metric in measured_metrics()]),


rule table2:
    input:
        figure_files("table2", "all_points", suffixes=("csv", "md", "tex")),


rule grids:
    input:
        figure_files("figure9_unconditional", "figure9_conditional"),


rule contrast:
    input:
        [
            file
            for dataset in DATASETS
            if set(CONTRAST) <= set(scales_of(dataset))
            for file in expand(f"{FIGURE}contrast.{{suffix}}", dataset=dataset, suffix=["png", "pdf"])
        ],


rule side_by_side:
    input:
        figure_files("side_by_side"),


rule training_curves:
    input:
        figure_files("classifiers"),
        [
            file
            for dataset in DATASETS
            if not config["datasets"][dataset]["ddpm"]["pretrained"]
            for file in expand(f"{FIGURE}ddpm_loss.{{suffix}}", dataset=dataset, suffix=["png", "pdf"])
        ],


rule findings:
    input:
        figure_files("findings", suffixes=("md", "csv")),


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
        metric=lambda w: FORWARD_FIGURES[w.figure],
        setups=lambda w: flags({"setup": figure_setups(w.dataset, w.figure)}),
    shell:
        "nrcg select-curves {input} --metric {params.metric} {params.setups} --out {output} 2>&1 | tee {log}"


rule plot_forward:
    input:
        csv=f"{FIGURE}figure{{figure}}.csv",
        setups=config["setups"],
        style=config["style"],
    output:
        png=report(f"{FIGURE}figure{{figure}}.png", caption="../report/forward.rst", category="Forward process"),
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
        title=lambda w: f"Figure {w.figure}: {PRETTY[settings(w)['kind']]}",
        note=lambda w: note(w.dataset, forward=True),
    shell:
        "nrcg plot-forward {input.csv} --setups {input.setups} --style {input.style} {params.chance}"
        " --title {params.title:q} --note {params.note:q} --out {output.png} --out {output.pdf} 2>&1 | tee {log}"


rule plot_scales:
    input:
        csv=SCORES,
        setups=config["setups"],
        paper=config["paper_results"],
        style=config["style"],
    output:
        png=report(
            f"{FIGURE}figure8{{panel}}_{{metric}}.png", caption="../report/figure8.rst", category="Guided sampling"
        ),
        pdf=f"{FIGURE}figure8{{panel}}_{{metric}}.pdf",
    log:
        f"{LOGS}figure8{{panel}}_{{metric}}.log",
    benchmark:
        f"{BENCHMARKS}figure8{{panel}}_{{metric}}.tsv"
    wildcard_constraints:
        panel="[abc]",
        metric="|".join(SCALE_FIGURES),
    localrule: True
    params:
        title=lambda w: f"Figure 8 {w.panel}: {PRETTY[settings(w)['kind']]}",
        note=lambda w: note(w.dataset),
    shell:
        "nrcg plot-scales {input.csv} --metric {wildcards.metric} --dataset {wildcards.dataset}"
        " --setups {input.setups} --paper {input.paper} --style {input.style}"
        " --title {params.title:q} --note {params.note:q} --out {output.png} --out {output.pdf} 2>&1 | tee {log}"


rule plot_contrast:
    input:
        csv=SCORES,
        setups=config["setups"],
        style=config["style"],
    output:
        png=report(f"{FIGURE}contrast.png", caption="../report/contrast.rst", category="Guided sampling"),
        pdf=f"{FIGURE}contrast.pdf",
    log:
        f"{LOGS}contrast.log",
    benchmark:
        f"{BENCHMARKS}contrast.tsv"
    localrule: True
    params:
        target=lambda w: settings(w)["target"],
        pair=flags({"setup": CONTRAST}),
        note=lambda w: note(w.dataset),
    shell:
        "nrcg plot-contrast {input.csv} --target {params.target:q} {params.pair} --dataset {wildcards.dataset}"
        " --setups {input.setups} --style {input.style} --note {params.note:q}"
        " --out {output.png} --out {output.pdf} 2>&1 | tee {log}"


rule write_table2:
    input:
        csv=SCORES,
        setups=config["setups"],
        paper=config["paper_results"],
    output:
        csv=f"{FIGURE}table2.csv",
        md=report(f"{FIGURE}table2.md", caption="../report/table2.rst", category="Tables"),
        tex=f"{FIGURE}table2.tex",
    log:
        f"{LOGS}table2.log",
    benchmark:
        f"{BENCHMARKS}table2.tsv"
    localrule: True
    params:
        target=lambda w: settings(w)["target"],
        title=lambda w: f"Table 2: {PRETTY[settings(w)['kind']]}",
        note=lambda w: note(w.dataset),
    shell:
        "nrcg table {input.csv} --setups {input.setups} --paper {input.paper} --dataset {wildcards.dataset}"
        " --target {params.target:q} --title {params.title:q} --note {params.note:q}"
        " --out {output.csv} --out {output.md} --out {output.tex} 2>&1 | tee {log}"


rule write_all_points:
    input:
        csv=SCORES,
        setups=config["setups"],
    output:
        csv=f"{FIGURE}all_points.csv",
        md=report(f"{FIGURE}all_points.md", caption="../report/all_points.rst", category="Tables"),
        tex=f"{FIGURE}all_points.tex",
    log:
        f"{LOGS}all_points.log",
    benchmark:
        f"{BENCHMARKS}all_points.tsv"
    localrule: True
    params:
        title=lambda w: f"All points: {PRETTY[settings(w)['kind']]}",
        note=lambda w: note(w.dataset),
    shell:
        "nrcg all-points {input.csv} --setups {input.setups} --dataset {wildcards.dataset}"
        " --title {params.title:q} --note {params.note:q}"
        " --out {output.csv} --out {output.md} --out {output.tex} 2>&1 | tee {log}"


include: "grids.smk"
