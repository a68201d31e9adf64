# Samples in shards: a shard is a range of seeds, the same whatever the batch size or machine.


def guidance_options(wildcards):
    """Options of `nrcg sample` that make a point; none for unguided samples."""
    if wildcards.setup == UNGUIDED:
        return ""
    row, data = SETUPS.loc[wildcards.setup], settings(wildcards)
    return flags(
        {
            "classifier": CLASSIFIER.format(dataset=wildcards.dataset, classifier=row.classifier),
            "target": data["target"],
            "scale": wildcards.scale,
            "on": row.on,
            "stabilizer": row.stabilizer,
            "objective": data["objective"] if row.objective == "default" else row.objective,
        }
    )


def guiding_files(wildcards):
    """The guiding classifier's files; none for unguided samples."""
    return [] if wildcards.setup == UNGUIDED else classifier_files(guiding(wildcards.setup))(wildcards)


rule sample:
    input:
        ddpm=ddpm_files,
        classifier=guiding_files,
    output:
        SHARD + ".npy",
        SHARD + ".json",
    params:
        ddpm=ddpm_source,
        guidance=guidance_options,
        start=lambda w: shard_range(w)[0],
        stop=lambda w: shard_range(w)[1],
        steps=lambda w: settings(w)["sampling"]["num_inference_steps"],
        batch_size=lambda w: settings(w)["sampling"]["batch_size"],
        seed=config["seed"],
        device=config["device"],
    log:
        LOGS + "sample_{setup}_{scale}_{shard}.log",
    benchmark:
        BENCHMARKS + "sample_{setup}_{scale}_{shard}.tsv"
    threads: config["threads"]
    resources:
        mem_mb=12000,
        runtime=120,
        gpu=1,
    shell:
        "nrcg sample --ddpm {params.ddpm} {params.guidance} --start {params.start} --stop {params.stop}"
        " --num-inference-steps {params.steps} --batch-size {params.batch_size} --seed {params.seed}"
        " --device {params.device} --threads {threads} --out {output[0]} 2>&1 | tee {log}"
