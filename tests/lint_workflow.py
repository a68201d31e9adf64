"""`snakemake --lint`, less one lint: all rules share the one environment that `make env` or environment.yml sets up."""

import re
import subprocess
import sys

SHARED_ENVIRONMENT = "Specify a conda environment or container for each rule."
CLEAN = "your workflow is in a good condition"


def lints() -> list[str]:
    """Every remaining lint as `place: title`; or the whole output where it is neither lints nor praise."""
    result = subprocess.run(["snakemake", "--lint"], capture_output=True, text=True)
    output = result.stdout + result.stderr
    places = re.split(r"^Lints for ", output, flags=re.M)[1:]
    if not places and CLEAN not in output:
        return [output]
    return [
        f"{place.splitlines()[0]} {title}"
        for place in places
        for title in re.findall(r"^    \* (.*?):?$", place, flags=re.M)
        if title != SHARED_ENVIRONMENT
    ]


if __name__ == "__main__":
    found = lints()
    print("\n".join(found) or "snakemake --lint: nothing found")
    sys.exit(bool(found))
