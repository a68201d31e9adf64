# The classifiers and the DDPM. Checkpoints lie outside the outputs, so that a killed job finds its own again.


rule train_classifier:
    input:
        IMAGE_SET,
    output:
        CLASSIFIER + "/model.safetensors",
        CLASSIFIER + "/card.json",
        CLASSIFIER + "/log.csv",
    params:
        data=subpath(input[0], parent=True),
        out=subpath(output[0], parent=True),
        scheduler=lambda w: as_json(settings(w)["scheduler"]),
        options=lambda w: flags(settings(w)["classifiers"][w.classifier]),
        checkpoint=RUN + "/checkpoints/{dataset}/{classifier}.pt",
        device=config["device"],
    log:
        LOGS + "train_{classifier}.log",
    benchmark:
        BENCHMARKS + "train_{classifier}.tsv"
    threads: config["threads"]
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=1,
    shell:
        "nrcg train-classifier --data {params.data} --out {params.out} --scheduler {params.scheduler}"
        " {params.options} --checkpoint {params.checkpoint} --device {params.device} --threads {threads}"
        " 2>&1 | tee {log}"


rule train_ddpm:
    input:
        IMAGE_SET,
    output:
        DDPM + "/" + WEIGHTS,
        DDPM + "/unet/config.json",
        DDPM + "/scheduler/scheduler_config.json",
        DDPM + "/model_index.json",
        DDPM + "/card.json",
        DDPM + "/log.csv",
    params:
        data=subpath(input[0], parent=True),
        out=subpath(output[-1], parent=True),
        unet=lambda w: as_json(settings(w)["ddpm"]["unet"]),
        scheduler=lambda w: as_json(settings(w)["scheduler"]),
        options=lambda w: flags(settings(w)["ddpm"]["training"]),
        checkpoint=RUN + "/checkpoints/{dataset}/ddpm.pt",
        device=config["device"],
    log:
        LOGS + "train_ddpm.log",
    benchmark:
        BENCHMARKS + "train_ddpm.tsv"
    threads: config["threads"]
    resources:
        mem_mb=24000,
        runtime=6 * 24 * 60,
        gpu=1,
    shell:
        "nrcg train-ddpm --data {params.data} --out {params.out} --unet {params.unet}"
        " --scheduler {params.scheduler} {params.options} --checkpoint {params.checkpoint}"
        " --device {params.device} --threads {threads} 2>&1 | tee {log}"
