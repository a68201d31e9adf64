# Image sets: uint8 on disk, labelled, split.
SHEET = report(
    f"{DATA}/contact_sheet.png",
    caption="../report/data.rst",
    category=CATEGORIES["training"],
    labels=entry("Data", "the first images and their classes"),
)


rule sportballs:
    input:
        lambda w: icon_files(w.dataset),
    output:
        IMAGE_SET,
        sheet=SHEET,
    log:
        f"{LOGS}data.log",
    benchmark:
        f"{BENCHMARKS}data.tsv"
    wildcard_constraints:
        dataset=of_kind("sportballs"),
    resources:
        mem_mb=lambda w, attempt: 6000 * attempt,
        runtime=lambda w, attempt: 20 * attempt,
    params:
        out=subpath(output[0], parent=True),
        options=lambda w: flags(settings(w)["images"]),
    shell:
        "nrcg sportballs --out {params.out:q} {params.options} --log {log:q}"


rule celeba:
    input:
        lambda w: [] if settings(w)["images"]["source"] else rules.download_celeba.output,
    output:
        IMAGE_SET,
        sheet=SHEET,
    log:
        f"{LOGS}data.log",
    benchmark:
        f"{BENCHMARKS}data.tsv"
    wildcard_constraints:
        dataset=of_kind("celeba"),
    threads: config["threads"]
    resources:
        mem_mb=lambda w, attempt: 6000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
    params:
        out=subpath(output[0], parent=True),
        options=lambda w: flags({**settings(w)["images"], "source": celeba_folder(w.dataset)}),
    shell:
        "nrcg celeba --out {params.out:q} {params.options} --threads {threads} --log {log:q}"


rule celebahq:
    input:
        lambda w: [] if Path(settings(w)["images"]["source"]).is_dir() else celebahq_folder(w.dataset, "download.json"),
    output:
        IMAGE_SET,
        sheet=SHEET,
    log:
        f"{LOGS}data.log",
    benchmark:
        f"{BENCHMARKS}data.tsv"
    wildcard_constraints:
        dataset=of_kind("celebahq"),
    resources:
        mem_mb=lambda w, attempt: 6000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
    params:
        out=subpath(output[0], parent=True),
        options=lambda w: flags({**settings(w)["images"], "source": celebahq_folder(w.dataset)}),
    shell:
        "nrcg celebahq --out {params.out:q} {params.options} --log {log:q}"
