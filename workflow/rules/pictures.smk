# What the figures and tables are called, and which files a target stands for; nothing is run here.
from nrcg.plots.decay import decay_note

LEFT_OUT = ["saturated", "clipped"]  # where gradients mean nothing
FORWARD_FIGURES = {  # figure: its metric, and others that it needs
    "1": ["accuracy", "one_class"],
    "2": ["logit_sensitivity"],
    "3": ["gradient_sensitivity", "relative_sensitivity", *LEFT_OUT],
    "4": ["gradient_sensitivity", "relative_sensitivity", *LEFT_OUT],
}
PAPER = {  # kind of data set: what the paper calls its pictures; its run: image size, T, samples per point
    "celeba": {
        "name": "CelebA",
        "run": (64, 400, 50176),
        "scales": {"accuracy": "5", "fid": "6", "cfid": "7"},
        "table": "1",
        "grids": {"unconditional": "9a", "conditional": "9b"},
    },
    "sportballs": {
        "name": "SportBalls",
        "run": (64, 400, 50176),
        "scales": {"accuracy": "8a", "fid": "8b", "cfid": "8c"},
        "table": "2",
        "grids": {"unconditional": "9c", "conditional": "9d"},
    },
    "celebahq": {
        "name": "CelebA-HQ",
        "run": (256, 1000, 1024),
        "scales": {},  # one scale
        "table": "3",
        "grids": {"unconditional": "9e", "conditional": "9f"},
    },
}
VARIANTS = {  # the paper's metric: ours beside it, with the extractor of each
    "accuracy": {"accuracy": None, "accuracy_judge": None},
    "fid": {"fid": "inception", "fd_judge": "judge"},
    "cfid": {"cfid": "inception", "cfd_judge": "judge"},
}
SHOWN = {  # what a figure against the scale shows
    "accuracy": "share of {target} by the guiding classifier",
    "accuracy_judge": "share of {target} by the judge",
    "fid": "FID to all training images",
    "fd_judge": "FD (judge) to all training images",
    "cfid": "FID to the target class",
    "cfd_judge": "FD (judge) to the target class",
}
CATEGORIES = {  # of the report, which sorts them by name
    "findings": "1 Findings",
    "tables": "2 Tables",
    "guided": "3 Guided sampling",
    "samples": "4 Samples",
    "forward": "5 Forward process",
    "training": "6 Data and training",
}
CONTRAST = ["nonrobust_x0_ema0.99", "nonrobust_x0_ema0.99_logprob"]
COMPARISON = expand(f"{RUN}/comparison.{{suffix}}", suffix=["csv", "md", "tex", "html"])


def paper(dataset):
    return PAPER[config["datasets"][dataset]["kind"]]


def pretty(dataset):
    return paper(dataset)["name"]


def figure_files(names, *, suffixes=("png", "pdf")):
    """Files of the figures that `names` (a list, or a function of the data set) names, for every data set."""
    return [
        f"{FIGURE.format(dataset=dataset)}{name}.{suffix}"
        for dataset in DATASETS
        for name in (names(dataset) if callable(names) else names)
        for suffix in suffixes
    ]


def forward_title(dataset, figure):
    """What one of figures 1 to 4 shows."""
    gradient = {"log_prob": "∇ log p", "logit": "∇ logit"}[config["datasets"][dataset]["objective"]]
    shown = {
        "1": "accuracy along the forward process",
        "2": "logit sensitivity, eq. 3",
        "3": f"sensitivity of {gradient}, eq. 4, and relative",
        "4": f"sensitivity of the stabilised {gradient}, eq. 4 and 6, and relative",
    }
    return f"Figure {figure} ({pretty(dataset)}): {shown[figure]}"


def forward_note(dataset):
    """Last line of the small print of figures 1 to 4."""
    data = config["datasets"][dataset]
    images = f"validation images of {data['images']['size']}×{data['images']['size']}, target {data['target']}"
    paper = "" if data["kind"] == "celeba" else " The paper shows figures 1 to 4 for CelebA alone."
    return f"Run “{config['run']}”: {images}, T = {data['scheduler']['num_train_timesteps']}.{paper}"


def forward_figures(*numbers):
    return lambda dataset: [f"figure{n}" for n in numbers if n in forward_numbers(dataset)]


def forward_numbers(dataset):
    """The figures of the forward process that a data set has: each needs a setup whose curves it shows."""
    if "forward" not in config["datasets"][dataset]:
        return []
    return [number for number in FORWARD_FIGURES if figure_setups(dataset, number)]


def scale_figures(*numbers):
    """Figures against the scale by the paper's number; the extractors decide which variants there are."""
    return lambda dataset: [
        f"figure{number}_{variant}"
        for metric, number in paper(dataset)["scales"].items()
        if number in numbers
        for variant, extractor in VARIANTS[metric].items()
        if extractor is None or extractor in config["extractors"]
    ]


def table_names(number):
    return lambda dataset: [f"table{number}", "all_points"] if paper(dataset)["table"] == number else []


