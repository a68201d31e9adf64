# Scores of samples: accuracy by the guiding classifier and by the judge, Fréchet distances.


def extractor_weights(extractor, dataset):
    """What an extractor is loaded from: Inception's file, or the judge's folder."""
    return INCEPTION if extractor == "inception" else CLASSIFIER.format(dataset=dataset, classifier="judge")


def extractor_files(wildcards):
    """The files behind it that a job waits for."""
    return [INCEPTION] if wildcards.extractor == "inception" else classifier_files("judge")(wildcards)


def references(part):
    """Input function: statistics of the training images for every configured extractor."""
    return lambda w: expand(REFERENCE, dataset=w.dataset, extractor=config["extractors"], part=part)


rule download_inception:
    output:
        "results/downloads/pt_inception-2015-12-05-6726825d.pth",
    log:
        "results/downloads/inception.log",
    benchmark:
        "results/downloads/inception.tsv"
    localrule: True
    shell:
        "nrcg download-inception --out {output} 2>&1 | tee {log}"


rule reference:
    input:
        IMAGE_SET,
        weights=extractor_files,
    output:
        REFERENCE,
    params:
        data=subpath(input[0], parent=True),
        weights=lambda w: extractor_weights(w.extractor, w.dataset),
        target=lambda w: flags({"target": settings(w)["target"] if w.part == "target" else None}),
        device=config["device"],
    log:
        LOGS + "reference_{extractor}_{part}.log",
    benchmark:
        BENCHMARKS + "reference_{extractor}_{part}.tsv"
    threads: config["threads"]
    resources:
        mem_mb=8000,
        runtime=120,
        gpu=1,
    shell:
        "nrcg reference --data {params.data} --extractor {wildcards.extractor} --weights {params.weights}"
        " {params.target} --device {params.device} --threads {threads} --out {output} 2>&1 | tee {log}"


rule score:
    input:
        shards=lambda w: shards(w.dataset, w.setup, w.scale),
        guiding=lambda w: classifier_files(guiding(w.setup))(w),
        judge=classifier_files("judge"),
        inception=INCEPTION if "inception" in config["extractors"] else [],
        all=references("all"),
        target=references("target"),
    output:
        SCORE,
    params:
        guiding=lambda w, input: Path(input.guiding[0]).parent,
        judge=lambda w, input: Path(input.judge[0]).parent,
        target=lambda w: settings(w)["target"],
        extractors=lambda w, input: flags(
            {
                "extractor": config["extractors"],
                "weights": [extractor_weights(name, w.dataset) for name in config["extractors"]],
                "reference_all": list(input.all),
                "reference_target": list(input.target),
            }
        ),
        device=config["device"],
    log:
        LOGS + "score_{setup}_{scale}.log",
    benchmark:
        BENCHMARKS + "score_{setup}_{scale}.tsv"
    threads: config["threads"]
    resources:
        mem_mb=12000,
        runtime=120,
        gpu=1,
    shell:
        "nrcg score {input.shards} --guiding {params.guiding} --judge {params.judge} --target {params.target}"
        " {params.extractors} --device {params.device} --threads {threads} --out {output} 2>&1 | tee {log}"


rule collect_scores:
    input:
        lambda w: [SCORE.format(dataset=w.dataset, setup=setup, scale=s) for setup, s in points(w.dataset)],
    output:
        SCORES,
    params:
        points=lambda w, input: flags(
            {
                "point": [
                    f"{w.dataset}:{setup}:{'-' if scale == 'none' else scale}={path}"
                    for (setup, scale), path in zip(points(w.dataset), input)
                ]
            }
        ),
    log:
        LOGS + "collect_scores.log",
    benchmark:
        BENCHMARKS + "collect_scores.tsv"
    localrule: True
    shell:
        "nrcg collect-scores {params.points} --out {output} 2>&1 | tee {log}"
