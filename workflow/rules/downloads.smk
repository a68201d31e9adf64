# Downloads, kept in results/downloads/ for all runs, and imports of published weights into the project's format.
# A file of the authors that was put there by hand is checked when it is imported.


rule downloads:
    input:
        needed_downloads(),


rule download_inception:
    output:
        f"{DOWNLOADS}/pt_inception-2015-12-05-6726825d.pth",
    log:
        f"{DOWNLOADS}/logs/inception.log",
    benchmark:
        f"{DOWNLOADS}/logs/inception.tsv"
    localrule: True
    shell:
        "nrcg download-inception --out {output:q} --log {log:q}"


rule download_celeba:
    output:
        f"{DOWNLOADS}/celeba/list_attr_celeba.txt",
        f"{DOWNLOADS}/celeba/list_eval_partition.txt",
    log:
        f"{DOWNLOADS}/logs/celeba.log",
    benchmark:
        f"{DOWNLOADS}/logs/celeba.tsv"
    localrule: True
    params:
        out=subpath(output[0], parent=True),
    shell:
        "nrcg download-celeba --out {params.out:q} --log {log:q}"


rule download_hub:
    output:
        f"{HUB}/download.json",
    log:
        f"{DOWNLOADS}/logs/{{repo_type}}_{{repo}}.log",
    benchmark:
        f"{DOWNLOADS}/logs/{{repo_type}}_{{repo}}.tsv"
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
        "nrcg download-hub {params.options} --out {params.out:q} --log {log:q}"


rule download_authors:
    output:
        AUTHORS_FILE,
    log:
        f"{DOWNLOADS}/logs/authors_{{kind}}_{{role}}.log",
    benchmark:
        f"{DOWNLOADS}/logs/authors_{{kind}}_{{role}}.tsv"
    localrule: True
    params:
        file=lambda w: flags(dict(AUTHORS.loc[(w.kind, w.role)])),
    shell:
        "nrcg download {params.file} --out {output:q} --log {log:q}"


rule import_classifier:
    input:
        lambda w: AUTHORS_FILE.format(kind=settings(w)["kind"], role=w.role),
    output:
        f"{IMPORTED}/model.safetensors",
        f"{IMPORTED}/card.json",
    log:
        f"{LOGS}import_{{role}}.log",
    benchmark:
        f"{BENCHMARKS}import_{{role}}.tsv"
    wildcard_constraints:
        role="(nonrobust|robust)(_forward)?",
    localrule: True
    params:
        out=subpath(output[0], parent=True),
        options=lambda w: flags(
            {
                "architecture": settings(w)["classifiers"][w.role.removesuffix("_forward")]["architecture"],
                "classes": class_names(w.dataset),
                **AUTHORS.loc[(settings(w)["kind"], w.role)],
            }
        ),
    shell:
        "nrcg import-classifier --file {input:q} {params.options} --out {params.out:q} --log {log:q}"


rule import_ddpm:
    input:
        lambda w: ddpm_origin(w.dataset),
    output:
        [f"{IMPORTED}/{file}" for file in DDPM_FILES],
        f"{IMPORTED}/card.json",
    log:
        f"{LOGS}import_{{role}}.log",
    benchmark:
        f"{BENCHMARKS}import_{{role}}.tsv"
    wildcard_constraints:
        role="ddpm",
    localrule: True
    params:
        out=subpath(output[-1], parent=True),
        options=ddpm_import_options,
    shell:
        "nrcg import-ddpm {params.options} --out {params.out:q} --log {log:q}"
