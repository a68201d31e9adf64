"""Stopping on request: a signal sets a flag, and loops check it where they can resume later."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nrcg.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # Ctrl-C, and the warnings of clusters before a kill


@dataclass
class Stop:
    """A request to stop and its reason; blank without a request."""

    reason: str = ""

    def ask(self, reason: str) -> None:
        self.reason = reason

    def check(self) -> None:
        """Raise Stopped if a stop was requested; loops call this where all finished work can be kept."""
        if self.reason:
            raise Stopped(f"stopped by {self.reason}: finished work is kept; run the same command again to continue")


def end(name: str) -> None:
    """Signal handler of work without resumable state."""
    raise Stopped(f"stopped by {name}: no file is half-written; run the same command again")


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Inside, each of SIGNALS sets the yielded `Stop`."""
    stop = Stop()
    with on_signals(stop.ask):
        yield stop


@contextmanager
def on_signals(answer: Callable[[str], None]) -> Iterator[None]:
    """Inside, the first of SIGNALS calls answer(name), and a second one ends the process at once.

    Signals that this process was started to ignore (`nohup`, a shell's `&`) stay ignored.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}

    def handle(number: int, _frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        answer(signal.Signals(number).name)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
