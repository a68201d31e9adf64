# The classifiers and the DDPM. Checkpoints lie outside the outputs, so that a killed job finds its own again.


rule train_classifier:
    input:
        IMAGE_SET,
    output:
        f"{CLASSIFIER}/model.safetensors",
        f"{CLASSIFIER}/card.json",
        f"{CLASSIFIER}/log.csv",
    log:
        f"{LOGS}train_{{classifier}}.log",
    benchmark:
        f"{BENCHMARKS}train_{{classifier}}.tsv"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 8000 * attempt,
        runtime=lambda w, attempt: 240 * attempt,
        gpu=1,
    params:
        data=subpath(input[0], parent=True),
        out=subpath(output[0], parent=True),
        scheduler=lambda w: as_json(settings(w)["scheduler"]),
        options=lambda w: flags({**settings(w)["classifiers"][w.classifier], "pretrained": None}),
        checkpoint=f"{RUN}/checkpoints/{{dataset}}/{{classifier}}.pt",
        machine=machine(),
    shell:
        "nrcg train-classifier --data {params.data:q} --out {params.out:q}"
        " --scheduler {params.scheduler} {params.options} --checkpoint {params.checkpoint:q}"
        " {params.machine} --log {log:q}"


rule train_ddpm:
    input:
        IMAGE_SET,
    output:
        [f"{DDPM}/{file}" for file in DDPM_FILES],
        f"{DDPM}/model_index.json",
        f"{DDPM}/card.json",
        f"{DDPM}/log.csv",
    log:
        f"{LOGS}train_ddpm.log",
    benchmark:
        f"{BENCHMARKS}train_ddpm.tsv"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: (16000 + 8000 * settings(w)["ddpm"]["gpus"]) * attempt,
        runtime=6 * 24 * 60,  # a further attempt goes on from the checkpoint
        gpu=lambda w: settings(w)["ddpm"]["gpus"],
    params:
        data=subpath(input[0], parent=True),
        out=subpath(output[-1], parent=True),
        unet=lambda w: as_json(settings(w)["ddpm"]["unet"]),
        scheduler=lambda w: as_json(settings(w)["scheduler"]),
        options=lambda w: flags({**settings(w)["ddpm"]["training"], **dict.fromkeys(WATCHING)}),
        checkpoint=f"{RUN}/checkpoints/{{dataset}}/ddpm.pt",
        machine=machine(
            lambda data: {
                **{key: data["ddpm"]["training"].get(key) for key in WATCHING},
                "processes": data["ddpm"]["gpus"],
                "compile": config["compile"],
            }
        ),
    shell:
        "nrcg train-ddpm --data {params.data:q} --out {params.out:q} --unet {params.unet}"
        " --scheduler {params.scheduler} {params.options} --checkpoint {params.checkpoint:q}"
        " {params.machine} --log {log:q}"
