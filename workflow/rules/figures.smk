# Rules for the figures and tables in workflow/figures.yaml, and targets named as in the paper.


rule draw:
    input:
        files=entry_files,
        style=config["style"],
    output:
        png=report(
            "<figures>/{name}.png",
            caption="../report/figure.rst",
            category=lambda w: entry(w)["category"],
            labels=labels,
        ),
        pdf="<figures>/{name}.pdf",
    log:
        "<joblogs>/{name}.log",
    benchmark:
        "<times>/{name}.tsv"
    wildcard_constraints:
        name=names(lambda function: function not in (*TABLES, *PAGES)),
    localrule: True
    conda:
        "../envs/nrcg.yaml"
    params:
        function=lambda w: entry(w)["function"],
        options=draw_options,
        caption=lambda w: entry(w)["caption"],
        modules=lambda w, threads: flags({"module": config["modules"]}),
    shell:
        "nrcg draw {params.function} {params.options} {params.modules} --log {log:q}"


use rule draw as write with:
    input:
        files=entry_files,
    output:
        csv="<figures>/{name}.csv",
        md="<figures>/{name}.md",
        tex="<figures>/{name}.tex",
        html=report(
            "<figures>/{name}.html",
            caption="../report/figure.rst",
            category=lambda w: entry(w)["category"],
            labels=labels,
        ),
    wildcard_constraints:
        name=names(lambda function: function in TABLES),
    localrule: True


use rule draw as browse_samples with:
    input:
        files=entry_files,
    output:
        report(
            "<figures>/{name}.html",
            caption="../report/figure.rst",
            category=lambda w: entry(w)["category"],
            labels=labels,
        ),
    wildcard_constraints:
        name=names(lambda function: function in PAGES),
    localrule: True


use rule draw as animate with:
    output:
        report(
            "<figures>/{name}.webp",
            caption="../report/figure.rst",
            category=lambda w: entry(w)["category"],
            labels=lambda w: {**labels(w), "name": f"{entry(w)['name']}, animated"},
        ),
    log:
        "<joblogs>/{name}_moving.log",
    benchmark:
        "<times>/{name}_moving.tsv"
    wildcard_constraints:
        name=names(lambda function: function in MOVING),
    localrule: True


use rule write as compare with:
    output:
        csv="<run>/comparison.csv",
        md="<run>/comparison.md",
        tex="<run>/comparison.tex",
        html=report(
            "<run>/comparison.html",
            caption="../report/figure.rst",
            category=lambda w: entry(w)["category"],
            labels=labels,
        ),
    log:
        "<run>/logs/comparison.log",
    benchmark:
        "<run>/benchmarks/comparison.tsv"
    localrule: True


for target in TARGETS:

    rule:
        name:
            target
        input:
            wanted(target),
