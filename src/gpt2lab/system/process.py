"""The signals that ask this process to end, and functions that run when it forks.

Windows has no fork and no SIGHUP. There, Ctrl-C arrives as SIGINT, and Ctrl-Break or a closed console as SIGBREAK;
another process can only kill this one. This module knows nothing of the work that a signal interrupts.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""Sent when the terminal is closed; None on Windows."""

ENDING: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
"""Every signal of this system that asks a process to end."""

_WAKE_SECONDS = 0.25


def on_hangup(loop: AbstractEventLoop, call: Callable[[], object]) -> None:
    """Run ``call`` in ``loop`` at each SIGHUP; do nothing on Windows and outside the main thread."""
    if HANGUP is not None and threading.current_thread() is threading.main_thread():
        loop.add_signal_handler(HANGUP, call)


@contextmanager
def reads_woken() -> Iterator[None]:
    """Run a block whose blocking reads return to Python a few times a second, so that it notices every signal.

    A signal that arrives after Python's last look at its signals, but before the system call, does not end that call.
    Nothing changes on Windows, outside the main thread, or if the process has an alarm already.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    if signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, _WAKE_SECONDS, _WAKE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)


def _nothing() -> None:
    pass


def around_forks(
    *,
    before: Callable[[], object] = _nothing,
    after_in_parent: Callable[[], object] = _nothing,
    after_in_child: Callable[[], object] = _nothing,
) -> None:
    """Call these functions at every fork from now on; do nothing on Windows, where no process can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=after_in_child)
