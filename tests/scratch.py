"""Snakemake of this project in a folder that tests may spoil."""

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import cache

import yaml
from environment_yml import ROOT

SERVER = """
import sys
from pathlib import Path
from nrcg.runtime.warm import NRCG, listen, serve
commands = {**NRCG, "snakemake": "snakemake.cli"}
listening = listen(Path(sys.argv[1]), commands)
print("listening", flush=True)
serve(listening, int(sys.argv[2]), commands)
"""


def command(folder, *arguments):
    return ["snakemake", "--directory", folder, "--snakefile", ROOT / "Snakefile", *arguments]


@cache
def preloaded_path():
    """A PATH on which `snakemake` and `nrcg` start at once: the toy runs start hundreds of them."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    server = [sys.executable, "-c", SERVER, folder, str(os.getpid())]
    with subprocess.Popen(server, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline() == b"listening\n"
        process.returncode = 0  # it ends with this process
    return f"{folder}:{os.environ['PATH']}"


def snakemake(folder, *arguments, check=True):
    path, words = preloaded_path(), command(folder, *arguments)
    words[0] = os.path.join(path.partition(":")[0], words[0])
    result = subprocess.run(words, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    output = result.stdout + result.stderr
    if check:
        assert result.returncode == 0, output[-5000:]
    return output


@contextmanager
def at_work(folder, *arguments, until, **environment):
    """Snakemake in a process group of its own, as soon as there is the file `until`; nothing of it stays."""
    with subprocess.Popen(command(folder, *arguments), env=os.environ | environment, start_new_session=True) as process:
        try:
            while not until.exists():
                assert process.poll() is None
                time.sleep(0.05)
            yield process
            process.wait(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def jobs(output):
    """Job counts by rule from a dry run's first table."""
    table = output.split("Job stats:")[1].split("total")[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}


def overlay(checkout, tmp_path, change):
    config = yaml.safe_load((checkout / "config/test.yaml").read_text())
    config = json.loads(json.dumps(config))  # without anchors: a change of one data set is of no other
    change(config)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
