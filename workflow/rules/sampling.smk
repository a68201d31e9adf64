# Samples in shards: a shard is a range of seeds, whose random draws do not depend on batch size or machine.


rule sample:
    input:
        ddpm=lambda w: ddpm(w.dataset),
        classifier=lambda w: [] if w.setup == UNGUIDED else classifier(w.dataset, SETUPS[w.setup]["classifier"]),
    output:
        images=(lambda file: file if config["keep_samples"] else temp(file))(
            f"<run>/{{dataset}}/samples/{POINT}/shard_{{shard}}.npy"
        ),
        card=f"<run>/{{dataset}}/samples/{POINT}/shard_{{shard}}.json",  # kept: documents how the samples were made
    log:
        "<joblogs>/sample_{setup}_{scale}_{shard}.log",
    benchmark:
        "<times>/sample_{setup}_{scale}_{shard}.tsv"
    conda:
        "../envs/nrcg.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 12000 * attempt,
        runtime=lambda w, attempt: 720 * attempt,
        gpu=1,
    params:
        ddpm=folder("ddpm", up=1),
        classifier=lambda w, input: flags(
            {"classifier": Path(input.classifier[0]).parent if input.classifier else None}
        ),
        options=shard_options,
        machine=machine(lambda data: {"batch_size": data["sampling"]["batch_size"], "compile": config["compile"]}),
    shell:
        "nrcg sample --ddpm {params.ddpm:q} {params.classifier} {params.options} {params.machine}"
        " --out {output.images:q} --log {log:q}"
