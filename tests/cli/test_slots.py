"""What is registered is found in the help, the schema and the documentation, a user's own too."""

import json

import pytest
from environment_yml import ROOT
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from nrcg.cli import app
from nrcg.cli.slots import schema
from nrcg.guidance import objectives, stabilizers

MINE = '''
from nrcg.guidance import objectives, stabilizers


@stabilizers.register("halved")
class Halved:
    """Half of the gradient."""

    def init(self, gradient_like):
        return None

    def update(self, gradient, state):
        return gradient / 2, state


@objectives.register("margin")
def margin(logits, target, power: int = 1):
    """The target's logit above the mean of all."""
    return (logits.gather(1, target[:, None])[:, 0] - logits.mean(1)) ** power
'''


@pytest.fixture
def module(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    yield ["--module", str(tmp_path / "mine.py")]
    stabilizers.pop("halved", None)
    objectives.pop("margin", None)


@pytest.mark.parametrize("verb", [["sample", "--help"], ["slots"]])
def test_a_users_own_are_in_the_help(module, verb):
    said = CliRunner().invoke(app, [*module, *verb]).stdout
    assert "halved: Half of the gradient." in said
    assert "margin(power=1): The target's logit above the mean of all." in said
    assert "ema(beta=0.99, steps=None, bias_correction=False): Exponential moving average" in said


def test_a_users_own_are_in_the_schema(module):
    found = json.loads(CliRunner().invoke(app, [*module, "slots", "--schema"]).stdout)
    check = Draft202012Validator(found)
    assert check.is_valid(
        {"on": "x0", "stabilizer": ["halved", {"ema": {"beta": 0.9}}], "objective": {"margin": {"power": 2}}}
    )
    assert check.is_valid({"method": "dps"})
    for wrong in ({"stabilizer": "emma"}, {"stabiliser": "ema"}, {"objective": {"logit": {}, "margin": {}}}):
        assert not check.is_valid(wrong)
    assert not Draft202012Validator(schema()).is_valid({"objective": "no_such_objective"})


def test_the_documentation_lists_them(module, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests")
    import config_table

    CliRunner().invoke(app, [*module, "slots"])
    assert "| `halved` | – | Half of the gradient. |" in config_table.made("slots")
