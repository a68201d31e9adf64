# A few samples of each setup on their way from noise to image: what explains the scores.

TRACED = 16  # samples of each setup, the first of its shards


def traced(dataset):
    """(setup, scale) of each trace: the showcase's scale, and of other setups the middle one of the grid."""
    shown, scales = config["datasets"][dataset]["showcase"], scales_of(dataset)
    middle = {setup: sorted(grid)[(len(grid) - 1) // 2] for setup, grid in scales.items()} | {
        shown["setup"]: shown["scale"]
    }
    return [(UNGUIDED, "none"), *((setup, plain(middle[setup])) for setup in SETUPS if setup in scales)]


def trace_options(wildcards):
    """The options of the point's shards, and the seeds, the same for all setups."""
    sampling = settings(wildcards)["sampling"]
    stop = min(TRACED, sampling["n_samples"], sampling["n_unconditional"])
    return f"{point_options(wildcards.dataset, wildcards.setup, wildcards.scale)} --start 0 --stop {stop}"


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
