"""Stopping on request: a signal asks, a loop answers where it can go on later."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nrcg.errors import Stopped


@dataclass
class Stop:
    """Whether the job was asked to stop, and by what; blank while it was not."""

    reason: str = ""

    def check(self) -> None:
        """Raise Stopped if asked to; loops call this where everything that is done can be kept."""
        if self.reason:
            raise Stopped(f"stopped by {self.reason}: what is done is kept; run the same command again to go on")


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Inside, SIGTERM or SIGUSR1, which clusters send some time before they kill, asks the `Stop` that this yields.

    A second signal ends the process at once.
    """
    stop = Stop()
    numbers = (signal.SIGTERM, signal.SIGUSR1)

    def ask(number: int, _frame: object) -> None:
        stop.reason = signal.Signals(number).name
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)

    before = [signal.signal(number, ask) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
