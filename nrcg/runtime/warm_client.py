"""A command served by nrcg.runtime.warm: `python -SI warm_client.py SOCKET MODULE NAME ARGUMENTS`.

A fork of the server runs the command and this process ends as it does. Without a server, `python -m MODULE` runs it.
"""

import json
import os
import signal
import socket
import struct
import sys

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def main() -> None:
    address, module, *argv = sys.argv[1:]
    ignored = [number for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN]
    asked = {"argv": argv, "cwd": os.getcwd(), "environ": dict(os.environ), "ignored": ignored}
    request = json.dumps(asked).encode()
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until there is a process to pass them on to
    connection = socket.socket(socket.AF_UNIX)
    answers = connection.makefile()
    try:
        connection.connect(address)
        socket.send_fds(connection, [struct.pack("I", len(request))], [0, 1, 2])
        connection.sendall(request)
        child = int(answers.readline())
    except (OSError, ValueError):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        os.execv(sys.executable, [sys.executable, "-m", module, *argv[1:]])
    for number in set(PASSED_ON) - set(ignored):
        signal.signal(number, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    if not (status := answers.readline()):  # the server is gone
        os.kill(child, signal.SIGKILL)
    os._exit(int(status or 1))


if __name__ == "__main__":
    main()
