# Scores of samples: verdicts and features, then accuracies and distances. Snakemake does not compare params functions with
# the argument `input`, so options that change a result are in other params.


rule reference:
    input:
        IMAGE_SET,
        weights=lambda w: extractor_files(w.dataset, w.extractor),
    output:
        "<run>/{dataset}/references/{extractor}.npz",
    log:
        "<joblogs>/reference_{extractor}.log",
    benchmark:
        "<times>/reference_{extractor}.tsv"
    conda:
        "../envs/nrcg.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 8000 * attempt,
        runtime=lambda w, attempt: 120 * attempt,
        gpu=1,
    params:
        data=subpath(input[0], parent=True),
        extractor=lambda w, input: flags(extractor_options(w.dataset, w.extractor, input.weights)),
        options=lambda w: flags({"target": settings(w)["target"], "images": settings(w)["reference_images"]}),
        machine=machine(),
    shell:
        "nrcg measure reference --data {params.data:q} {params.extractor} {params.options}"
        " {params.machine} --out {output:q} --log {log:q}"


rule features:
    input:
        unpack(extractor_inputs),
        shards=lambda w: collect(
            f"<run>/{{dataset}}/samples/{POINT}/shard_{{shard:03d}}.npy",
            **w,
            shard=range(n_shards(w.dataset, w.setup)),
        ),
        guiding=lambda w: classifier(w.dataset, SETUPS[w.setup]["classifier"]),
        also=lambda w: [file for name in also_scored_by(w) for file in classifier(w.dataset, name)],
        judge=lambda w: classifier(w.dataset, judge(w.dataset)),
    output:
        features=[kept(file) for file in FEATURES],
        verdicts="<run>/{dataset}/verdicts/{setup}_scale_{scale}.csv",
        first=f"<run>/{{dataset}}/samples/{POINT}/first.npy",
        first_card=f"<run>/{{dataset}}/samples/{POINT}/first.json",
    log:
        "<joblogs>/features_{setup}_{scale}.log",
    benchmark:
        "<times>/features_{setup}_{scale}.tsv"
    wildcard_constraints:
        setup=OF_SAMPLES,
    conda:
        "../envs/nrcg.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 12000 * attempt,
        runtime=lambda w, attempt: 120 * attempt,
        gpu=1,
    params:
        guiding=folder("guiding"),
        judge=folder("judge"),
        out=subpath(output[0], parent=True),
        networks=lambda w, input: flags(
            {
                "also": [
                    f"{name}={Path(file).parent}"
                    for name, file in zip(also_scored_by(w), input.also[:: len(CLASSIFIER)], strict=True)
                ],
                "extractors": extractor_sections(w.dataset, input),
            }
        ),
        options=lambda w: flags({"n_first": PICTURED, "first_seed": first_reported(w.dataset)}),
        machine=machine(),
    shell:
        "nrcg measure features {input.shards:q} --guiding {params.guiding:q} --judge {params.judge:q} {params.networks}"
        " {params.options} {params.machine} --first {output.first:q} --verdicts {output.verdicts:q} --out {params.out:q} --log {log:q}"


rule features_of_real:
    input:
        unpack(extractor_inputs),
        images=IMAGE_SET,
        guiding=lambda w: classifier(w.dataset, SETUPS[UNGUIDED]["classifier"]),
        judge=lambda w: classifier(w.dataset, judge(w.dataset)),
    output:
        features=[kept(file.format(setup=REAL, scale="none", dataset="{dataset}")) for file in FEATURES],
        verdicts=f"<run>/{{dataset}}/verdicts/{REAL}_scale_none.csv",
    log:
        "<joblogs>/features_of_real.log",
    benchmark:
        "<times>/features_of_real.tsv"
    conda:
        "../envs/nrcg.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 12000 * attempt,
        runtime=lambda w, attempt: 120 * attempt,
        gpu=1,
    params:
        data=folder("images"),
        guiding=folder("guiding"),
        judge=folder("judge"),
        out=subpath(output[0], parent=True),
        networks=lambda w, input: flags({"extractors": extractor_sections(w.dataset, input)}),
        options=lambda w: flags({"images": settings(w)["sampling"]["n_samples"], "target": settings(w)["target"]}),
        machine=machine(),
    shell:
        "nrcg measure features --data {params.data:q} --guiding {params.guiding:q} --judge {params.judge:q} {params.networks}"
        " {params.options} {params.machine} --verdicts {output.verdicts:q} --out {params.out:q} --log {log:q}"


rule score:
    input:
        references=collect("<run>/{{dataset}}/references/{extractor}.npz", extractor=config["extractors"]),
        verdicts=lambda w: f"<run>/{{dataset}}/verdicts/{source(w)}_scale_{{scale}}.csv",
        card=lambda w: [] if w.setup == REAL else f"<run>/{{dataset}}/samples/{source(w)}/scale_{{scale}}/first.json",
        features=lambda w: [file.format(setup=source(w), dataset="{dataset}", scale="{scale}") for file in FEATURES],
        judge=lambda w: classifier(w.dataset, judge(w.dataset)),
    output:
        "<run>/{dataset}/scores/{setup}_scale_{scale}.csv",
    log:
        "<joblogs>/score_{setup}_{scale}.log",
    benchmark:
        "<times>/score_{setup}_{scale}.tsv"
    conda:
        "../envs/nrcg.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 8000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
    params:
        judge=folder("judge"),
        files=scored_files,
        options=lambda w: flags(
            {
                "metric": config["metrics"],
                "target": settings(w)["target"],
                "scale": None if w.scale == "none" else w.scale,
                "tuning": None if w.setup == REAL else first_reported(w.dataset),
                "rejection": True if w.setup == REJECTION else None,
            }
        ),
        modules=lambda w, threads: flags({"module": config["modules"]}),
    shell:
        "nrcg measure score --judge {params.judge:q} {params.files} {params.options} {params.modules}"
        " --out {output:q} --log {log:q}"


rule collect_scores:
    input:
        lambda w: settings(w)["scores_from"]
        or [f"<run>/{w.dataset}/scores/{name}_scale_{scale}.csv" for name, scale, _, _ in scored(w.dataset)],
    output:
        "<run>/{dataset}/scores.csv",
    log:
        "<joblogs>/collect_scores.log",
    benchmark:
        "<times>/collect_scores.tsv"
    localrule: True
    conda:
        "../envs/nrcg.yaml"
    params:
        scores=lambda w, input: flags(
            {"given": f"{w.dataset}={input[0]}"}
            if settings(w)["scores_from"]
            else {
                "scores": [
                    f"{w.dataset}:{setup}:{training}={file}"
                    for (_, _, setup, training), file in zip(scored(w.dataset), input, strict=True)
                ]
            }
        ),
    shell:
        "nrcg measure collect {params.scores} --out {output:q} --log {log:q}"
