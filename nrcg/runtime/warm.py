"""Commands without import time: each is a fork of a process that has imported their modules.

`nrcg warm` puts them on the PATH of a command such as Snakemake, whose many short jobs spend much of their time on
imports. A job behaves as usual: arguments, folder, environment, streams, signals and exit status are its own, and if
it is killed, so is its fork. Linux only.
"""

import json
import os
import pkgutil
import selectors
import shlex
import shutil
import signal
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from threadpoolctl import threadpool_limits

from nrcg.errors import NrcgError
from nrcg.runtime import warm_client
from nrcg.runtime.imports import hide_transformers

NRCG = {"nrcg": "nrcg.cli"}  # command: the package that has its function `main`, also run by `python -m`


def run_warm(words: list[str]) -> NoReturn:
    """Become the command `words`, with a server for `nrcg` beside it until it ends; elsewhere than on Linux, without.

    Raises:
        NrcgError: the command does not exist.
    """
    if shutil.which(words[0]) is None:
        raise NrcgError(f"{words[0]}: no such command")
    if hasattr(os, "pidfd_open"):
        folder = Path(tempfile.mkdtemp(prefix="nrcg-"))
        listening, user = listen(folder, NRCG), os.getpid()
        if os.fork() == 0:
            os.setsid()  # signals of the terminal are for the command
            try:
                serve(listening, user, NRCG)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                os._exit(0)
        listening.close()
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    os.execvp(words[0], words)


def listen(folder: Path, commands: Mapping[str, str]) -> socket.socket:
    """Write the clients of `commands` to a folder for PATH; return the socket for `serve`."""
    listening, address = socket.socket(socket.AF_UNIX), str(folder / "socket")
    listening.bind(address)
    listening.listen(64)
    for name, module in commands.items():
        client = [sys.executable, "-SI", warm_client.__file__, address, module, name]
        file = folder / name
        file.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return listening


def serve(listening: socket.socket, user: int, commands: Mapping[str, str]) -> None:
    """Import, then fork for each request, until the process `user` and all forks have ended."""
    ended = os.pidfd_open(user)
    preload(commands)
    with selectors.DefaultSelector() as watched:
        watched.register(ended, selectors.EVENT_READ, lambda: watched.unregister(ended))
        watched.register(listening, selectors.EVENT_READ, lambda: accept(listening, watched, commands))
        while len(watched.get_map()) > 1:
            for key, _ in watched.select():
                key.data()


def accept(listening: socket.socket, watched: selectors.BaseSelector, commands: Mapping[str, str]) -> None:
    """Answer a request with the fork's process number, and with its exit status when it ends."""
    connection, _ = listening.accept()
    try:
        head, files, _, _ = socket.recv_fds(connection, 4, 3)
        asked = json.loads(connection.makefile("rb").read(struct.unpack("I", head)[0]))
    except (OSError, ValueError, struct.error):  # the client was killed before it had asked
        return connection.close()
    if (child := os.fork()) == 0:
        for key in [*watched.get_map().values()]:
            os.close(key.fd)
        connection.close()
        run(commands, files, **asked)
    for file in files:
        os.close(file)
    end = os.pidfd_open(child)

    def report() -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with suppress(OSError):
            connection.sendall(f"{status if status >= 0 else 128 - status}\n".encode())
        watched.unregister(end)
        os.close(end)
        with suppress(KeyError):
            watched.unregister(connection)
        connection.close()

    def kill() -> None:  # the client is gone
        with suppress(KeyError, ValueError):  # reported at the same time
            watched.unregister(connection)
            os.kill(child, signal.SIGKILL)

    watched.register(end, selectors.EVENT_READ, report)
    watched.register(connection, selectors.EVENT_READ, kill)
    with suppress(OSError):
        connection.sendall(f"{child}\n".encode())


def run(
    commands: Mapping[str, str], files: Sequence[int], argv: list[str], cwd: str, environ: Mapping[str, str],
    ignored: Sequence[int],
) -> NoReturn:  # fmt: skip
    """Be the command, in a fork."""
    code = 1
    try:
        os.setsid()  # the client passes signals on
        for number in warm_client.PASSED_ON:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
        if signal.SIGINT not in ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for stream, file in enumerate(files):
            os.dup2(file, stream)
            os.close(file)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environ)
        sys.argv = argv
        if (threads := environ.get("OMP_NUM_THREADS", "")).isdecimal():  # libraries have read the server's
            threadpool_limits(int(threads))
        import_module(commands[argv[0]]).main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        for written in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                written.flush()
        os._exit(code)


def preload(commands: Mapping[str, str]) -> None:
    """Import all modules of nrcg, and with them torch, diffusers and matplotlib, and the modules of other commands."""
    hide_transformers()
    nrcg = import_module("nrcg")
    for module in pkgutil.walk_packages(nrcg.__path__, "nrcg."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    for name in commands.values():
        import_module(name)
