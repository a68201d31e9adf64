"""Hooks of mkdocs.yml: the site has the repository's files at their places, so that a link holds on GitHub and here."""

from pathlib import Path

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
SHOWN = [  # pages, and the files that they link to
    *("*.md", "LICENSE", "CITATION.cff", "config/**/*", "docs/**/*", "nrcg/**/*.py", "nrcg/plots/*.mplstyle"),
    *("resources/**/*.md", "results/README.md", "benchmarks/RESULTS.md", "workflow/profiles/slurm/config.yaml"),
]


def on_config(config: MkDocsConfig) -> None:
    """Fences ```math, which GitHub shows as equations, become MathML, which browsers draw without a script."""
    config.mdx_configs["pymdownx.superfences"] = {
        "custom_fences": [{"name": "math", "class": "math", "format": mathml}]
    }


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's files, and those of the repository in place of those of `docs_dir`."""
    places = sorted({place for pattern in SHOWN for place in ROOT.glob(pattern) if place.is_file()})
    paths = [str(place.relative_to(ROOT)) for place in places if "__pycache__" not in place.parts]
    ours = [File(path, str(ROOT), config.site_dir, config.use_directory_urls) for path in paths]
    return Files([*(file for file in files if file.src_dir != config.docs_dir), *ours])


def mathml(source: str, language: str, css_class: str, options: dict, md: object, **others: object) -> str:
    """The equation of one fence."""
    return convert(source, display="block")


class PlainTypes(griffe.Extension):
    """In the API, `Annotated[float, number(0)]` is `float`: the docstring gives the range."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: object) -> None:
        """Replace the annotation of a field."""
        annotation = attr.annotation
        if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "Annotated":
            attr.annotation = annotation.slice.elements[0]
