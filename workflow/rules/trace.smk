# Trajectories of a few samples of each setup, which explain the scores. A single job per data set loads each network once.


rule trace:
    input:
        ddpm=lambda w: ddpm(w.dataset),
        classifiers=lambda w: [file for name in guiding_classifiers(w.dataset) for file in classifier(w.dataset, name)],
    output:
        directory("<run>/{dataset}/traces"),
    log:
        "<joblogs>/trace.log",
    benchmark:
        "<times>/trace.tsv"
    conda:
        "../envs/nrcg.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 12000 * attempt,
        runtime=lambda w, attempt: 240 * attempt,
        gpu=1,
    params:
        ddpm=folder("ddpm", up=1),
        options=trace_options,
        guides=lambda w: as_json(trace_guides(w)),  # Snakemake compares these with the last run, unlike `files`
        files=trace_files,
        machine=machine(lambda data: {"batch_size": data["sampling"]["batch_size"]}),
    shell:
        "nrcg measure trace --ddpm {params.ddpm:q} {params.options} {params.files} {params.machine} --log {log:q}"
