# Options and inputs of single jobs, derived from the config and the wildcards; nothing is run here.


def machine(chosen=lambda data: {}):
    """Params function: options that change no result, as `--device`, `--threads` and those that `chosen` takes.

    Since it asks for `threads`, Snakemake compares nothing of it with the last run, and runs nothing again.
    """

    def options(wildcards, threads):
        return flags({"device": config["device"], "threads": threads, **chosen(settings(wildcards))})

    return options


@cache
def point_options(dataset, setup, scale):
    """Options of `nrcg sample` that all shards of a point have; unguided samples have no guidance."""
    data = config["datasets"][dataset]
    options = {
        "ddpm": ddpm_home(dataset),
        "num_inference_steps": data["sampling"]["num_inference_steps"],
        "precision": data["sampling"]["precision"],
        "seed": config["seed"],
    }
    if setup != UNGUIDED:
        row = SETUPS.loc[setup]
        options |= {
            "classifier": classifier_home(dataset, row.classifier),
            "target": data["target"],
            "scale": scale,
            "on": row.on,
            "stabilizer": row.stabilizer,
            "objective": data["objective"] if row.objective == "default" else row.objective,
            "economy": row.economy,
        }
    return flags(options)


def sample_options(wildcards):
    """Options of `nrcg sample` for a shard, in one parameter: each costs a dry run of 6 000 shards a second."""
    start, stop = shard_range(wildcards)
    return f"{point_options(wildcards.dataset, wildcards.setup, wildcards.scale)} --start {start} --stop {stop}"


def sample_files(wildcards):
    """The files of the DDPM and of the guiding classifier; unguided samples have none."""
    guide = [] if wildcards.setup == UNGUIDED else classifier_files(guiding(wildcards.setup))(wildcards)
    return [*ddpm_files(wildcards), *guide]


def extractor_weights(extractor, dataset):
    """What an extractor is loaded from: Inception's file, or the judge's folder."""
    return INCEPTION if extractor == "inception" else classifier_home(dataset, "judge")


def extractor_files(wildcards):
    """The files behind it that a job waits for."""
    return [INCEPTION] if wildcards.extractor == "inception" else classifier_files("judge")(wildcards)


def references(part):
    """Input function: statistics of the training images for every configured extractor."""
    return lambda w: expand(REFERENCE, dataset=w.dataset, extractor=config["extractors"], part=part)


def guiding_classifiers(dataset):
    """The classifiers that guide in this data set."""
    return sorted({guiding(setup) for setup, _ in guided_points(dataset)})


def also_scored_by(wildcards):
    """The other classifiers that guide in this data set, who score the unguided samples too, as a level to compare."""
    if wildcards.setup != UNGUIDED:
        return []
    return [name for name in guiding_classifiers(wildcards.dataset) if name != UNGUIDED_SCORED_BY]


def score_files(wildcards):
    """The scores of a data set's points, or the table of all that the config gives instead."""
    given = settings(wildcards).get("scores_from")
    return given or [
        SCORE.format(dataset=wildcards.dataset, setup=setup, scale=s) for setup, s in points(wildcards.dataset)
    ]


def collected_scores(wildcards, input):
    """Options of `nrcg collect-scores`: the file of each point, or the table of all."""
    dataset = wildcards.dataset
    if settings(wildcards).get("scores_from"):
        return flags({"given": f"{dataset}={input[0]}"})
    names = [f"{setup}:{'-' if scale == 'none' else scale}" for setup, scale in points(dataset)]
    return flags({"point": [f"{dataset}:{name}={path}" for name, path in zip(names, input)]})
