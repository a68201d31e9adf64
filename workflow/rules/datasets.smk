# Image sets: uint8 on disk, labelled, split.


rule sportballs:
    input:
        lambda w: icon_files(w.dataset),
    output:
        IMAGE_SET,
        sheet=report(f"{DATA}/contact_sheet.png", caption="../report/data.rst", category="Data"),
    log:
        f"{LOGS}data.log",
    benchmark:
        f"{BENCHMARKS}data.tsv"
    resources:
        mem_mb=6000,
        runtime=20,
    params:
        out=subpath(output[0], parent=True),
        options=lambda w: flags(settings(w)["images"]),
    shell:
        "nrcg sportballs --out {params.out} {params.options} 2>&1 | tee {log}"
