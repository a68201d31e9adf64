# Figures and tables, each drawn from one CSV file (or sample shards), and the target rules named like the paper's.

FORWARD_FIGURES = {  # figure: its metric
    "1": "accuracy",
    "2": "logit_sensitivity",
    "3": "gradient_sensitivity",
    "4": "gradient_sensitivity",
}
SCALE_FIGURES = {  # metric: its name; the paper knows a, b and c, the judge's are ours
    "accuracy": "figure8a_accuracy",
    "accuracy_judge": "figure8a_accuracy_judge",
    "fid": "figure8b_fid",
    "fd_judge": "figure8b_fd_judge",
    "cfid": "figure8c_cfid",
    "cfd_judge": "figure8c_cfd_judge",
}
CONTRAST = ["nonrobust_x0_ema0.99", "nonrobust_x0_ema0.99_logprob"]
GRID_SAMPLES = 256
PRETTY = {"sportballs": "SportBalls"}


def figure_files(*names, suffixes=("png", "pdf")):
    """A figure's files for every data set."""
    return expand(FIGURE + "{name}.{suffix}", dataset=DATASETS, name=names, suffix=suffixes)


def both(name):
    """The output files of a figure that the report shows as a PNG."""
    return [FIGURE + name + ".png", FIGURE + name + ".pdf"]


def measured_metrics():
    """Metrics against the scale, as far as their extractor is configured."""
    without = {"inception": ["fid", "cfid"], "judge": ["fd_judge", "cfd_judge"]}
    missing = [m for extractor, metrics in without.items() if extractor not in config["extractors"] for m in metrics]
    return [metric for metric in SCALE_FIGURES if metric not in missing]


