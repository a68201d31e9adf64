# Where data and networks come from: made here, a folder of the user's, or a download; nothing is run here.
AUTHORS = read_tsv("authors_weights", "authors_weights", ["kind", "role"])[["url", "digest"]]
AUTHORS_EXPECT = {  # what the released weights were made for
    "celeba": {"size": 64, "attribute": "Male"},
    "sportballs": {"size": 64, "ball": ["baseball", "basketball", "volleyball", "soccer"]},
    "celebahq": {"size": 256},
}

INCEPTION = config["inception_weights"] or f"{DOWNLOADS}/pt_inception-2015-12-05-6726825d.pth"
AUTHORS_FILE = f"{DOWNLOADS}/authors/{{kind}}/{{role}}.safetensors"
HUB = f"{DOWNLOADS}/{{repo_type}}s/{{repo}}"
IMPORTED = f"{HOME}/imported/{{role}}"


def hub_folder(repo_type, source):
    """Where a hub repository `owner/name` or `owner/name@revision` is kept."""
    return HUB.format(repo_type=repo_type, repo="--".join(Path(source).parts))


def by_authors(dataset, role):
    """Whether the authors' released weights serve a role: they have no judge, and no DDPM for CelebA-HQ."""
    data = config["datasets"][dataset]
    return data["weights"] == "authors" and (data["kind"], role) in AUTHORS.index


@cache
def classifier_home(dataset, name, forward=False):
    """A classifier's folder: the user's, the authors' (others for figures 1 to 4 of SportBalls), or trained here."""
    if pretrained := config["datasets"][dataset]["classifiers"][name]["pretrained"]:
        return pretrained
    if not by_authors(dataset, name):
        return CLASSIFIER.format(dataset=dataset, classifier=name)
    other = f"{name}_forward"
    return IMPORTED.format(dataset=dataset, role=other if forward and by_authors(dataset, other) else name)


def classifier_files(name, forward=False):
    """Input function: weights and card of a classifier, `name` or the wildcard's."""
    return lambda wildcards: [
        str(Path(classifier_home(wildcards.dataset, name or wildcards.classifier, forward), file))
        for file in CLASSIFIER_FILES
    ]


def needed_classifiers(dataset):
    """The classifiers that this run uses."""
    needed = {"judge", *(guiding(setup) for setup, _ in points(dataset))} & set(
        config["datasets"][dataset]["classifiers"]
    )
    return sorted(needed, key=lambda name: (name == "judge", name))


def classifier_logs(dataset):
    """The log of each classifier's training, by name: of those trained here, and those that came with one."""
    logs = {name: Path(classifier_home(dataset, name), "log.csv") for name in needed_classifiers(dataset)}
    pretrained = [name for name in logs if config["datasets"][dataset]["classifiers"][name]["pretrained"]]
    return {
        name: str(path)
        for name, path in logs.items()
        if (path.is_file() if name in pretrained else not by_authors(dataset, name))
    }


def ddpm_is_trained(dataset):
    return not config["datasets"][dataset]["ddpm"]["pretrained"] and not by_authors(dataset, "ddpm")


@cache
def ddpm_home(dataset):
    """The DDPM's folder: trained here, the user's, or one imported from another layout, the hub or the authors."""
    pretrained = config["datasets"][dataset]["ddpm"]["pretrained"]
    if pretrained and all(Path(pretrained, file).is_file() for file in DDPM_FILES):
        return pretrained
    if ddpm_is_trained(dataset):
        return DDPM.format(dataset=dataset)
    return IMPORTED.format(dataset=dataset, role="ddpm")


def ddpm_source(wildcards):
    """The DDPM's folder."""
    return ddpm_home(wildcards.dataset)


def ddpm_files(wildcards):
    """The DDPM's files that a job waits for: weights and configurations."""
    return [str(Path(ddpm_home(wildcards.dataset), file)) for file in DDPM_FILES]


def ddpm_origin(dataset):
    """The file that an import waits for; none where it is a folder of the user's."""
    data = config["datasets"][dataset]
    if not data["ddpm"]["pretrained"]:
        return AUTHORS_FILE.format(kind=data["kind"], role="ddpm")
    if Path(data["ddpm"]["pretrained"]).is_dir():
        return []
    return f"{hub_folder('model', data['ddpm']['pretrained'])}/download.json"


def ddpm_import_options(wildcards, input):
    """The source of an import, and for a bare U-Net file its architecture."""
    data = settings(wildcards)
    if data["ddpm"]["pretrained"]:
        return flags({"source": Path(input[0]).parent if input else data["ddpm"]["pretrained"]})
    origin = dict(AUTHORS.loc[(data["kind"], "ddpm")])
    return flags({"source": input[0], **origin}) + (
        f" --unet {as_json(data['ddpm']['unet'])} --scheduler {as_json(data['scheduler'])}"
    )


def celebahq_folder(dataset, *file):
    """The folder of parquet files: the user's, or where the hub's data set is kept; or a file in it."""
    source = config["datasets"][dataset]["images"]["source"]
    return str(Path(source if Path(source).is_dir() else hub_folder("dataset", source), *file))


def celeba_folder(dataset):
    return config["datasets"][dataset]["images"]["source"] or f"{DOWNLOADS}/celeba"


def needed_downloads():
    """Every file that this run needs from elsewhere."""
    files = [INCEPTION] if "inception" in config["extractors"] and not config["inception_weights"] else []
    for dataset in DATASETS:
        data = config["datasets"][dataset]
        if data["kind"] == "celeba" and not data["images"]["source"]:
            files.append(f"{DOWNLOADS}/celeba/list_attr_celeba.txt")
        if data["kind"] == "celebahq" and not Path(data["images"]["source"]).is_dir():
            files.append(celebahq_folder(dataset, "download.json"))
        if data["ddpm"]["pretrained"] and not Path(data["ddpm"]["pretrained"]).is_dir():
            files.append(ddpm_origin(dataset))
        if data["weights"] == "authors":
            files += [AUTHORS_FILE.format(kind=kind, role=role) for kind, role in AUTHORS.index if kind == data["kind"]]
    return files


def weights_note(dataset):
    """In words, for the comparison with the paper."""
    data = config["datasets"][dataset]
    folders = [data["classifiers"][name]["pretrained"] for name in guiding_classifiers(dataset)]
    classifiers = ", ".join(filter(None, folders)) or "trained here"
    if data["weights"] == "authors":
        classifiers = "the authors'"
    if data["ddpm"]["pretrained"]:
        return f"DDPM {data['ddpm']['pretrained']}, classifiers {classifiers}"
    return classifiers
