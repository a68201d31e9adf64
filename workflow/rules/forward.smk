# Accuracy and sensitivity along the forward process: one job per classifier and input, for all stabilisers.


rule forward:
    input:
        IMAGE_SET,
        ddpm=lambda w: ddpm(w.dataset),
        classifier=lambda w: classifier(w.dataset, w.classifier, forward=True),
    output:
        "<run>/{dataset}/forward/{classifier}_{on}.csv",
    log:
        "<joblogs>/forward_{classifier}_{on}.log",
    benchmark:
        "<times>/forward_{classifier}_{on}.tsv"
    conda:
        "../envs/nrcg.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 16000 * attempt,
        runtime=lambda w, attempt: 24 * 60 * attempt,
        gpu=1,
    params:
        data=subpath(input[0], parent=True),
        ddpm=folder("ddpm", up=1),
        classifier=folder("classifier"),
        setups=lambda w: as_json(
            {
                name: SETUPS[name]["guidance"].get("stabilizer")
                for name in forward_setups(w.dataset, w.classifier, w.on)
            },
            sort_keys=False,
        ),
        options=lambda w: flags(
            {
                **{key: settings(w)[key] for key in ("target", "objective")},
                **{key: settings(w)["forward"][key] for key in ("images", "stride")},
                "class_label": settings(w)["ddpm"]["class_label"],
                "seed": config["seed"],
            }
        ),
        machine=machine(lambda data: {"batch_size": data["forward"]["batch_size"]}),
    shell:
        "nrcg measure forward --data {params.data:q} --ddpm {params.ddpm:q} --classifier {params.classifier:q}"
        " --on {wildcards.on:q} --setups {params.setups} {params.options} {params.machine} --out {output:q} --log {log:q}"


rule curves:
    input:
        lambda w: [
            f"<run>/{w.dataset}/forward/{classifier}_{on}.csv"
            for classifier, on in dict.fromkeys(
                (SETUPS[setup]["classifier"], seen_by(setup)) for setup in forward_setups(w.dataset)
            )
        ],
    output:
        "<figures>/figure{number}.csv",
    log:
        "<joblogs>/figure{number}_data.log",
    benchmark:
        "<times>/figure{number}_data.tsv"
    wildcard_constraints:
        number="[1-4]",
    localrule: True
    conda:
        "../envs/nrcg.yaml"
    params:
        options=lambda w: flags({"metric": FORWARD_FIGURES[w.number], "setup": figure_setups(w.dataset, w.number)}),
    shell:
        "nrcg measure curves {input:q} {params.options} --out {output:q} --log {log:q}"
