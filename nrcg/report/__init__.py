"""Claims, tables, comparison with the paper, and costs. `WORDS` holds their texts."""

from pathlib import Path

from nrcg.io.yaml_files import read_yaml

WORDS = read_yaml(Path(__file__).with_name("words.yaml"))
