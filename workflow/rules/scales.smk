# Scales of setups with `auto` in the config: one short search each, and overlays for the following run.

DECIDING = "inception" if "inception" in config["extractors"] else config["extractors"][0]  # for choosing scales


rule find_scale:
    input:
        ddpm=lambda w: ddpm(w.dataset),
        classifier=lambda w: classifier(w.dataset, SETUPS[w.setup]["classifier"]),
        judge=lambda w: classifier(w.dataset, judge(w.dataset)),
        weights=lambda w: extractor_files(w.dataset, DECIDING),
        reference=f"<run>/{{dataset}}/references/{DECIDING}.npz",
    output:
        "<run>/{dataset}/scales/{setup}.csv",
    log:
        "<joblogs>/scale_{setup}.log",
    benchmark:
        "<times>/scale_{setup}.tsv"
    conda:
        "../envs/nrcg.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 12000 * attempt,
        runtime=lambda w, attempt: 240 * attempt,
        gpu=1,
    params:
        ddpm=folder("ddpm", up=1),
        classifier=folder("classifier"),
        judge=folder("judge"),
        extractor=lambda w, input: flags(extractor_options(w.dataset, DECIDING, input.weights)),
        options=scale_options,
        machine=machine(lambda data: {"batch_size": data["sampling"]["batch_size"]}),
    shell:
        "nrcg measure scale --ddpm {params.ddpm:q} --classifier {params.classifier:q} --judge {params.judge:q}"
        " {params.extractor} --reference {input.reference:q} {params.options} {params.machine} --out {output:q} --log {log:q}"


rule find_scales:
    input:
        scale_tables,
    output:
        scales="<run>/scales.yaml",
        best="<run>/best_scales.yaml",
    log:
        "<run>/logs/scales.log",
    localrule: True
    conda:
        "../envs/nrcg.yaml"
    params:
        tables=lambda w, input: [f"{name}:{setup}={file}" for (name, setup), file in zip(SEARCHED, input, strict=True)],
    shell:
        "nrcg measure grids {params.tables:q} --out {output.scales:q} --best {output.best:q} --log {log:q}"
