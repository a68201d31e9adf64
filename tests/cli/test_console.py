"""What a verb says: also in the file of --log, and never the reason of a failure."""

import json
import signal
import subprocess
import sys
import time
from functools import partial

import pytest


def balls(**changes):
    """The words that make a small image set; its folder follows."""
    settings = {"n": 20, "size": 16, "ball_pixels": 10, "scale": [1], "positions": 6, **changes}
    return ["data", "make", "sportballs", "--settings", json.dumps(settings), "--out"]


BALLS = balls()


def nrcg(*words, shell='"$@"', **options):
    """A verb in a process of its own, through a line of bash that redirects it."""
    command = ["bash", "-c", shell, "-", sys.executable, "-m", "nrcg.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, **options)


def test_the_log_has_what_the_terminal_has_and_bars_as_they_were_last(tmp_path):
    done = nrcg("--log", tmp_path / "new/log", *BALLS, tmp_path / "set")
    assert done.returncode == 0 and done.stderr.count("SportBalls") > 1  # subprocess reads \r as \n
    (line,) = (tmp_path / "new/log").read_text().splitlines()
    assert line.startswith("SportBalls: 100%") and "\r" not in line and line in done.stderr


def test_the_log_has_the_error_and_is_made_anew(tmp_path):
    (tmp_path / "log").write_text("old\n" * 1000)
    done = nrcg("--log", tmp_path / "log", *balls(seed=-1), tmp_path / "set")
    assert done.returncode == 2 and (tmp_path / "log").read_text() == done.stderr != ""
    done = nrcg("--log", tmp_path / "log", "get", "file", "--url", "u", "--digest", "d", "--out", tmp_path / "file")
    assert done.returncode == 2 and (tmp_path / "log").read_text() == done.stderr
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("log", ["/dev/full", "/proc/none/log", "/"])
def test_a_log_that_cannot_be_written_is_told_of_once(tmp_path, log):
    done = nrcg("--log", log, *BALLS, tmp_path / "set")
    assert done.returncode == 0 and (tmp_path / "set/card.json").exists()
    assert done.stderr.count("warning: --log") == 1 and "continuing without it" in done.stderr


@pytest.mark.parametrize(
    "shell", ['"$@" >/dev/full 2>&1', '"$@" 2>&-', '"$@" <&- >&- 2>&-', '"$@" 2>&1 | true; exit ${PIPESTATUS[0]}']
)
def test_streams_that_are_full_or_closed_fail_no_verb(tmp_path, shell):
    assert nrcg(*BALLS, tmp_path / "set", shell=shell).returncode == 0
    assert (tmp_path / "set/contact_sheet.png").exists()


def test_a_result_that_cannot_be_printed_is_an_error(tmp_path):
    (tmp_path / "dry").write_text("Nothing to be done (all requested files are present and up to date)\n")
    rates = ["rule", "dataset", "options", "images", "minutes", "disk_mb", "basis"]
    rows = ["\t".join(rates), "\t".join(["train", "", "", "", "1", "1", "a guess"])]
    (tmp_path / "rates.tsv").write_text("\ufeff" + "\n".join(rows) + "\n", encoding="utf-8")
    plan = ["plan", tmp_path / "dry", "--rates", tmp_path / "rates.tsv"]
    assert "Nothing to be done" in nrcg(*plan).stdout
    full = nrcg(*plan, shell='"$@" >/dev/full')
    assert (
        full.returncode == 2 and full.stderr == "error: standard output: cannot be written (No space left on device)\n"
    )
    assert nrcg(*plan, shell='"$@" | true; exit ${PIPESTATUS[0]}').returncode == 0
    closed = nrcg("plan", "--rates", tmp_path / "rates.tsv", shell='"$@" <&-')
    assert closed.returncode == 2 and closed.stderr.startswith("error: standard input: no dry run")
    (tmp_path / "rates.tsv").write_text("")
    assert nrcg(*plan).stderr.startswith(f"error: {tmp_path}/rates.tsv: not a readable table")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_data_generation_in_one_line_without_leftovers(tmp_path, number):
    words = [*balls(n=1000000), str(tmp_path / "set")]
    told = partial(signal.signal, number, signal.SIG_DFL)  # not ignored, as below a shell's `&`
    run = [sys.executable, "-m", "nrcg.cli", *words]
    with subprocess.Popen(run, stderr=subprocess.PIPE, preexec_fn=told) as process:
        while not list(tmp_path.glob("set/.images*")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1].decode().replace("\r", "\n")
    assert process.returncode == 75 and not list((tmp_path / "set").iterdir())
    assert said.splitlines()[-1] == f"stopped by {number.name}: no file is half-written; run the same command again"


def test_what_a_killed_one_left_goes_with_the_next(tmp_path):
    run = [sys.executable, "-m", "nrcg.cli", *balls(n=1000000), str(tmp_path / "set")]
    with subprocess.Popen(run, stderr=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob("set/.images*")):
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    assert list(tmp_path.glob("set/.*.tmp"))
    assert nrcg(*BALLS, tmp_path / "set").returncode == 0
    assert not list(tmp_path.glob("set/.*"))


def test_no_memory_on_the_cpu_is_one_line(tmp_path):
    done = nrcg(*balls(n=1, size=60000), tmp_path / "set", shell='ulimit -v 9000000; "$@"')
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.replace("\r", "\n").splitlines()[-1].startswith("error: not enough memory (")
