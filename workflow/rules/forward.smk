# Accuracy and sensitivity along the forward process: one job per classifier and input, all stabilisers in it.


rule forward:
    input:
        IMAGE_SET,
        ddpm=ddpm_files,
        classifier=classifier_files(None, forward=True),
    output:
        FORWARD,
    log:
        f"{LOGS}forward_{{classifier}}_{{on}}.log",
    benchmark:
        f"{BENCHMARKS}forward_{{classifier}}_{{on}}.tsv"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 16000 * attempt,
        runtime=lambda w, attempt: 24 * 60 * attempt,
        gpu=1,
    params:
        data=subpath(input[0], parent=True),
        ddpm=ddpm_source,
        classifier=lambda w: classifier_home(w.dataset, w.classifier, forward=True),
        setups=lambda w: flags(
            {
                "setup": [
                    f"{row.setup}={row.stabilizer}"
                    for row in forward_setups(w.dataset, w.classifier, w.on).itertuples()
                ]
            }
        ),
        target=lambda w: settings(w)["target"],
        objective=lambda w: settings(w)["objective"],
        options=lambda w: flags({key: settings(w)["forward"][key] for key in ("images", "stride")}),
        seed=config["seed"],
        machine=machine(lambda data: {"batch_size": data["forward"]["batch_size"]}),
    shell:
        "nrcg forward --data {params.data:q} --ddpm {params.ddpm:q} --classifier {params.classifier:q}"
        " --on {wildcards.on:q} {params.setups} --target {params.target:q} --objective {params.objective:q}"
        " {params.options} --seed {params.seed:q} {params.machine} --out {output:q} --log {log:q}"
