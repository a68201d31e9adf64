# Image sets: uint8 on disk, labelled, split.


rule sportballs:
    output:
        IMAGE_SET,
        sheet=report(DATA + "/contact_sheet.png", caption="../report/data.rst", category="Data"),
    params:
        out=subpath(output[0], parent=True),
        options=lambda w: flags(settings(w)["images"]),
    log:
        LOGS + "data.log",
    benchmark:
        BENCHMARKS + "data.tsv"
    resources:
        mem_mb=6000,
        runtime=20,
    shell:
        "nrcg sportballs --out {params.out} {params.options} 2>&1 | tee {log}"
