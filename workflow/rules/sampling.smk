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
        machine=machine(lambda data: {"batch_size": data["sampling"]["batch_size"], "compile": config["compile"]}),
    shell:
        "nrcg sample {params.options} {params.machine} --out {output.images:q} --log {log:q}"
