# Fills in the table of figures and tables, workflow/figures.yaml, for each data set of a run.
from nrcg.plots.decay import decay_note

FIGURES = read_yaml(PROJECT / "workflow/figures.yaml")
TABLES = ("table", "points", "findings", "comparison")  # functions that write text, not pictures
PAGES = ("browse",)  # functions that write a page to look through
MOVING = ("trajectory",)  # functions that also write an animation
FORWARD_FIGURES = {  # figure: its metric, and further metrics
    "1": ["accuracy", "one_class"],
    "2": ["logit_sensitivity"],
    "3": ["gradient_sensitivity", "relative_sensitivity", "saturated", "clipped"],
    "4": ["gradient_sensitivity", "relative_sensitivity", "saturated", "clipped"],
}
SIDE_NOTE = "Best: nearest to the target class. Judge: share of the target class among all reported samples. A cell that looks blank is a sample, too."
SHOWN = {  # the paper's metric: what a figure against the scale shows, by which extractor or classifier
    "accuracy": "share of samples assigned to {target} by the {by}",
    "fid": "{by} to all training images",
    "cfid": "{by} to the target class",
    "off_manifold": "share of samples far from every real image by {by}",
}


def pretty(dataset):
    """A data set's name for readers."""
    return config["datasets"][dataset]["title"] or dataset


def run_note(dataset, *setups, paper_as=""):
    """Small print: the run, the weights of the setups' stabilisers, and the size of the paper's run.

    paper_as is the name of the paper's numbers in the figure; the remark is omitted if both runs have the same size.
    """
    data = config["datasets"][dataset]
    size, total, given = data["images"]["size"], data["scheduler"]["num_train_timesteps"], data["sampling"]
    n, free, steps = (given[key] for key in ("n_samples", "n_unconditional", "num_inference_steps"))
    within = "" if steps == total else f" in {steps} steps"
    text = f"{n} guided samples per point, {free} unguided, {shown_size(size)} pixels, T = {total}{within}"
    lines = [f"Run “{config['run']}”: {text}.", *filter(None, [data["scales_note"]])]
    rows = {setup: SETUPS[setup].get("guidance", {}) for setup in setups or scales_of(dataset)}
    notes = {
        decay_note(row.get("stabilizer"), sampling(dataset, setup)["num_inference_steps"]): None
        for setup, row in rows.items()
        if row.keys() <= {"on", "objective", "stabilizer"}  # others have fewer gradients
    }
    theirs = data["paper"].get("run", [size, total, n])
    if paper_as and [size, total, n] != theirs:
        count = f"{theirs[2]:,}".replace(",", " ")
        lines.append(f"{paper_as}: {shown_size(theirs[0])}, T = {theirs[1]}, n = {count}: not comparable.")
    return [*lines, *filter(None, [" ".join(f"{text}." for text in notes if text)])]


def trace_note(dataset):
    """Small print of the trajectories: the run, and the weights of the stabilisers."""
    data = config["datasets"][dataset]
    size, total = data["images"]["size"], data["scheduler"]["num_train_timesteps"]
    return [f"Run “{config['run']}”: {shown_size(size)} pixels, T = {total}.", *run_note(dataset)[1:]]


def forward_note(dataset):
    """Small print of figures 1 to 4."""
    data = config["datasets"][dataset]
    images = f"validation images of {shown_size(data['images']['size'])}, target {data['target']}"
    return [f"Run “{config['run']}”: {images}, T = {data['scheduler']['num_train_timesteps']}."]


def classifier_logs(dataset):
    """Training logs by classifier: those trained here, and pretrained folders with a log."""
    logs = {name: f"{classifier_folder(dataset, name)}/log.csv" for name in needed_classifiers(dataset)}
    given = config["datasets"][dataset]["classifiers"]
    return {
        name: File(file)
        for name, file in logs.items()
        if (Path(file).is_file() if isinstance(given[name]["pretrained"], str) else is_trained(dataset, name))
    }


