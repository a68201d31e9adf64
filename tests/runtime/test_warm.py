"""Commands run by forks of a process with all imports behave like the usual ones."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scratch import SERVER

JOB = """
import os, signal, sys, time
from pathlib import Path

def main():
    if sys.argv[1] == "sleep":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        Path("ready").write_text(str(os.getpid()))
        time.sleep(60)
    if sys.argv[1] == "say":
        print(os.getcwd(), os.environ["SAID"], sys.stdin.read(), sys.argv, "torch" in sys.modules)
        print("complaint", file=sys.stderr)
    if sys.argv[1] == "threads":
        import numpy, torch
        from threadpoolctl import threadpool_info
        print(torch.get_num_threads(), *{pool["num_threads"] for pool in threadpool_info()})
    if sys.argv[1] == "raise":
        raise ValueError("wrong")
    if sys.argv[1] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(int(sys.argv[2]))

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The path of a command `job`, and its server."""
    folder = tmp_path_factory.mktemp("warm")
    (folder / "job.py").write_text(JOB)
    server = SERVER.replace("snakemake.cli", "job").replace('"snakemake"', '"job"')
    words = [sys.executable, "-c", server, folder, str(os.getpid())]
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environ, cwd=folder) as process:
        process.stdout.readline()
        yield folder / "job"
        process.kill()


def run(job, *arguments, cwd, **how):
    environ = {**os.environ, "SAID": "x̂₀", "PYTHONPATH": str(job.parent)}
    return subprocess.run([job, *arguments], cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, **how)


def start(job, cwd, **how):
    """A job that sleeps, and its process number, which is the fork's."""
    process = subprocess.Popen([job, "sleep"], cwd=cwd, **how)
    while not (cwd / "ready").exists() or not (cwd / "ready").read_text():
        time.sleep(0.01)
    return process, int((cwd / "ready").read_text())


def is_alive(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_folder_environment_streams_and_arguments_are_the_jobs_own(job, tmp_path):
    said = run(job, "say", "3", "--", "--log", cwd=tmp_path, input="given")
    assert said.stdout == f"{tmp_path} x̂₀ given ['job', 'say', '3', '--', '--log'] True\n"
    assert (said.stderr, said.returncode) == ("complaint\n", 3)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_threads_are_those_of_the_jobs_environment(job, tmp_path, threads):
    environ = {**os.environ, "OMP_NUM_THREADS": threads}
    counted = subprocess.run([job, "threads", "0"], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert counted.stdout.split() == [threads, threads], counted.stderr


def test_an_exception_and_a_fatal_signal_have_the_usual_status(job, tmp_path):
    raised = run(job, "raise", cwd=tmp_path)
    assert raised.returncode == 1 and raised.stderr.endswith("ValueError: wrong\n")
    assert run(job, "die", cwd=tmp_path).returncode == 128 + signal.SIGKILL


def test_signals_reach_the_fork(job, tmp_path):
    process, fork = start(job, tmp_path)
    assert fork != process.pid
    process.terminate()
    assert process.wait(timeout=60) == 75


def test_a_killed_job_leaves_no_fork(job, tmp_path):
    process, fork = start(job, tmp_path)
    process.kill()
    process.wait(timeout=60)
    for _ in range(500):
        if not is_alive(fork):
            return
        time.sleep(0.02)
    pytest.fail(f"process {fork} goes on")


def test_a_client_that_is_killed_before_it_asks_stops_no_other(job, tmp_path):
    process, _ = start(job, tmp_path)
    for sent in (b"", struct.pack("I", 100), struct.pack("I", 2) + b"{"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(job.parent / "socket"))
            connection.sendall(sent)
    assert run(job, "say", "3", cwd=tmp_path, input="").returncode == 3
    process.terminate()
    assert process.wait(timeout=60) == 75


def test_jobs_run_at_the_same_time(job, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    processes = [start(job, folder)[0] for folder in folders]
    assert [process.poll() for process in processes] == [None, None]
    for process in processes:
        process.terminate()
    assert [process.wait(timeout=60) for process in processes] == [75, 75]


def test_an_ignored_signal_stays_ignored(job, tmp_path):
    process, _ = start(job, tmp_path, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    process.send_signal(signal.SIGINT)
    process.terminate()
    assert process.wait(timeout=60) == 75


def test_without_a_server_the_usual_command_runs(job, tmp_path):
    alone = tmp_path / "alone"
    alone.write_text(job.read_text().replace(f"{job.parent}/socket", f"{tmp_path}/socket"))
    shutil.copymode(job, alone)
    (tmp_path / "job.py").write_text(JOB)
    said = subprocess.run(
        [alone, "say", "0"], cwd=tmp_path, env={**os.environ, "SAID": ""}, capture_output=True, text=True
    )
    assert said.stdout.endswith(" False\n"), said.stderr


def test_jobs_outlive_a_killed_server_by_nothing(job, tmp_path):
    """The last test of this module, since it kills the server."""
    process, fork = start(job, tmp_path)
    server = int(Path(f"/proc/{fork}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(server, signal.SIGKILL)
    assert process.wait(timeout=60) == 1
    for _ in range(500):
        if not is_alive(fork):
            return
        time.sleep(0.02)
    pytest.fail(f"process {fork} goes on")


def test_the_verb_becomes_the_command_and_cleans_up(tmp_path):
    words = ["which nrcg; nrcg --help | head -3; nrcg draw nothing --arguments {} --out x.png; exit $?"]
    ran = subprocess.run(["nrcg", "warm", "sh", "-c", *words], cwd=tmp_path, capture_output=True, text=True)
    client, *page = ran.stdout.splitlines()
    assert "Usage: nrcg" in "".join(page)
    assert ran.returncode == 2 and ran.stderr.startswith("error: figure")
    for _ in range(3000):
        if not os.path.exists(os.path.dirname(client)):
            return
        time.sleep(0.02)
    pytest.fail(f"{client} stays")


def test_an_unknown_command_is_said(tmp_path):
    ran = subprocess.run(["nrcg", "warm", "no-such-command"], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (2, "error: no-such-command: no such command\n")


def test_options_after_the_command_are_the_commands(tmp_path):
    ran = subprocess.run(["nrcg", "warm", "echo", "--log", "x", "--", "--help"], capture_output=True, text=True)
    assert ran.stdout == "--log x -- --help\n"
