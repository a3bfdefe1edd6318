"""Signals that ask a run to end: it finishes the current update and saves.

Ctrl-C, ``kill``, a batch system's time limit, a closed terminal, and a pipe whose reader is gone (the same
Ctrl-C ends ``| tee log``) all have this effect. This module knows nothing of training.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from gpt2lab.system.process import ENDING, HANGUP


class Interrupts:
    """A context in which each signal calls ``notice``, and :attr:`asked` keeps the first.

    A second signal of the same kind ends the process at once. Exceptions are SIGHUP, which a closed
    terminal sends more than once, and any signal under torchrun, which repeats what the terminal has already sent.
    ``nohup`` is respected. Only the main thread receives signals, so entering it in another has no effect.
    """

    def __init__(self, notice: Callable[[], object]) -> None:
        self.asked: signal.Signals | None = None
        self._notice = notice
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is not threading.main_thread():
            return self
        numbers = [each for each in ENDING if each != HANGUP or signal.getsignal(each) is not signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def pass_on(self) -> None:
        """Send the signal that asked for the end again, once, to the handler outside this context."""
        number, self.asked = self.asked, None
        if number is not None:
            signal.raise_signal(number)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == HANGUP:
            silence()
        elif number == self.asked and "TORCHELASTIC_RUN_ID" not in os.environ:
            signal.default_int_handler(number, frame)
        self.asked = self.asked or signal.Signals(number)
        self._notice()


def output_is_gone(error: OSError) -> None:
    """End the run as SIGTERM would; call this when standard output cannot be written to.

    Raises ``error`` if nothing catches that signal.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        raise error
    silence()
    signal.raise_signal(signal.SIGTERM)


def silence() -> None:
    """Discard standard output and error from now on, because their reader is gone."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # a test's stream has no number
                os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
