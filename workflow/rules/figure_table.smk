# Figures and tables: a table of all that a run draws, the rules that draw them, and the targets named like the paper's.
# An entry is made by `drawn`; its function is one of those that `nrcg draw --help` lists.
from nrcg.plots.decay import decay_note

FORWARD_FIGURES = {  # figure: its metric, and others that it needs
    "1": ["accuracy", "one_class"],
    "2": ["logit_sensitivity"],
    "3": ["gradient_sensitivity", "relative_sensitivity", "saturated", "clipped"],
    "4": ["gradient_sensitivity", "relative_sensitivity", "saturated", "clipped"],
}
SHOWN = {  # the paper's metric: what a figure against the scale shows, by which extractor or classifier
    "accuracy": "share of {target} by the {by}",
    "fid": "{by} to all training images",
    "cfid": "{by} to the target class",
}
CAPTIONS = read_yaml(PROJECT / "workflow/report/captions.yaml")  # of the report, by the function that draws
CATEGORIES = ("1 Findings", "2 Tables", "3 Guided sampling", "4 Samples", "5 Forward process", "6 Data and training")


def pretty(dataset):
    """A data set's name for readers."""
    return config["datasets"][dataset]["title"] or dataset


def run_note(dataset, *setups, paper_as=""):
    """Small print: the run, what the setups' stabilisers amount to, and how large the paper's run was.

    paper_as names the paper's numbers where they are shown; the remark is left out where the run is as large.
    """
    data = config["datasets"][dataset]
    size, total, sampling = data["images"]["size"], data["scheduler"]["num_train_timesteps"], data["sampling"]
    n, free, steps = (sampling[key] for key in ("n_samples", "n_unconditional", "num_inference_steps"))
    within = "" if steps == total else f" in {steps} steps"
    text = f"{n} guided samples per point, {free} unguided, {size}×{size} pixels, T = {total}{within}"
    lines = [f"Run “{config['run']}”: {text}."]
    rows = [SETUPS[setup].get("guidance", {}) for setup in setups or scales_of(dataset)]
    whole = [row for row in rows if row.keys() <= {"on", "objective", "stabilizer"}]  # others have fewer gradients
    notes = dict.fromkeys(decay_note(row.get("stabilizer"), steps) for row in whole)
    lines += [f"{text}." for text in notes if text]
    theirs = data["paper"].get("run", [size, total, n])
    if paper_as and [size, total, n] != theirs:
        count = f"{theirs[2]:,}".replace(",", " ")
        lines.append(f"{paper_as}: {theirs[0]}×{theirs[0]}, T = {theirs[1]}, n = {count}: not comparable.")
    return lines


def forward_note(dataset):
    """Small print of figures 1 to 4."""
    data = config["datasets"][dataset]
    images = f"validation images of {data['images']['size']}×{data['images']['size']}, target {data['target']}"
    own = "" if data["paper"].get("forward") else " The paper shows figures 1 to 4 for CelebA alone."
    return [f"Run “{config['run']}”: {images}, T = {data['scheduler']['num_train_timesteps']}.{own}"]


def classifier_logs(dataset):
    """The log of each classifier's training, by name: of those trained here, and those that came with one."""
    logs = {name: f"{classifier_folder(dataset, name)}/log.csv" for name in needed_classifiers(dataset)}
    given = config["datasets"][dataset]["classifiers"]
    return {
        name: file
        for name, file in logs.items()
        if (Path(file).is_file() if given[name]["pretrained"] else not by_authors(dataset, name))
    }


def classifiers_note(dataset):
    """Small print of the classifiers' training: what their accuracies were measured on."""
    data = config["datasets"][dataset]
    size, total = data["images"]["size"], data["scheduler"]["num_train_timesteps"]
    counts = [data["classifiers"][name].get("valid_images", 0) for name in classifier_logs(dataset)]
    counts = ", ".join(str(n or "all") for n in dict.fromkeys(counts))
    noised = f"Noised: by the forward process, t uniform in 1 to T = {total}."
    return [f"Run “{config['run']}”: {counts} validation images of {size}×{size}. {noised}"]