def classifiers_note(dataset):
    """Small print of the classifiers' training: the validation images."""
    data = config["datasets"][dataset]
    size, total = data["images"]["size"], data["scheduler"]["num_train_timesteps"]
    counts = [data["classifiers"][name].get("valid_images", 0) for name in classifier_logs(dataset)]
    counts = ", ".join(str(n or "all") for n in dict.fromkeys(counts))
    noised = f"Noised: by the forward process, t uniform in 1 to T = {total}."
    return [f"Run “{config['run']}”: {counts} validation images of {shown_size(size)}. {noised}"]


def weights_note(dataset):
    """The origin of the networks in words, for the comparison with the paper."""
    data = config["datasets"][dataset]
    given = [data["classifiers"][name]["pretrained"] for name in guiding_classifiers(dataset)]
    places = [place if isinstance(place, str) else as_json(place) for place in given if place]
    found = "the authors'" if data["weights"] == "authors" else ", ".join(places) or "trained here"
    given = data["ddpm"]["pretrained"]
    return f"DDPM {given}, classifiers {found}" if given else found


def figure_setups(dataset, number):
    """Setups in a figure of the forward process: figure 4 adds the stabilised ones."""
    setups = forward_setups(dataset)
    return setups if number == "4" else [setup for setup in setups if "stabilizer" not in SETUPS[setup]["guidance"]]


def label(setup, scale):
    return SETUPS[setup]["label"] + ("" if scale == "none" else f", s = {scale}")


class File(str):
    """An input file among the arguments of a figure; for a file in a job's output folder, `made` is that folder."""

    def __new__(cls, path, made=None):
        self = super().__new__(cls, path)
        self.made = made or path
        return self


def contexts(dataset):
    """Values of the table's {words} for a data set: common ones, and lists of further ones by the names in `each`."""
    data, theirs, home = config["datasets"][dataset], config["datasets"][dataset]["paper"], f"<run>/{dataset}"
    shown, pair = (data["showcase"]["setup"], plain(data["showcase"]["scale"])), ("ema", "log_prob")
    pair = [config["roles"].get(role) for role in pair]
    numbers = [number for number in FORWARD_FIGURES if "forward" in data and figure_setups(dataset, number)]
    curves = {number: File(f"{home}/figures/figure{number}.csv") for number in numbers}

    def first(setup, scale):
        return File(f"{home}/samples/{setup}/scale_{scale}/first.npy")

    def verdicts(setup, scale):
        return File(f"{home}/verdicts/{setup}_scale_{scale}.csv")

    common = {
        **{"data": pretty(dataset), "dataset": dataset, "target": data["target"], "classes": len(class_names(dataset))},
        **{"scores": File(f"{home}/scores.csv"), "setups": File(config["setups"]), "roles": config["roles"]},
        **{"paper": File(config["paper_results"]), "curves": curves, "logs": classifier_logs(dataset)},
        "cards": {name: File(classifier(dataset, name)[1]) for name in guiding_classifiers(dataset)},
        "ddpm_log": File(f"{home}/ddpm/log.csv") if ddpm_is_trained(dataset) else None,
        **{"run_note": run_note(dataset), "paper_note": run_note(dataset, paper_as="The paper")},
        **{"forward_note": forward_note(dataset), "classifiers_note": classifiers_note(dataset)},
        "side_note": [SIDE_NOTE, *run_note(dataset)],
        "points": [
            {"setup": setup, "scale": None if scale == "none" else float(scale), "shard": first(setup, scale)}
            for setup, scale in points(dataset)
        ],
        "judged": [
            {"setup": setup, "scale": float(scale), "shard": first(setup, scale), "verdicts": verdicts(setup, scale)}
            for setup, scale in points(dataset)[1:]
        ],
        "pair": pair if set(pair) <= set(scales_of(dataset)) else None,
        "traces": [
            {
                "setup": setup,
                "scale": None if scale == "none" else float(scale),
                "trace": File(f"{home}/traces/{trace_name(setup, scale)}", made=f"{home}/traces"),
            }
            for setup, scale in traced(dataset)
        ],
        "trace_note": trace_note(dataset),
        **{"unguided": first(UNGUIDED, "none"), "unguided_verdicts": verdicts(UNGUIDED, "none")},
        **{"shown": first(*shown), "shown_verdicts": verdicts(*shown)},
        **{"shown_label": label(*shown), "shown_note": run_note(dataset, shown[0])},
        "decides": "guiding" if SETUPS[shown[0]]["classifier"] == SETUPS[UNGUIDED]["classifier"] else "judge",
        **{"table": theirs.get("table", ""), "table_label": f"Table {theirs.get('table', '')}".strip()},
    }
    common["pair_note"] = run_note(dataset, *pair) if common["pair"] else []
    each = {"forward": [], "scales": scale_contexts(dataset), "samples": []}
    gradient = {"log_prob": "∇ log p", "logit": "∇ logit"}.get(data["objective"], "the objective's gradient")
    for number in numbers:
        text = {
            "1": "Accuracy of the classifiers along the forward process",
            "2": "Change of the logit from one t to the next (eq. 3)",
            "3": f"Change of {gradient} from one t to the next (eq. 4), and relative to its length",
            "4": f"Change of the stabilised {gradient} from one t to the next (eq. 4 and 6), and relative to its length",
        }[number]
        text += f": {pretty(dataset)}, as the paper's figure {number}{'' if theirs.get('forward') else ' for CelebA'}"
        chance = 1 / len(class_names(dataset)) if number == "1" else None
        words = {"metric": FORWARD_FIGURES[number][0].replace("_", " "), "text": text, "chance": chance}
        each["forward"].append({"number": number, "csv": curves[number], **words})
    for which, (setup, scale) in {"unconditional": (UNGUIDED, "none"), "conditional": shown}.items():
        few = ["The paper shows 256."] * (n_samples(dataset, setup) < PICTURED)
        words = {"label": label(setup, scale), "note": few + run_note(dataset, setup), "first": first(setup, scale)}
        each["samples"].append({"which": which, "number": theirs.get("grids", {}).get(which, "9"), **words})
    return common, each


