"""Stopping on request: a signal asks, a loop answers where it can go on later."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nrcg.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # Ctrl-C, and what clusters send before they kill


@dataclass
class Stop:
    """Whether the job was asked to stop, and by what; blank while it was not."""

    reason: str = ""

    def ask(self, reason: str) -> None:
        self.reason = reason

    def check(self) -> None:
        """Raise Stopped if asked to; loops call this where everything that is done can be kept."""
        if self.reason:
            raise Stopped(f"stopped by {self.reason}: what is done is kept; run the same command again to go on")


def end(name: str) -> None:
    """The answer of work with nothing to keep."""
    raise Stopped(f"stopped by {name}: no file is half-written; run the same command again")


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Inside, each of SIGNALS asks the `Stop` that this yields."""
    stop = Stop()
    with on_signals(stop.ask):
        yield stop


@contextmanager
def on_signals(answer: Callable[[str], None]) -> Iterator[None]:
    """Inside, each of SIGNALS calls answer(its name), and a second one ends the process at once.

    One that whoever started this process has it ignore (`nohup`, a shell's `&`) stays ignored.
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
