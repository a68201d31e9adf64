"""Stopping on request: a signal asks, a loop answers where it can go on later."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Inside, each of SIGNALS asks the `Stop` that this yields. A second signal ends the process at once."""
    stop = Stop()
    with _answered_by(stop.ask):
        yield stop


def end_on_signals() -> AbstractContextManager[None]:
    """Inside, each of SIGNALS raises Stopped, for work with nothing to keep; a second one ends the process at once."""

    def end(name: str) -> None:
        raise Stopped(f"stopped by {name}: no file is half-written; run the same command again")

    return _answered_by(end)


@contextmanager
def _answered_by(answer: Callable[[str], None]) -> Iterator[None]:
    """A signal that whoever started this process has it ignore (`nohup`, a shell's `&`) stays ignored."""
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