def scale_contexts(dataset):
    """One context per figure against the scale: the paper's, and those by the judge or other extractors."""
    data, name, found = config["datasets"][dataset], pretty(dataset), []
    numbers = dict(data["paper"].get("scales", dict.fromkeys(["accuracy", "fid", "cfid"])))
    if numbers and "off_manifold" in config["metrics"]:
        numbers["off_manifold"] = None
    for metric, number in numbers.items():
        by = {"accuracy": "guiding classifier", "accuracy_judge": "judge"} if metric == "accuracy" else {}
        for extractor in config["extractors"] if metric != "accuracy" else []:
            if metric == "off_manifold":
                by[f"{metric}_{extractor}"] = extractor
            else:
                variant = metric if extractor == "inception" else f"{metric.replace('fid', 'fd')}_{extractor}"
                by[variant] = "FID" if extractor == "inception" else f"FD ({extractor})"
        for variant, words in by.items():
            text, own = SHOWN[metric].format(target=data["target"], by=words), number and variant == metric
            place = f"as the paper's figure {number}" if own else "not in the paper"
            title = f"{text[0].upper()}{text[1:]}: {name}, {place}"
            words = {"stem": "scales", "label": variant, "target_rule": "scales", "variant": variant, "text": text}
            if number:
                words |= {"stem": f"figure{number}", "target_rule": f"figure{number.rstrip('abc')}"}
                words["label"] = f"Figure {number}" if own else f"Variant of figure {number}"
            note = run_note(dataset, paper_as="Star and dotted line, the paper" if own else "")
            found.append({**words, "title": title, "note": note})
    return found


def filled(value, words):
    """A part of the table with its {words} filled in; a text of a single {word} becomes its value."""
    if isinstance(value, dict):
        return {key: filled(part, words) for key, part in value.items()}
    if isinstance(value, list):
        return [filled(part, words) for part in value]
    if not isinstance(value, str):
        return value
    alone = re.fullmatch(r"{(\w+)}", value)
    return words[alone[1]] if alone else value.format_map(words)


