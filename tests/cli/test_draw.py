"""The verb that draws: what it finds, passes on and refuses."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

from nrcg.cli import app
from nrcg.cli.draw import load_figures
from nrcg.errors import NrcgError
from nrcg.plots import figures
from nrcg.plots.training import plot_ddpm_log

NAMES = {"forward", "scales", "contrast", "front", "fooled", "table", "points", "comparison", "grid", "side_by_side",
         "before_after", "ddpm_log", "classifier_logs", "findings", "trajectory", "trajectory_curves",
         "browse", "dots"}  # fmt: skip


@pytest.fixture
def log(tmp_path):
    table = pd.DataFrame({"step": [1, 2], "images": [8, 16], "loss": [0.5, 0.4], "lr": 1e-3})
    table.to_csv(tmp_path / "log.csv", index=False)
    return tmp_path / "log.csv"


def draw(figure, arguments, *options):
    result = CliRunner().invoke(app, ["draw", figure, "--arguments", json.dumps(arguments), *map(str, options)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


def test_it_draws_what_the_function_draws(tmp_path, log):
    (tmp_path / "s.mplstyle").write_text("figure.figsize: 4, 3\n")
    looks = {"title": "T", "style": tmp_path / "s.mplstyle"}
    plot_ddpm_log([tmp_path / "a.png"], csv=log, note="n\nm", **looks)
    options = [word for name, value in looks.items() for word in (f"--{name}", value)]
    draw("ddpm_log", {"csv": str(log)}, "--out", tmp_path / "b.png", "--note", "n", "--note", "m", *options)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_help_lists_every_figure_with_a_line():
    load_figures()
    assert set(figures) == NAMES
    result = subprocess.run([sys.executable, "-m", "nrcg.cli", "draw", "--help"], capture_output=True, text=True)
    words = " ".join(result.stdout.split())
    assert result.returncode == 0 and all(f"{name}: {figures[name].__doc__.split()[0]}" in words for name in NAMES)


WRONG = [
    ("scale", {}, "figure 'scale': unknown; use one of "),
    ("ddpm_log", {"cvs": "a.csv"}, "figure ddpm_log: unknown key cvs; nearest are csv"),
    ("ddpm_log", {}, "figure ddpm_log: no key csv; add it"),
    ("ddpm_log", {"csv": "a.csv", "title": "T"}, "figure ddpm_log: unknown key title"),
    ("ddpm_log", {"csv": 3}, "figure ddpm_log: csv 3: must be str"),
    ("ddpm_log", {"csv": None}, "figure ddpm_log: csv None: must be str"),
    ("grid", {"shards": "a.npy"}, "figure grid: shards 'a.npy': must be list"),
    ("grid", {"shards": ["a.npy"], "n": True}, "figure grid: n True: must be int"),
    ("grid", {"shards": ["a.npy"], "n": 0}, "n 0: must be a whole number of at least 1"),
    ("grid", {"shards": []}, "no sample shards"),
    ("classifier_logs", {"logs": {"robust": 1}, "setups": "s.yaml"}, "logs {'robust': 1}: must be dict"),
    ("forward", {"csv": "a.csv", "setups": "s.yaml", "chance": "0.5"}, "chance '0.5': must be float | None"),
]


@pytest.mark.parametrize(("figure", "arguments", "words"), WRONG)
def test_what_does_not_fit_is_named(tmp_path, figure, arguments, words):
    with pytest.raises(NrcgError) as error:
        draw(figure, arguments, "--out", tmp_path / "a.png")
    assert words in str(error.value)


def test_a_users_module_registers_a_figure(tmp_path):
    (tmp_path / "mine.py").write_text(
        '"""Mine."""\nfrom pathlib import Path\nfrom nrcg.plots import figures\n\n\n'
        '@figures.register("mine")\ndef mine(outputs, *, text, title=""):\n    """Writes text."""\n'
        "    Path(outputs[0]).write_text(title + text)\n"
    )
    command = [sys.executable, "-m", "nrcg.cli", "draw", "mine", "--arguments", '{"text": "x"}', "--title", "T"]
    command += ["--out", tmp_path / "a.txt", "--style", "ignored.mplstyle", "--module", tmp_path / "mine.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.txt").read_text() == "Tx"
