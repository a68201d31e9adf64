# Image sets, downloads (kept for all runs), and imports of published weights into the project's folders. A file of the
# authors that was put there by hand is checked when it is imported.
INCEPTION = config["inception_weights"] or "<downloads>/pt_inception-2015-12-05-6726825d.pth"


def image_sources(wildcards):
    """The files that a data set is made from: the user's icons, or a download where it names no folder."""
    data = settings(wildcards)
    source = data["images"].get("source")
    if data["kind"] == "celeba" and not source:
        return ["<downloads>/celeba/list_attr_celeba.txt"]
    if data["kind"] == "celebahq" and not Path(source).is_dir():
        return [hub_record("dataset", source)]
    icons = data["images"].get("icons")
    return sorted(map(str, Path(icons).glob("*.[pP][nN][gG]"))) if icons else []


def image_settings(wildcards, input):
    """The section `images`, with the folder of what was downloaded."""
    images = settings(wildcards)["images"]
    downloaded = {"source": str(Path(input[0]).parent)} if "source" in images and input else {}
    return as_json({**images, **downloaded})


def ddpm_sources(wildcards):
    """The file that an import of a DDPM waits for; none where it is a folder of the user's."""
    data = settings(wildcards)
    if not data["ddpm"]["pretrained"]:
        return [f"<downloads>/authors/{data['kind']}/ddpm.safetensors"]
    folder = Path(data["ddpm"]["pretrained"]).is_dir()
    return [] if folder else [hub_record("model", data["ddpm"]["pretrained"])]


def ddpm_import_options(wildcards, input):
    """The source of an import, and for a bare U-Net file its architecture."""
    data = settings(wildcards)
    if data["ddpm"]["pretrained"]:
        return flags({"source": Path(input[0]).parent if input else data["ddpm"]["pretrained"]})
    origin = AUTHORS[data["kind"]]["ddpm"]
    return flags({"source": input[0], **origin, "unet": data["ddpm"]["unet"], "scheduler": data["scheduler"]})


def needed_downloads(wildcards):
    """Every file that this run needs from elsewhere."""
    files = [INCEPTION] if "inception" in config["extractors"] and not config["inception_weights"] else []
    for name in DATASETS:
        data, place = config["datasets"][name], Wildcards(fromdict={"dataset": name})
        files += [] if data["images"].get("icons") else image_sources(place)
        files += ddpm_sources(place) if data["ddpm"]["pretrained"] else []
        if data["weights"] == "authors":
            files += collect("<downloads>/authors/{kind}/{role}.safetensors", kind=data["kind"], role=AUTHORS[data["kind"]])
    return files


rule images:
    input:
        image_sources,
    output:
        IMAGE_SET,
        sheet=report(
            "<run>/{dataset}/data/contact_sheet.png",
            caption="../report/figure.rst",
            category="6 Data and training",
            labels=lambda w: {"name": "Data", "data set": pretty(w.dataset), "shows": "the first images and their classes"},
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
        caption="The first images of the data set, each above the name of its class.",
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
    conda:
        "../envs/nrcg.yaml"
    localrule: True
    shell:
        "nrcg get inception --out {output:q} --log {log:q}"


rule download_celeba:
    output:
        "<downloads>/celeba/list_attr_celeba.txt",
        "<downloads>/celeba/list_eval_partition.txt",
    log:
        "<downloads>/logs/celeba.log",
    conda:
        "../envs/nrcg.yaml"
    localrule: True
    params:
        out=subpath(output[0], parent=True),
    shell:
        "nrcg get celeba --out {params.out:q} --log {log:q}"


rule download_hub:
    output:
        "<downloads>/{repo_type}s/{repo}/download.json",
    log:
        "<downloads>/logs/{repo_type}_{repo}.log",
    conda:
        "../envs/nrcg.yaml"
    wildcard_constraints:
        repo_type="model|dataset",
        repo="[^/]+",
    localrule: True
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
        "<downloads>/authors/{kind}/{role}.safetensors",
    log:
        "<downloads>/logs/authors_{kind}_{role}.log",
    conda:
        "../envs/nrcg.yaml"
    localrule: True
    params:
        file=lambda w: flags(AUTHORS[w.kind][w.role]),
    shell:
        "nrcg get file {params.file} --out {output:q} --log {log:q}"


rule import_classifier:
    input:
        lambda w: f"<downloads>/authors/{settings(w)['kind']}/{w.role}.safetensors",
    output:
        "<run>/{dataset}/imported/{role}/model.safetensors",
        "<run>/{dataset}/imported/{role}/card.json",
    log:
        "<joblogs>/import_{role}.log",
    conda:
        "../envs/nrcg.yaml"
    wildcard_constraints:
        role="(nonrobust|robust)(_forward)?",
    localrule: True
    params:
        out=subpath(output[0], parent=True),
        options=lambda w: flags(
            {
                "architecture": settings(w)["classifiers"][w.role.removesuffix("_forward")]["architecture"],
                "classes": class_names(w.dataset),
                **AUTHORS[settings(w)["kind"]][w.role],
            }
        ),
    shell:
        "nrcg get classifier --file {input:q} {params.options} --out {params.out:q} --log {log:q}"


rule import_ddpm:
    input:
        ddpm_sources,
    output:
        collect("<run>/{{dataset}}/imported/ddpm/{file}", file=["card.json", *DDPM]),
    log:
        "<joblogs>/import_ddpm.log",
    conda:
        "../envs/nrcg.yaml"
    localrule: True
    params:
        out=subpath(output[0], parent=True),
        options=ddpm_import_options,
    shell:
        "nrcg get ddpm {params.options} --out {params.out:q} --log {log:q}"
