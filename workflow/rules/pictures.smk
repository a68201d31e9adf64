# What the figures and tables are called, and which files a target stands for; nothing is run here.

LEFT_OUT = ["saturated", "clipped"]  # where gradients mean nothing
FORWARD_FIGURES = {  # figure: its metric, and others that it needs
    "1": ["accuracy", "one_class"],
    "2": ["logit_sensitivity"],
    "3": ["gradient_sensitivity", "relative_sensitivity", *LEFT_OUT],
    "4": ["gradient_sensitivity", "relative_sensitivity", *LEFT_OUT],
}
PAPER = {  # kind of data set: what the paper calls its pictures
    "celeba": {
        "name": "CelebA",
        "scales": {"accuracy": "5", "fid": "6", "cfid": "7"},
        "table": "1",
        "grids": {"unconditional": "9 a", "conditional": "9 b"},
    },
    "sportballs": {
        "name": "SportBalls",
        "scales": {"accuracy": "8a", "fid": "8b", "cfid": "8c"},
        "table": "2",
        "grids": {"unconditional": "9 c", "conditional": "9 d"},
    },
    "celebahq": {
        "name": "CelebA-HQ",
        "scales": {},  # one scale
        "table": "3",
        "grids": {"unconditional": "9 e", "conditional": "9 f"},
    },
}
VARIANTS = {  # the paper's metric: ours beside it, with the extractor of each
    "accuracy": {"accuracy": None, "accuracy_judge": None},
    "fid": {"fid": "inception", "fd_judge": "judge"},
    "cfid": {"cfid": "inception", "cfd_judge": "judge"},
}
CONTRAST = ["nonrobust_x0_ema0.99", "nonrobust_x0_ema0.99_logprob"]
COMPARISON = expand(f"{RUN}/comparison.{{suffix}}", suffix=["csv", "md", "tex"])


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
    return lambda dataset: [f"figure{n}" for n in numbers if has_forward(dataset)]


def forward_numbers(wildcards):
    return FORWARD_FIGURES if has_forward(wildcards.dataset) else []


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
TABULAR = ("csv", "md", "tex")
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
        lambda dataset: ["classifiers", *(["ddpm_loss"] if ddpm_is_trained(dataset) else [])]
    ),
    "findings": figure_files(["findings"], suffixes=("md", "csv")),
    "comparison": COMPARISON,
}


def wanted(target):
    """Input function of a target rule: its files, or a word on why it has none."""

    def files(wildcards):
        if not TARGETS[target]:
            raise WorkflowError(f"{target}: no data set of this run has it; run_datasets are {', '.join(DATASETS)}")
        return TARGETS[target]

    return files


def compared_points(dataset):
    """Rows of the side-by-side figure: every setup at its lowest, middle and highest scale, without repeats."""
    rows = [(UNGUIDED, "none")]
    for setup in SETUPS.index:
        scales = [scale for name, scale in guided_points(dataset) if name == setup]
        rows += [
            (setup, scale) for scale in dict.fromkeys(scales[i] for i in (0, (len(scales) - 1) // 2, -1) if scales)
        ]
    return rows


def row_label(setup, scale):
    return SETUPS.loc[setup, "label"] + ("" if scale == "none" else f", s = {scale}")


def showcase(dataset):
    """(setup, scale) of the guided point that the grids show."""
    shown = config["datasets"][dataset]["showcase"]
    return shown["setup"], f"{shown['scale']:g}"


def grid_point(wildcards):
    """(setup, scale) of a grid: the unguided samples, or the point that the config shows."""
    return (UNGUIDED, "none") if wildcards.which == UNGUIDED else showcase(wildcards.dataset)
