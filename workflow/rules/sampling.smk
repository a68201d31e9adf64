# Samples in shards: a shard is a range of seeds, the same whatever the batch size or machine.


rule sample:
    input:
        ddpm=ddpm_files,
        classifier=guiding_files,
    output:
        images=kept(f"{SHARD}.npy"),
        card=f"{SHARD}.json",  # stays: how each sample was made
    log:
        f"{LOGS}sample_{{setup}}_{{scale}}_{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}sample_{{setup}}_{{scale}}_{{shard}}.tsv"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 12000 * attempt,
        runtime=lambda w, attempt: 120 * attempt,
        gpu=1,
    params:
        ddpm=ddpm_source,
        guidance=guidance_options,
        start=lambda w: shard_range(w)[0],
        stop=lambda w: shard_range(w)[1],
        steps=lambda w: settings(w)["sampling"]["num_inference_steps"],
        batch_size=lambda w: settings(w)["sampling"]["batch_size"],
        seed=config["seed"],
        device=config["device"],
    shell:
        "nrcg sample --ddpm {params.ddpm} {params.guidance} --start {params.start} --stop {params.stop}"
        " --num-inference-steps {params.steps} --batch-size {params.batch_size} --seed {params.seed}"
        " --device {params.device} --threads {threads} --out {output.images} 2>&1 | tee {log}"


rule keep_first:
    input:
        lambda w: shards(w.dataset, w.setup, w.scale, first=PICTURED),
    output:
        images=FIRST,
        card=FIRST.replace(".npy", ".json"),
    log:
        f"{LOGS}keep_first_{{setup}}_{{scale}}.log",
    benchmark:
        f"{BENCHMARKS}keep_first_{{setup}}_{{scale}}.tsv"
    localrule: True
    params:
        n=PICTURED,
    shell:
        "nrcg keep-first {input} --n {params.n} --out {output.images} 2>&1 | tee {log}"
