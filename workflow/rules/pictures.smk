# What the figures and tables are called and show; nothing is run here.

FORWARD_FIGURES = {  # figure: its metric
    "1": "accuracy",
    "2": "logit_sensitivity",
    "3": "gradient_sensitivity",
    "4": "gradient_sensitivity",
}
SCALE_FIGURES = {  # metric: its name; the paper knows a, b and c, the judge's are ours
    "accuracy": "figure8a_accuracy",
    "accuracy_judge": "figure8a_accuracy_judge",
    "fid": "figure8b_fid",
    "fd_judge": "figure8b_fd_judge",
    "cfid": "figure8c_cfid",
    "cfd_judge": "figure8c_cfd_judge",
}
CONTRAST = ["nonrobust_x0_ema0.99", "nonrobust_x0_ema0.99_logprob"]
GRID_SAMPLES = 256
PRETTY = {"sportballs": "SportBalls"}


def figure_files(*names, suffixes=("png", "pdf")):
    """A figure's files for every data set."""
    return expand(f"{FIGURE}{{name}}.{{suffix}}", dataset=DATASETS, name=names, suffix=suffixes)


def measured_metrics():
    """Metrics against the scale, as far as their extractor is configured."""
    without = {"inception": ["fid", "cfid"], "judge": ["fd_judge", "cfd_judge"]}
    missing = [m for extractor, metrics in without.items() if extractor not in config["extractors"] for m in metrics]
    return [metric for metric in SCALE_FIGURES if metric not in missing]


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


def grid_point(wildcards):
    """(setup, scale) of a grid: the unguided samples, or the point that the config shows."""
    if wildcards.which == UNGUIDED:
        return UNGUIDED, "none"
    shown = settings(wildcards)["showcase"]
    return shown["setup"], f"{shown['scale']:g}"