def compared_points(dataset):
    """Rows of the side-by-side figure: every setup at its lowest, middle and highest scale, without repeats."""
    rows = [(UNGUIDED, "none")]
    for setup in SETUPS.index:
        scales = [scale for name, scale in guided_points(dataset) if name == setup]
        rows += [(setup, scale) for scale in dict.fromkeys(scales[i] for i in (0, len(scales) // 2, -1) if scales)]
    return rows


def row_label(setup, scale):
    return SETUPS.loc[setup, "label"] + ("" if scale == "none" else f", s = {scale}")


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
            if set(CONTRAST) <= set(config["datasets"][dataset]["scales"])
            for file in expand(FIGURE + "contrast.{suffix}", dataset=dataset, suffix=["png", "pdf"])
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
            for file in expand(FIGURE + "ddpm_loss.{suffix}", dataset=dataset, suffix=["png", "pdf"])
        ],


rule findings:
    input:
        figure_files("findings", suffixes=("md", "csv")),


rule select_curves:
    input:
        lambda w: forward_tables(w.dataset),
    output:
        FIGURE + "figure{figure}.csv",
    params:
        metric=lambda w: FORWARD_FIGURES[w.figure],
        setups=lambda w: flags({"setup": figure_setups(w.dataset, w.figure)}),
    wildcard_constraints:
        figure="[1-4]",
    log:
        LOGS + "figure{figure}_data.log",
    benchmark:
        BENCHMARKS + "figure{figure}_data.tsv"
    localrule: True
    shell:
        "nrcg select-curves {input} --metric {params.metric} {params.setups} --out {output} 2>&1 | tee {log}"


rule plot_forward:
    input:
        csv=FIGURE + "figure{figure}.csv",
        setups=config["setups"],
        style=config["style"],
    output:
        report(FIGURE + "figure{figure}.png", caption="../report/figure{figure}.rst", category="Forward process"),
        FIGURE + "figure{figure}.pdf",
    params:
        chance=lambda w: flags({"chance": 1 / len(class_names(w.dataset)) if w.figure == "1" else None}),
        title=lambda w: f"Figure {w.figure}: {PRETTY[settings(w)['kind']]}",
        note=lambda w: note(w.dataset, forward=True),
    wildcard_constraints:
        figure="[1-4]",
    log:
        LOGS + "figure{figure}.log",
    benchmark:
        BENCHMARKS + "figure{figure}.tsv"
    localrule: True
    shell:
        "nrcg plot-forward {input.csv} --setups {input.setups} --style {input.style} {params.chance}"
        " --title {params.title:q} --note {params.note:q} --out {output[0]} --out {output[1]} 2>&1 | tee {log}"


rule plot_scales:
    input:
        csv=SCORES,
        setups=config["setups"],
        paper=config["paper_results"],
        style=config["style"],
    output:
        report(FIGURE + "figure8{panel}_{metric}.png", caption="../report/figure8.rst", category="Guided sampling"),
        FIGURE + "figure8{panel}_{metric}.pdf",
    params:
        title=lambda w: f"Figure 8 {w.panel}: {PRETTY[settings(w)['kind']]}",
        note=lambda w: note(w.dataset),
    wildcard_constraints:
        panel="[abc]",
        metric="|".join(SCALE_FIGURES),
    log:
        LOGS + "figure8{panel}_{metric}.log",
    benchmark:
        BENCHMARKS + "figure8{panel}_{metric}.tsv"
    localrule: True
    shell:
        "nrcg plot-scales {input.csv} --metric {wildcards.metric} --dataset {wildcards.dataset}"
        " --setups {input.setups} --paper {input.paper} --style {input.style}"
        " --title {params.title:q} --note {params.note:q} --out {output[0]} --out {output[1]} 2>&1 | tee {log}"


rule plot_contrast:
    input:
        csv=SCORES,
        setups=config["setups"],
        style=config["style"],
    output:
        report(FIGURE + "contrast.png", caption="../report/contrast.rst", category="Guided sampling"),
        FIGURE + "contrast.pdf",
    params:
        target=lambda w: settings(w)["target"],
        pair=flags({"setup": CONTRAST}),
        note=lambda w: note(w.dataset),
    log:
        LOGS + "contrast.log",
    benchmark:
        BENCHMARKS + "contrast.tsv"
    localrule: True
    shell:
        "nrcg plot-contrast {input.csv} --target {params.target:q} {params.pair} --dataset {wildcards.dataset}"
        " --setups {input.setups} --style {input.style} --note {params.note:q}"
        " --out {output[0]} --out {output[1]} 2>&1 | tee {log}"


rule write_table2:
    input:
        csv=SCORES,
        setups=config["setups"],
        paper=config["paper_results"],
    output:
        FIGURE + "table2.csv",
        report(FIGURE + "table2.md", caption="../report/table2.rst", category="Tables"),
        FIGURE + "table2.tex",
    params:
        target=lambda w: settings(w)["target"],
        title=lambda w: f"Table 2: {PRETTY[settings(w)['kind']]}",
        note=lambda w: note(w.dataset),
    log:
        LOGS + "table2.log",
    benchmark:
        BENCHMARKS + "table2.tsv"
    localrule: True
    shell:
        "nrcg table {input.csv} --setups {input.setups} --paper {input.paper} --dataset {wildcards.dataset}"
        " --target {params.target:q} --title {params.title:q} --note {params.note:q}"
        " --out {output[0]} --out {output[1]} --out {output[2]} 2>&1 | tee {log}"


rule write_all_points:
    input:
        csv=SCORES,
        setups=config["setups"],
    output:
        FIGURE + "all_points.csv",
        report(FIGURE + "all_points.md", caption="../report/all_points.rst", category="Tables"),
        FIGURE + "all_points.tex",
    params:
        title=lambda w: f"All points: {PRETTY[settings(w)['kind']]}",
        note=lambda w: note(w.dataset),
    log:
        LOGS + "all_points.log",
    benchmark:
        BENCHMARKS + "all_points.tsv"
    localrule: True
    shell:
        "nrcg all-points {input.csv} --setups {input.setups} --dataset {wildcards.dataset}"
        " --title {params.title:q} --note {params.note:q}"
        " --out {output[0]} --out {output[1]} --out {output[2]} 2>&1 | tee {log}"


include: "grids.smk"
