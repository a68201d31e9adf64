# Image sets, downloads (shared by all runs), and imports of published weights. The import checks the digest of authors'
# files, including those put there by hand.


rule images:
    input:
        image_sources,
    output:
        IMAGE_SET,
        sheet=report(
            "<run>/{dataset}/data/contact_sheet.png",
            caption="../report/figure.rst",
            category="6 Data and training",
            labels=lambda w: {
                "name": "Data",
                "data set": pretty(w.dataset),
                "shows": "the first images and their classes",
            },
        ),
    log:
        "<joblogs>/data.log",
    benchmark:
        "<times>/data.tsv"
    conda:
        "../envs/nrcg.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 6000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
    params:
        kind=lookup(dpath="datasets/{dataset}/kind", within=config),
        settings=image_settings,
        out=subpath(output[0], parent=True),
        caption="The first images of the data set with their classes.",
        machine=lambda w, threads: flags({"threads": threads, "module": config["modules"]}),
    shell:
        "nrcg data make {params.kind:q} --settings {params.settings} {params.machine} --out {params.out:q} --log {log:q}"


rule downloads:
    input:
        needed_downloads,


rule download_inception:
    output:
        "<downloads>/pt_inception-2015-12-05-6726825d.pth",
    log:
        "<downloads>/logs/inception.log",
    localrule: True
    conda:
        "../envs/nrcg.yaml"
    shell:
        "nrcg get inception --out {output:q} --log {log:q}"


rule download_celeba:
    output:
        "<downloads>/celeba/list_attr_celeba.txt",
        "<downloads>/celeba/list_eval_partition.txt",
    log:
        "<downloads>/logs/celeba.log",
    localrule: True
    conda:
        "../envs/nrcg.yaml"
    params:
        out=subpath(output[0], parent=True),
    shell:
        "nrcg get celeba --out {params.out:q} --log {log:q}"


rule download_torchvision:
    output:
        "<downloads>/torchvision/{place}.json",
    log:
        "<downloads>/logs/torchvision_{place}.log",
    wildcard_constraints:
        place="([0-9a-f]+/)?[A-Za-z0-9]+",
    localrule: True
    conda:
        "../envs/nrcg.yaml"
    params:
        out=subpath(output[0], parent=True),
        name=subpath(output[0], basename=True, strip_suffix=".json"),
        options=torchvision_options,
    shell:
        "nrcg get torchvision {params.name:q} {params.options} --out {params.out:q} --log {log:q}"


rule download_hub:
    output:
        "<downloads>/{repo_type}s/{repo}/download.json",
    log:
        "<downloads>/logs/{repo_type}_{repo}.log",
    wildcard_constraints:
        repo_type="model|dataset",
        repo="[^/]+",
    localrule: True
    conda:
        "../envs/nrcg.yaml"
    params:
        out=subpath(output[0], parent=True),
        options=lambda w: flags(
            {
                "repo_id": w.repo.partition("@")[0].replace("--", "/"),
                "repo_type": w.repo_type,
                "revision": w.repo.partition("@")[2] or None,
                "pattern": ["*.json", "*.safetensors", "*.bin"] if w.repo_type == "model" else ["*.parquet"],
            }
        ),
    shell:
        "nrcg get hub {params.options} --out {params.out:q} --log {log:q}"


rule download_authors:
    output:
        "<downloads>/authors/{dataset}/{role}.safetensors",
    log:
        "<downloads>/logs/authors_{dataset}_{role}.log",
    localrule: True
    conda:
        "../envs/nrcg.yaml"
    params:
        file=lambda w: flags(AUTHORS[w.dataset][w.role]),
    shell:
        "nrcg get file {params.file} --out {output:q} --log {log:q}"


rule import_classifier:
    input:
        classifier_sources,
    output:
        "<run>/{dataset}/imported/{role}/model.safetensors",
        "<run>/{dataset}/imported/{role}/card.json",
    log:
        "<joblogs>/import_{role}.log",
    wildcard_constraints:
        role="|".join(f"{name}(_forward)?" for name in CLASSIFIERS),
    localrule: True
    conda:
        "../envs/nrcg.yaml"
    params:
        out=subpath(output[0], parent=True),
        options=import_options,
        modules=lambda w, threads: flags({"module": config["modules"]}),
    shell:
        "nrcg get classifier {params.options} {params.modules} --out {params.out:q} --log {log:q}"


rule import_ddpm:
    input:
        ddpm_sources,
    output:
        collect("<run>/{{dataset}}/imported/ddpm/{file}", file=["card.json", *DDPM]),
    log:
        "<joblogs>/import_ddpm.log",
    localrule: True
    conda:
        "../envs/nrcg.yaml"
    params:
        out=subpath(output[0], parent=True),
        options=ddpm_import_options,
    shell:
        "nrcg get ddpm {params.options} --out {params.out:q} --log {log:q}"
