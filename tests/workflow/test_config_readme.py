"""The tables of config/README.md are those that the schema and the functions give."""

import subprocess
import sys

from environment_yml import ROOT


def test_the_tables_of_the_readme_are_up_to_date():
    """In a process of its own: other tests register things."""
    code = "import config_table as made; print(made.README.read_text() == made.page())"
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    run = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True)
    assert run.stdout == "True\n", run.stderr or "run `python tests/config_table.py`"
