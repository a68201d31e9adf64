# The classifiers and the DDPM. Checkpoints are not outputs, so that Snakemake keeps them when a job is killed.


rule train_classifier:
    input:
        IMAGE_SET,
    output:
        collect("<run>/{{dataset}}/classifiers/{{classifier}}/{file}", file=[*CLASSIFIER, "log.csv"]),
    log:
        "<joblogs>/train_{classifier}.log",
    benchmark:
        "<times>/train_{classifier}.tsv"
    conda:
        "../envs/nrcg.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 8000 * attempt,
        runtime=lambda w, attempt: 240 * attempt,
        gpu=1,
    params:
        data=subpath(input[0], parent=True),
        out=subpath(output[0], parent=True),
        scheduler=section("scheduler"),
        settings=section("classifiers/{classifier}", *OF_SOURCE),
        checkpoint=lambda w, output: Path(output[0]).parents[2] / f"checkpoints/{w.classifier}.pt",
        machine=machine(),
    shell:
        "nrcg train classifier --data {params.data:q} --out {params.out:q} --scheduler {params.scheduler}"
        " --settings {params.settings} --checkpoint {params.checkpoint:q} {params.machine} --log {log:q}"


rule train_ddpm:
    input:
        IMAGE_SET,
    output:
        collect("<run>/{{dataset}}/ddpm/{file}", file=["card.json", *DDPM, "model_index.json", "log.csv"]),
    log:
        "<joblogs>/train_ddpm.log",
    benchmark:
        "<times>/train_ddpm.tsv"
    conda:
        "../envs/nrcg.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: (16000 + 8000 * settings(w)["ddpm"]["gpus"]) * attempt,
        runtime=6 * 24 * 60,  # a retry resumes from the checkpoint
        gpu=lambda w: settings(w)["ddpm"]["gpus"],
    params:
        data=subpath(input[0], parent=True),
        out=subpath(output[0], parent=True),
        unet=section("ddpm/unet"),
        scheduler=section("scheduler"),
        settings=section("ddpm/training", *WATCHING),
        checkpoint=lambda w, output: Path(output[0]).parents[1] / "checkpoints/ddpm.pt",
        machine=machine(
            lambda data: {
                **{key: data["ddpm"]["training"].get(key) for key in WATCHING},
                "processes": data["ddpm"]["gpus"],
                "compile": config["compile"],
            }
        ),
    shell:
        "nrcg train ddpm --data {params.data:q} --out {params.out:q} --unet {params.unet}"
        " --scheduler {params.scheduler} --settings {params.settings} --checkpoint {params.checkpoint:q}"
        " {params.machine} --log {log:q}"