def weights_note(dataset):
    """Whose networks were run, in words, for the comparison with the paper."""
    data = config["datasets"][dataset]
    folders = [data["classifiers"][name]["pretrained"] for name in guiding_classifiers(dataset)]
    found = "the authors'" if data["weights"] == "authors" else ", ".join(filter(None, folders)) or "trained here"
    given = data["ddpm"]["pretrained"]
    return f"DDPM {given}, classifiers {found}" if given else found


def figure_setups(dataset, number):
    """Setups whose curves a figure of the forward process shows: figure 4 adds the stabilised ones."""
    setups = forward_setups(dataset)
    return setups if number == "4" else [setup for setup in setups if "stabilizer" not in SETUPS[setup]["guidance"]]


def label(setup, scale):
    return SETUPS[setup]["label"] + ("" if scale == "none" else f", s = {scale}")


def point_file(dataset, folder, setup, scale):
    """A file of a point: its first samples or its verdicts."""
    pattern = {"first": f"samples/{POINT}/first.npy", "verdicts": "verdicts/{setup}_scale_{scale}.csv"}[folder]
    return f"<run>/{dataset}/{pattern.format(setup=setup, scale=scale)}"


def drawn(function, category, name, shows, title, note, targets, files, shape=dict, **arguments):
    """An entry of the table of figures.

    function   what draws it, of `nrcg draw --help`; it gets `arguments`, and what `shape` makes of `files`, whose values
               are a file, a list of files or files by name, all to wait for
    category   number of the report's category; `name` and `shows` are its labels there
    note       lines of small print
    targets    the target rules that it belongs to
    """
    return locals()


