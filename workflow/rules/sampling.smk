# Samples in shards: a shard is a range of seeds, the same whatever the batch size or machine.


rule sample:
    input:
        sample_files,
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
        options=sample_options,
    shell:
        "nrcg sample {params.options} --threads {threads} --out {output.images:q} --log {log:q}"


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
        "nrcg keep-first {input:q} --n {params.n} --out {output.images:q} --log {log:q}"
