"""The tables of config/README.md are those that the schema and the functions give."""

from config_table import README, page


def test_the_tables_of_the_readme_are_up_to_date():
    assert README.read_text() == page(), "run `python tests/config_table.py`"
