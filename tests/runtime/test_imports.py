"""Verbs run beside whatever else is installed."""

import os
import subprocess
import sys

from environment_yml import ROOT


def test_verbs_run_where_peft_is_installed(tmp_path):
    """diffusers imports it, and it imports transformers, which the verbs hide."""
    parts = {"__init__": "import transformers\n", "helpers": "", "tuners/__init__": "", "tuners/tuners_utils": ""}
    parts["helpers"] = "disable_input_dtype_casting = None\n"
    parts["tuners/tuners_utils"] = "class BaseTunerLayer: ...\n"
    for name, text in parts.items():
        path = tmp_path / f"peft/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "peft-9.0.dist-info").mkdir()
    (tmp_path / "peft-9.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 9.0\n")
    ddpm = ROOT / "resources/sportballs32"
    words = f"sample --ddpm {ddpm} --out {tmp_path}/s.npy --start 0 --stop 1 --num-inference-steps 1 --device cpu"
    command, env = [sys.executable, "-m", "nrcg", *words.split()], {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "s.npy").is_file()
