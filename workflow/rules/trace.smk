# A few samples of each setup on their way from noise to image: what explains the scores.


rule trace:
    input:
        ddpm=lambda w: ddpm(w.dataset),
        classifier=lambda w: [] if w.setup == UNGUIDED else classifier(w.dataset, SETUPS[w.setup]["classifier"]),
    output:
        frames="<run>/{dataset}/traces/{setup}_scale_{scale}.npy",
        table="<run>/{dataset}/traces/{setup}_scale_{scale}.csv",
        card="<run>/{dataset}/traces/{setup}_scale_{scale}.json",
    log:
        "<joblogs>/trace_{setup}_{scale}.log",
    benchmark:
        "<times>/trace_{setup}_{scale}.tsv"
    conda:
        "../envs/nrcg.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 12000 * attempt,
        runtime=lambda w, attempt: 120 * attempt,
        gpu=1,
    params:
        ddpm=folder("ddpm", up=1),
        classifier=lambda w, input: flags(
            {"classifier": Path(input.classifier[0]).parent if input.classifier else None}
        ),
        options=trace_options,
        machine=machine(lambda data: {"batch_size": data["sampling"]["batch_size"]}),
    shell:
        "nrcg measure trace --ddpm {params.ddpm:q} {params.classifier} {params.options} {params.machine}"
        " --out {output.frames:q} --log {log:q}"
