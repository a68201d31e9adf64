# Options and inputs of single jobs, derived from the config and the wildcards; nothing is run here.


def guidance_options(wildcards):
    """Options of `nrcg sample` that make a point; none for unguided samples."""
    if wildcards.setup == UNGUIDED:
        return ""
    row, data = SETUPS.loc[wildcards.setup], settings(wildcards)
    return flags(
        {
            "classifier": classifier_home(wildcards.dataset, row.classifier),
            "target": data["target"],
            "scale": wildcards.scale,
            "on": row.on,
            "stabilizer": row.stabilizer,
            "objective": data["objective"] if row.objective == "default" else row.objective,
        }
    )


def guiding_files(wildcards):
    """The guiding classifier's files; none for unguided samples."""
    return [] if wildcards.setup == UNGUIDED else classifier_files(guiding(wildcards.setup))(wildcards)


def extractor_weights(extractor, dataset):
    """What an extractor is loaded from: Inception's file, or the judge's folder."""
    return INCEPTION if extractor == "inception" else CLASSIFIER.format(dataset=dataset, classifier="judge")


def extractor_files(wildcards):
    """The files behind it that a job waits for."""
    return [INCEPTION] if wildcards.extractor == "inception" else classifier_files("judge")(wildcards)


def references(part):
    """Input function: statistics of the training images for every configured extractor."""
    return lambda w: expand(REFERENCE, dataset=w.dataset, extractor=config["extractors"], part=part)
