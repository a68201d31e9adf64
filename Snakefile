# The front door, for `snakemake` in this folder; the workflow itself is where the Snakemake catalogue expects it.
include: "workflow/Snakefile"


workflow.default_target = "all"  # an included file cannot say so
