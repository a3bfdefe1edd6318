"""Signals that ask a run to end: it finishes the update it is at and saves, whoever asks.

Ctrl-C, ``kill``, a batch system's time limit, a terminal that is closed, and a pipe whose reader is gone (``| tee log``
dies of the same Ctrl-C) are all the same wish. Knows nothing of training.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

SIGHUP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none


class Interrupts:
    """While entered, the first signal is kept in :attr:`asked`, and ``notice`` is called.

    The same signal once more ends the process at once, as Ctrl-C does; but not SIGHUP, which a closed terminal sends
    more than once, nor any under torchrun, which passes on what the terminal has sent already. ``nohup`` is respected.
    """

    def __init__(self, notice: Callable[[], object]) -> None:
        self.asked: signal.Signals | None = None
        self._notice = notice
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if SIGHUP is not None and signal.getsignal(SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.Signals(SIGHUP))
        self._previous = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == SIGHUP:
            silence()
        elif number == self.asked and "TORCHELASTIC_RUN_ID" not in os.environ:
            signal.default_int_handler(number, frame)
        self.asked = self.asked or signal.Signals(number)
        self._notice()


def output_is_gone(error: OSError) -> None:
    """To be called when standard output cannot be written to: asks for the end as SIGTERM would.

    Raises ``error`` where nothing catches that signal.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        raise error
    silence()
    signal.raise_signal(signal.SIGTERM)


def silence() -> None:
    """Send standard output and error nowhere from now on: what they went to is no longer there."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # a test's stream has no number
                os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
