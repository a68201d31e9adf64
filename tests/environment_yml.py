"""Writes the conda environments of the project and of the workflow's rules, both from requirements.lock."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PYTHON = "3.12"
LINUX = {"python_version": PYTHON, "python_full_version": PYTHON + ".0", "sys_platform": "linux"}
LINUX |= {"platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64", "extra": ""}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def wanted(*extras: str) -> list[Requirement]:
    """What the project asks for by itself and by these extras, which may name others."""
    lines = [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    found = [Requirement(line) for line in PROJECT["dependencies"] + lines]
    others = [extra for requirement in found if requirement.name == PROJECT["name"] for extra in requirement.extras]
    return wanted(*extras, *others) if set(others) - set(extras) else [r for r in found if r.name != PROJECT["name"]]


def locked() -> list[Requirement]:
    """The pins of the lock file, markers kept, hashes dropped."""
    lines = re.sub(r"\\\n", "", LOCK).splitlines()
    return [Requirement(line.split(" --hash")[0]) for line in lines if re.match(r"[A-Za-z]", line)]


def needed(packages: set[str]) -> set[str]:
    """These packages and all that they ask for, by the remarks `# via` of the lock file."""
    asked_by: dict[str, set[str]] = {}
    for line in LOCK.splitlines():
        if pin := re.match(r"([\w.-]+)==", line):
            name = pin[1]
        elif remark := re.match(r" +# +(?:via )?([\w.-]+)", line):
            asked_by.setdefault(name, set()).add(remark[1])
    while more := {name for name, by in asked_by.items() if by & packages} - packages:
        packages = packages | more
    return packages


def environment(comment: str, name: str, packages: set[str] | None = None, *more: str) -> str:
    """A conda environment with the pins of these packages (None: of all), and `more` for pip."""
    pins = [pin for pin in locked() if pin.marker is None or pin.marker.evaluate(LINUX)]
    lines = [f"# {comment}", f"name: {name}", "channels: [conda-forge]", "dependencies:", f"  - python={PYTHON}"]
    lines += ["  - pip", "  - pip:"]
    lines += [f"      - {pin.name}{pin.specifier}" for pin in pins if packages is None or pin.name in packages]
    return "\n".join([*lines, *(f"      - {line}" for line in more), ""])


def environments() -> dict[Path, str]:
    """Each file and its text. The rules' environment has what the verbs need: neither nrcg itself nor Snakemake."""
    verbs = {each.name for each in wanted("workflow", "models", "imagenet") if not each.name.startswith("snakemake")}
    made = "Made from requirements.lock by `make lock`:"
    return {
        ROOT / "environment.yml": environment(
            f"{made} its packages, and nrcg itself as it lies in this folder.", "nrcg", None, "--editable ."
        ),
        ROOT / "workflow/envs/nrcg.yaml": environment(
            f"{made} what the verbs need, less nrcg itself, which is the checkout's.", "nrcg-rules", needed(verbs)
        ),
    }


if __name__ == "__main__":
    for path, text in environments().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
