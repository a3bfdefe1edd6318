"""Forks of a process whose threads compute: the child gets every core in a state that it can use.

A fork copies the memory but only the thread that forks. If another thread were in a core at that moment, the child
would wait for it forever. So a fork waits until no thread is in any core, which may take as long as a step; the child
then starts threads of its own. This module knows only that cores have locks.
"""

from __future__ import annotations

import gc
import os
from threading import Lock
from typing import Protocol
from weakref import WeakKeyDictionary


class Core(Protocol):
    """A core that one thread at a time may use."""

    def before_fork(self) -> None:
        """Wait until no other thread uses the core, and keep others out."""

    def after_fork(self) -> None:
        """Let others in; called in parent and child."""


_cores: WeakKeyDictionary[object, Core] = WeakKeyDictionary()
_forking = Lock()  # held from before a fork until after it, so that one thread forks at a time
_held: list[Core] = []
_collects = True  # whether the garbage collector was on before the fork


def let_fork(owner: object, core: Core) -> None:
    """Let the process fork while ``owner``, which holds ``core``, exists, whatever other threads do."""
    _cores[owner] = core


def _before() -> None:
    global _collects
    _forking.acquire()
    _collects = gc.isenabled()
    gc.disable()  # a finaliser might free a sequence of a core that this thread holds now, and wait for itself
    for core in list(_cores.values()):
        core.before_fork()
        _held.append(core)


def _after() -> None:
    while _held:
        _held.pop().after_fork()
    if _collects:
        gc.enable()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