@cache
def figures(dataset):
    """Name of its files → entry, of every figure and table of a data set."""
    data, name = config["datasets"][dataset], pretty(dataset)
    theirs = data["paper"]
    setups, target, found = {"setups": config["setups"]}, data["target"], {}
    scores = {"csv": f"<run>/{dataset}/scores.csv", **setups}
    shown = data["showcase"]["setup"], plain(data["showcase"]["scale"])
    note = run_note(dataset, paper_as="The paper")
    for number, (metric, *_) in FORWARD_FIGURES.items():
        if "forward" in data and figure_setups(dataset, number):
            gradient = {"log_prob": "∇ log p", "logit": "∇ logit"}.get(data["objective"], "the objective's gradient")
            text = {
                "1": "accuracy along the forward process",
                "2": "logit sensitivity, eq. 3",
                "3": f"sensitivity of {gradient}, eq. 4, and relative",
                "4": f"sensitivity of the stabilised {gradient}, eq. 4 and 6, and relative",
            }[number]
            found[f"figure{number}"] = drawn(
                *("forward", 5, f"Figure {number}", metric.replace("_", " "), f"Figure {number} ({name}): {text}"),
                *(
                    forward_note(dataset),
                    [f"figure{number}"],
                    {"csv": f"<run>/{dataset}/figures/figure{number}.csv", **setups},
                ),
                **({"chance": 1 / len(class_names(dataset))} if number == "1" else {}),
            )
    for metric, number in theirs.get("scales", dict.fromkeys(SHOWN)).items():
        by = {"accuracy": "guiding classifier", "accuracy_judge": "judge"} if metric == "accuracy" else {}
        for extractor in config["extractors"] if metric != "accuracy" else []:
            variant = metric if extractor == "inception" else f"{metric.replace('fid', 'fd')}_{extractor}"
            by[variant] = "FID" if extractor == "inception" else f"FD ({extractor})"
        for variant, words in by.items():
            text, own = SHOWN[metric].format(target=target, by=words), number and variant == metric
            beside = f"Beside figure {number}" if number else variant
            found[f"figure{number}_{variant}" if number else f"scales_{variant}"] = drawn(
                *("scales", 3, f"Figure {number}" if own else beside, text),
                (
                    f"Figure {number}: {text} ({name})"
                    if own
                    else f"{text[0].upper()}{text[1:]} ({name}; not in the paper)"
                ),
                run_note(dataset, paper_as="Star and dotted line, the paper" if own else ""),
                [f"figure{number.rstrip('abc')}" if number else "scales"],
                {**scores, "paper": config["paper_results"]},
                metric=variant,
                dataset=dataset,
            )
    pair = [config["roles"].get("ema"), config["roles"].get("log_prob")]
    if set(pair) <= set(scales_of(dataset)):
        found["contrast"] = drawn(
            *("contrast", 3, "Contrast", "guiding classifier against judge, by the logit and by log p"),
            f"Share of {target} by the guiding classifier and by the judge ({name})",
            *(run_note(dataset, *pair), ["contrast"], scores),
            **{"target": target, "compared": pair, "dataset": dataset},
        )
    for which, (setup, scale) in {"unconditional": (UNGUIDED, "none"), "conditional": shown}.items():
        number, few = theirs.get("grids", {}).get(which, "9"), n_samples(dataset, setup) < PICTURED
        found[f"figure9_{which}"] = drawn(
            *("grid", 4, f"Figure {number}", label(setup, scale), f"Figure {number}: {name}, {label(setup, scale)}"),
            [f"The paper shows {PICTURED}."] * few + run_note(dataset, setup),
            *(["figure9", "grids"], {"shards": [point_file(dataset, "first", setup, scale)]}),
            n=PICTURED,
        )
    found["side_by_side"] = drawn(
        *("side_by_side", 4, "Side by side", "the same seeds, each setup at its best scale"),
        f"The same seeds, each setup at its best scale s ({name})",
        ["Best: nearest to the target class. A blank cell is a sample too.", *run_note(dataset)],
        ["side_by_side"],
        {**scores, "points": [point_file(dataset, "first", *point) for point in points(dataset)]},
        shape=lambda files: {
            **files,
            "points": [
                {"setup": setup, "scale": None if scale == "none" else float(scale), "shard": shard}
                for (setup, scale), shard in zip(points(dataset), files["points"], strict=True)
            ],
        },
        dataset=dataset,
    )
    sides = {"before": (UNGUIDED, "none"), "after": shown}
    found["before_after"] = drawn(
        *("before_after", 4, "Before and after", label(*shown)),
        f"Before and after guidance: {name}, {label(*shown)}",
        *(run_note(dataset, shown[0]), ["figure9", "grids"]),
        {
            **{side: [point_file(dataset, "first", *point)] for side, point in sides.items()},
            **{f"verdicts_{side}": point_file(dataset, "verdicts", *point) for side, point in sides.items()},
        },
        target=target,
        classifier="guiding" if SETUPS[shown[0]]["classifier"] == SETUPS[UNGUIDED]["classifier"] else "judge",
    )
    if logs := classifier_logs(dataset):
        found["classifiers"] = drawn(
            *("classifier_logs", 6, "Classifiers", "loss and accuracy while they train"),
            f"Training of the classifiers and the judge ({name})",
            *(classifiers_note(dataset), ["training_curves"], {"logs": logs, **setups}),
        )
    if ddpm_is_trained(dataset):
        found["ddpm_loss"] = drawn(
            *("ddpm_log", 6, "DDPM", "loss while it trains", f"Training loss of the DDPM ({name})"),
            *([], ["training_curves"], {"csv": f"<run>/{dataset}/ddpm/log.csv"}),
        )
    number = theirs.get("table", "")
    found[f"table{number}"] = drawn(
        *("table", 2, f"Table {number}".strip(), "unconditional and guided samples, and the paper's numbers"),
        f"{f'Table {number}'.strip()}: {name}, target {target}",
        *(note, [f"table{number}"], {**scores, "paper": config["paper_results"]}),
        **{"target": target, "dataset": dataset},
    )
    found["all_points"] = drawn(
        *("points", 2, "All points", "every score of every setup and scale", f"All points: {name}"),
        *(run_note(dataset), [f"table{number}"], scores),
        dataset=dataset,
    )
    curves = [number for number in FORWARD_FIGURES if f"figure{number}" in found]
    found["findings"] = drawn(
        *("findings", 1, "Findings", "the paper's claims, and whether this run shows them", f"Findings: {name}"),
        *(run_note(dataset), ["findings"]),
        {
            "scores": scores["csv"],
            **setups,
            "unconditional": [point_file(dataset, "first", UNGUIDED, "none")],
            "figures": {number: f"<run>/{dataset}/figures/figure{number}.csv" for number in curves},
            "classifiers": {role: classifier(dataset, role)[1] for role in guiding_classifiers(dataset)},
        },
        roles=config["roles"],
        **{"target": target, "classes": len(class_names(dataset)), "dataset": dataset},
    )
    return found


