"""Figures, grids and tables, drawn from tidy CSV files and sample shards and registered in `figures`."""

from pathlib import Path

from nrcg.io.yaml_files import read_yaml
from nrcg.registry import Registry

figures = Registry("figure")
WORDS = read_yaml(Path(__file__).with_name("words.yaml"))