GRIDS = figure_files(["figure9_unconditional", "figure9_conditional", "before_after"])
TABULAR = ("csv", "md", "tex", "html")
TARGETS = {  # target rule: its files; a target without files has no data set in this run
    **{f"figure{n}": figure_files(forward_figures(n)) for n in FORWARD_FIGURES},
    "figure5": figure_files(scale_figures("5")),
    "figure6": figure_files(scale_figures("6")),
    "figure7": figure_files(scale_figures("7")),
    "figure8": figure_files(scale_figures("8a", "8b", "8c")),
    "figure9": GRIDS,
    "table1": figure_files(table_names("1"), suffixes=TABULAR),
    "table2": figure_files(table_names("2"), suffixes=TABULAR),
    "table3": figure_files(table_names("3"), suffixes=TABULAR),
    "grids": GRIDS,
    "contrast": figure_files(lambda dataset: ["contrast"] if set(CONTRAST) <= set(scales_of(dataset)) else []),
    "side_by_side": figure_files(["side_by_side"]),
    "training_curves": figure_files(
        lambda dataset: [
            *(["classifiers"] if classifier_logs(dataset) else []),
            *(["ddpm_loss"] if ddpm_is_trained(dataset) else []),
        ]
    ),
    "findings": figure_files(["findings"], suffixes=("md", "csv", "html")),
    "comparison": COMPARISON,
}


def wanted(target):
    """Input function of a target rule: its files, or a word on why it has none."""

    def files(wildcards):
        if not TARGETS[target]:
            raise WorkflowError(f"{target}: no data set of this run has it; run_datasets are {', '.join(DATASETS)}")
        return TARGETS[target]

    return files


def entry(name, shows):
    """Labels of an entry of the report, as a function of the wildcards; each text may be one too."""

    def labels(wildcards):
        texts = {"name": name, "data set": pretty(wildcards.dataset), "shows": shows}
        return {key: text(wildcards) if callable(text) else text for key, text in texts.items()}

    return labels


def in_paper(wildcards):
    """Whether a figure against the scale is the paper's own, or a variant of it by the judge."""
    return wildcards.metric in VARIANTS and wildcards.metric in paper(wildcards.dataset)["scales"]


def scale_shown(wildcards):
    return SHOWN[wildcards.metric].format(target=settings(wildcards)["target"])


def scale_name(wildcards):
    return f"Figure {wildcards.number}" if in_paper(wildcards) else f"Beside figure {wildcards.number}"


def scale_title(wildcards):
    """A title that says what is shown, and the paper's number for its own figures alone."""
    shown, name = scale_shown(wildcards), pretty(wildcards.dataset)
    if in_paper(wildcards):
        return f"Figure {wildcards.number}: {shown} ({name})"
    return f"{shown[0].upper()}{shown[1:]} ({name}; not in the paper)"


def sampled_note(dataset, *setups, paper_as=""):
    """Small print about samples: the run, what the setups' stabilisers amount to, and how large the paper's run was.

    paper_as names the paper's numbers where they are shown; the remark is left out where the run is as large.
    """
    data, lines = config["datasets"][dataset], [note(dataset)]
    steps = data["sampling"]["num_inference_steps"]
    rows = SETUPS.loc[list(setups)]
    whole = rows[rows["economy"] == "none"]  # others give their stabiliser fewer gradients
    decays = dict.fromkeys(decay_note(stabilizer, steps) for stabilizer in whole["stabilizer"])
    lines += [f"{decay}." for decay in decays if decay]
    size, total, n = theirs = paper(dataset)["run"]
    ours = data["images"]["size"], data["scheduler"]["num_train_timesteps"], data["sampling"]["n_samples"]
    if paper_as and ours != theirs:
        count = f"{n:,}".replace(",", " ")
        lines.append(f"{paper_as}: {size}×{size}, T = {total}, n = {count}: not comparable.")
    return "\n".join(lines)


def note_lines(*texts):
    """Options for small print of several lines: a command keeps to one."""
    return flags({"note": [line for text in texts for line in text.splitlines()]})


def run_note(dataset, **options):
    """`sampled_note` of every setup of the run."""
    return sampled_note(dataset, *scales_of(dataset), **options)


def row_label(setup, scale):
    return SETUPS.loc[setup, "label"] + ("" if scale == "none" else f", s = {scale}")


def showcase(dataset):
    """(setup, scale) of the guided point that the grids show."""
    shown = config["datasets"][dataset]["showcase"]
    return shown["setup"], plain(shown["scale"])


def grid_point(wildcards):
    """(setup, scale) of a grid: the unguided samples, or the point that the config shows."""
    return (UNGUIDED, "none") if wildcards.which == UNGUIDED else showcase(wildcards.dataset)


def classifiers_note(wildcards):
    """Small print of the classifiers' training: what their accuracies were measured on."""
    data = settings(wildcards)
    size, total = data["images"]["size"], data["scheduler"]["num_train_timesteps"]
    counts = [data["classifiers"][name]["valid_images"] for name in classifier_logs(wildcards.dataset)]
    counts = ", ".join(str(n or "all") for n in dict.fromkeys(counts))
    noised = f"Noised: by the forward process, t uniform in 1 to T = {total}."
    return f"Run “{config['run']}”: {counts} validation images of {size}×{size}. {noised}"
