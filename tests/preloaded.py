"""Commands that start at once: `snakemake` and `nrcg`, forked from a process that has imported what they need.

The toy runs start hundreds of commands, each of which would spend seconds on imports. The commands themselves are the
real ones. A command that is killed leaves its fork behind, so tests that kill start the usual commands.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import signal
import socket
import stat
import struct
import sys
import threading
from pathlib import Path

PASSED_ON = (signal.SIGINT, signal.SIGTERM)
CLIENT = """#!{python} -S
import sys
sys.path.insert(0, {here!r})
from preloaded import request
request({address!r})
"""


def install(folder):
    """Write the two commands to a folder, for PATH; returns the address that `serve` listens to."""
    address = str(Path(folder, "socket"))
    for name in ("snakemake", "nrcg"):
        file = Path(folder, name)
        file.write_text(CLIENT.format(python=sys.executable, here=str(Path(__file__).parent), address=address))
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return address


def request(address):
    """Have the command of this process run by a fork of the server, and end as it does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        asked = json.dumps({"argv": sys.argv, "cwd": os.getcwd(), "environ": dict(os.environ)}).encode()
        socket.send_fds(connection, [struct.pack("I", len(asked))], [0, 1, 2])
        connection.sendall(asked)
        answers = connection.makefile()
        child = int(answers.readline())
        for number in PASSED_ON:
            signal.signal(number, lambda number, _: os.kill(child, number))
        os._exit(int(answers.readline()))


def serve(address):
    """Import, then fork for each request, until standard input ends."""
    preload()
    threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        while True:
            connection, _ = listening.accept()
            head, files, _, _ = socket.recv_fds(connection, 4, 3)
            asked = json.loads(connection.makefile("rb").read(struct.unpack("I", head)[0]))
            if (child := os.fork()) == 0:
                listening.close()
                connection.close()
                run(files, **asked)
            for file in files:
                os.close(file)
            threading.Thread(target=report, args=(connection, child)).start()


def report(connection, child):
    with connection, contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{child}\n".encode())
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(f"{ended if ended >= 0 else 128 - ended}\n".encode())


def run(files, argv, cwd, environ):
    """Be the command, in a fork."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = argv
    code = 1
    try:
        if Path(argv[0]).name == "snakemake":
            from snakemake.cli import main
        else:
            from nrcg.cli import main
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def preload():
    from nrcg.runtime.imports import hide_transformers

    hide_transformers()
    import nrcg

    for module in pkgutil.walk_packages(nrcg.__path__, "nrcg."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    importlib.import_module("snakemake.cli")


if __name__ == "__main__":
    serve(sys.argv[1])
