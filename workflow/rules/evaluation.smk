# Scores of samples: accuracy by the guiding classifier and by the judge, Fréchet distances.


rule reference:
    input:
        IMAGE_SET,
        weights=lambda w: extractor_files(w.dataset, w.extractor),
    output:
        "<run>/{dataset}/references/{extractor}_{part}.npz",
    log:
        "<joblogs>/reference_{extractor}_{part}.log",
    benchmark:
        "<times>/reference_{extractor}_{part}.tsv"
    conda:
        "../envs/nrcg.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 8000 * attempt,
        runtime=lambda w, attempt: 120 * attempt,
        gpu=1,
    params:
        data=subpath(input[0], parent=True),
        options=lambda w, input: flags(
            {
                **extractor_options(w.dataset, w.extractor, input.weights),
                "target": settings(w)["target"] if w.part == "target" else None,
            }
        ),
        machine=machine(),
    shell:
        "nrcg measure reference --data {params.data:q} {params.options}"
        " {params.machine} --out {output:q} --log {log:q}"


rule score:
    input:
        unpack(reference_files),
        shards=lambda w: collect(
            f"<run>/{{dataset}}/samples/{POINT}/shard_{{shard:03d}}.npy",
            **w,
            shard=range(n_shards(w.dataset, w.setup)),
        ),
        guiding=lambda w: classifier(w.dataset, SETUPS[w.setup]["classifier"]),
        also=lambda w: [file for name in also_scored_by(w) for file in classifier(w.dataset, name)],
        judge=lambda w: classifier(w.dataset, judge(w.dataset)),
    output:
        scores="<run>/{dataset}/scores/{setup}_scale_{scale}.csv",
        verdicts="<run>/{dataset}/verdicts/{setup}_scale_{scale}.csv",
        first=f"<run>/{{dataset}}/samples/{POINT}/first.npy",
        first_card=f"<run>/{{dataset}}/samples/{POINT}/first.json",
    log:
        "<joblogs>/score_{setup}_{scale}.log",
    benchmark:
        "<times>/score_{setup}_{scale}.tsv"
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
        options=lambda w, input: flags(
            {
                "also": [
                    f"{name}={Path(file).parent}"
                    for name, file in zip(also_scored_by(w), input.also[:: len(CLASSIFIER)], strict=True)
                ],
                "target": settings(w)["target"],
                "references": references(w, input),
                "n_first": PICTURED,
            }
        ),
        machine=machine(),
    shell:
        "nrcg measure score {input.shards:q} --guiding {params.guiding:q} --judge {params.judge:q} {params.options}"
        " {params.machine} --verdicts {output.verdicts:q} --first {output.first:q} --out {output.scores:q} --log {log:q}"


rule collect_scores:
    input:
        lambda w: (
            settings(w)["scores_from"] or of_points(w.dataset, "<run>/{dataset}/scores/{setup}_scale_{scale}.csv")
        ),
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
                "point": [
                    f"{w.dataset}:{setup}:{'-' if scale == 'none' else scale}={file}"
                    for (setup, scale), file in zip(points(w.dataset), input, strict=True)
                ]
            }
        ),
    shell:
        "nrcg measure collect {params.scores} --out {output:q} --log {log:q}"
