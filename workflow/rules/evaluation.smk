# Scores of samples: accuracy by the guiding classifier and by the judge, Fréchet distances.


rule reference:
    input:
        IMAGE_SET,
        weights=extractor_files,
    output:
        REFERENCE,
    log:
        f"{LOGS}reference_{{extractor}}_{{part}}.log",
    benchmark:
        f"{BENCHMARKS}reference_{{extractor}}_{{part}}.tsv"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 8000 * attempt,
        runtime=lambda w, attempt: 120 * attempt,
        gpu=1,
    params:
        data=subpath(input[0], parent=True),
        weights=lambda w: extractor_weights(w.extractor, w.dataset),
        target=lambda w: flags({"target": settings(w)["target"] if w.part == "target" else None}),
        machine=machine(),
    shell:
        "nrcg reference --data {params.data:q} --extractor {wildcards.extractor:q}"
        " --weights {params.weights:q} {params.target} {params.machine} --out {output:q}"
        " --log {log:q}"


rule score:
    input:
        shards=lambda w: shards(w.dataset, w.setup, w.scale),
        guiding=lambda w: classifier_files(guiding(w.setup))(w),
        also=lambda w: [path for name in also_scored_by(w) for path in classifier_files(name)(w)],
        judge=classifier_files("judge"),
        inception=INCEPTION if "inception" in config["extractors"] else [],
        all=references("all"),
        target=references("target"),
    output:
        scores=SCORE,
        verdicts=VERDICTS,
        first=FIRST,
        first_card=FIRST.replace(".npy", ".json"),
    log:
        f"{LOGS}score_{{setup}}_{{scale}}.log",
    benchmark:
        f"{BENCHMARKS}score_{{setup}}_{{scale}}.tsv"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 12000 * attempt,
        runtime=lambda w, attempt: 120 * attempt,
        gpu=1,
    params:
        guiding=lambda w, input: Path(input.guiding[0]).parent,
        also=lambda w: flags({"also": [f"{name}={classifier_home(w.dataset, name)}" for name in also_scored_by(w)]}),
        judge=lambda w, input: Path(input.judge[0]).parent,
        target=lambda w: settings(w)["target"],
        pictured=PICTURED,
        extractors=lambda w, input: flags(
            {
                "extractor": config["extractors"],
                "weights": [extractor_weights(name, w.dataset) for name in config["extractors"]],
                "reference_all": list(input.all),
                "reference_target": list(input.target),
            }
        ),
        machine=machine(),
    shell:
        "nrcg score {input.shards:q} --guiding {params.guiding:q} {params.also} --judge {params.judge:q}"
        " --target {params.target:q} {params.extractors} {params.machine} --verdicts {output.verdicts:q}"
        " --first {output.first:q} --n-first {params.pictured} --out {output.scores:q} --log {log:q}"


rule collect_scores:
    input:
        score_files,
    output:
        SCORES,
    log:
        f"{LOGS}collect_scores.log",
    benchmark:
        f"{BENCHMARKS}collect_scores.tsv"
    localrule: True
    params:
        scores=collected_scores,
    shell:
        "nrcg collect-scores {params.scores} --out {output:q} --log {log:q}"
