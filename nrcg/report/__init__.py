"""Claims, tables, comparison with the paper, costs: text made of files. `WORDS` holds what they say."""

from pathlib import Path

from nrcg.io.yaml_files import read_yaml

WORDS = read_yaml(Path(__file__).with_name("words.yaml"))
