"""Prints environment.yml: conda's Python with every pin of requirements.lock that holds for it."""

import re
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PYTHON = "3.12"
LINUX = {"python_version": PYTHON, "python_full_version": PYTHON + ".0", "sys_platform": "linux"}
LINUX |= {"platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64", "extra": ""}


def locked() -> list[Requirement]:
    """The pins of the lock file, markers kept, hashes dropped."""
    lines = re.sub(r"\\\n", "", (ROOT / "requirements.lock").read_text()).splitlines()
    return [Requirement(line.split(" --hash")[0]) for line in lines if re.match(r"[A-Za-z]", line)]


def environment() -> str:
    pins = [pin for pin in locked() if pin.marker is None or pin.marker.evaluate(LINUX)]
    lines = [
        "# Made from requirements.lock by `make lock`: its packages, and nrcg itself as it lies in this folder.",
        "name: nrcg",
        "channels: [conda-forge]",
        "dependencies:",
        f"  - python={PYTHON}",
        "  - pip",
        "  - pip:",
        *(f"      - {pin.name}{pin.specifier}" for pin in pins),
        "      - --editable .",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(environment(), end="")
