"""The figures and tables of docs/results, from the scores that are shipped beside the pages.

    python -m experiments.pages                      # draws all of them again
    python -m experiments.pages steps                # those of one page

config/study/pages.yaml lists them. A run of the page's config leaves its scores in results/; copy them over the shipped
file and draw again.
"""

import argparse
import re
import tempfile
from contextlib import chdir
from inspect import signature
from pathlib import Path
from typing import Any

from nrcg.cli.draw import load_figures
from nrcg.io.files import write_text
from nrcg.io.yaml_files import read_yaml
from nrcg.plots import figures

ROOT = Path(__file__).parents[1]
PAGES: dict[str, dict[str, Any]] = read_yaml(ROOT / "config/study/pages.yaml")
MARK = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.S)


def draw(name: str, folder: Path = ROOT) -> str:
    """Draw a page's figures into `folder`; return the page with its table made anew."""
    load_figures()
    page, folder = PAGES[name], folder.resolve()
    given: dict[str, Any] = {"csv": page["scores"]} | {key: page[key] for key in ("setups", "title", "note")}
    with chdir(ROOT), tempfile.TemporaryDirectory() as scratch:
        for file, (figure, how) in page["figures"].items():
            out = folder / file
            out.parent.mkdir(parents=True, exist_ok=True)
            known = signature(figures[figure]).parameters
            figures[figure]([out], **{key: value for key, value in given.items() if key in known} | how)
        table = Path(scratch, "table.md")
        figures["points"]([table], **given, chosen=True, **page["table"])
        made = table.read_text("utf-8").partition("\n\n")[2]  # without its heading
        return MARK.sub(lambda found: f"{found[1]}{made}{found[2]}", Path(page["page"]).read_text("utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="*", choices=[[], *PAGES], help="all by default")
    for name in parser.parse_args().page or PAGES:
        write_text(ROOT / PAGES[name]["page"], draw(name))


if __name__ == "__main__":
    main()