@cache
def comparison():
    """The entry of the one table that is of all data sets."""
    notes = [f"{pretty(name)}: {line}" for name in DATASETS for line in run_note(name, paper_as="The paper")]
    return drawn(
        *("comparison", 2, "Comparison", "every number of the paper, ours beside it", "The paper's numbers, and ours"),
        *(notes, ["comparison"]),
        {
            "scores": collect("<run>/{dataset}/scores.csv", dataset=DATASETS),
            "paper": config["paper_results"],
            "setups": config["setups"],
        },
        weights={name: weights_note(name) for name in DATASETS},
    )


TABLES = ("table", "points", "findings", "comparison")  # functions that write text, not pictures


def suffixes(entry):
    return ("csv", "md", "tex", "html") if entry["function"] in TABLES else ("png", "pdf")


def entry(wildcards):
    return figures(wildcards.dataset)[wildcards.name] if "dataset" in wildcards.keys() else comparison()


def entry_files(wildcards):
    """Input function: the files of an entry."""
    files = entry(wildcards)["files"]
    return {key: list(value.values()) if isinstance(value, dict) else value for key, value in files.items()}


def draw_options(wildcards, input, output):
    """Options of `nrcg draw`: the arguments of the function, with the files as they are now called, and all others."""
    found = entry(wildcards)
    files = {}
    for key, value in found["files"].items():
        files[key] = input.get(key)
        if isinstance(value, dict):
            files[key] = dict(zip(value, input.get(key), strict=True))
        elif isinstance(value, list):
            files[key] = list(input.get(key))
    arguments = {**found["shape"](files), **found["arguments"]}
    options = {"arguments": arguments, "title": found["title"], "note": found["note"]}
    return flags({**options, "style": input.get("style"), "out": list(output)})


def labels(wildcards):
    found, of = entry(wildcards), pretty(wildcards.dataset) if "dataset" in wildcards.keys() else "all"
    return {"name": found["name"], "data set": of, "shows": found["shows"]}


def category(wildcards):
    return CATEGORIES[entry(wildcards)["category"] - 1]


def names(tables):
    """Pattern of the names of all tables, or of all pictures."""
    entries = [item for dataset in DATASETS for item in figures(dataset).items()]
    return "|".join(dict.fromkeys(name for name, found in entries if (found["function"] in TABLES) == tables))


TARGETS = {  # target rule: its files; a target without files has no data set in this run
    **{f"figure{number}": [] for number in range(1, 10)},
    **{f"table{number}": [] for number in range(1, 4)},
    **{
        target: [] for target in ("scales", "table", "grids", "contrast", "side_by_side", "training_curves", "findings")
    },
    "comparison": [f"<run>/comparison.{suffix}" for suffix in suffixes(comparison())],
}
for dataset in DATASETS:
    for name, found in figures(dataset).items():
        for target in found["targets"]:
            TARGETS[target] += [f"<run>/{dataset}/figures/{name}.{suffix}" for suffix in suffixes(found)]


def wanted(target):
    """Input function of a target rule: its files, or a word on why it has none."""

    def files(wildcards):
        if not TARGETS[target]:
            raise WorkflowError(f"{target}: no data set of this run has it; run_datasets are {', '.join(DATASETS)}")
        return TARGETS[target]

    return files