@cache
def figures(dataset):
    """File name → entry, for all figures and tables of a data set."""
    common, each = contexts(dataset)
    found = {}
    for name, entry in FIGURES.items():
        if name != "comparison" and ("needs" not in entry or common[entry["needs"]]):
            for own in each[entry["each"]] if "each" in entry else [{}]:
                found[filled(name, common | own)] = filled(entry, common | own)
    return found


@cache
def comparison():
    """The entry of the table of all data sets."""
    notes = [f"{pretty(name)}: {line}" for name in DATASETS for line in run_note(name, paper_as="The paper")]
    files = {"paper": File(config["paper_results"]), "setups": File(config["setups"])}
    scores = [File(f"<run>/{name}/scores.csv") for name in DATASETS]
    weights = {name: weights_note(name) for name in DATASETS}
    return filled(FIGURES["comparison"], {**files, "all_scores": scores, "all_notes": notes, "weights": weights})


def suffixes(entry):
    if entry["function"] in TABLES:
        return ("csv", "md", "tex", "html")
    if entry["function"] in PAGES:
        return ("html",)
    return ("png", "pdf", "webp") if entry["function"] in MOVING else ("png", "pdf")


def entry(wildcards):
    return figures(wildcards.dataset)[wildcards.name] if "dataset" in wildcards.keys() else comparison()


def files_among(value):
    """Each `File` among the arguments of a figure, in order."""
    if isinstance(value, (dict, list)):
        return [file for part in (value.values() if isinstance(value, dict) else value) for file in files_among(part)]
    return [value] if isinstance(value, File) else []


def entry_files(wildcards):
    """Input function: the inputs of a figure, without duplicates."""
    return list(dict.fromkeys(file.made for file in files_among(entry(wildcards)["arguments"])))


def with_files(value, called):
    """The arguments of a figure with each `File` replaced by its path at run time."""
    if isinstance(value, dict):
        return {key: with_files(part, called) for key, part in value.items()}
    if isinstance(value, list):
        return [with_files(part, called) for part in value]
    return f"{called[value.made]}{value.removeprefix(value.made)}" if isinstance(value, File) else value


def draw_options(wildcards, input, output):
    """Options of `nrcg draw`: the function's arguments with actual file paths, and the common options."""
    found = entry(wildcards)
    arguments = with_files(found["arguments"], dict(zip(entry_files(wildcards), input.files, strict=True)))
    arguments = {key: value for key, value in arguments.items() if value is not None}
    options = {"title": found["title"], "note": found["note"], "style": input.get("style"), "out": list(output)}
    return f"--arguments {as_json(arguments, sort_keys=False)} {flags(options)}"  # the order may matter in a legend


def labels(wildcards):
    found, of = entry(wildcards), pretty(wildcards.dataset) if "dataset" in wildcards.keys() else "all"
    return {"name": found["name"], "data set": of, "shows": found["shows"]}


def names(chosen):
    """Pattern of all file names whose function is `chosen`."""
    entries = [item for dataset in DATASETS for item in figures(dataset).items()]
    return "|".join(dict.fromkeys(name for name, found in entries if chosen(found["function"])))


# Files by target rule; empty if no data set of this run has them.
TARGETS = {name: [] for name in [*(f"figure{n}" for n in range(1, 10)), *(f"table{n}" for n in range(1, 4))]}
TARGETS |= {name: [] for found in FIGURES.values() for name in found["targets"] if "{" not in name}
TARGETS["comparison"] = [f"<run>/comparison.{suffix}" for suffix in suffixes(comparison())]
for dataset in DATASETS:
    for name, found in figures(dataset).items():
        for target in found["targets"]:
            TARGETS.setdefault(target, [])
            TARGETS[target] += [f"<run>/{dataset}/figures/{name}.{suffix}" for suffix in suffixes(found)]


def wanted(target):
    """Input function of a target rule: its files, or an error if there are none."""

    def files(wildcards):
        if not TARGETS[target]:
            raise WorkflowError(f"{target}: not available for the data sets of this run ({', '.join(DATASETS)})")
        return TARGETS[target]

    return files
