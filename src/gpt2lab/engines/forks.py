"""Forks of a process whose threads compute: the child gets every core in a state that it can use.

A fork copies the memory but only the thread that forks. If another thread were in a core at that moment, the child
would wait for it forever. So a fork waits until no thread is in any core, which may take as long as a step; the child
then starts threads of its own. This module knows only that cores have locks.

Ctrl-C may interrupt a Python function at any of its steps, and fork() goes on after an interrupted hook. So whatever
takes a lock and notes that it did, and whatever releases the locks, is one call into C.
"""

from __future__ import annotations

import gc
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter, methodcaller
from typing import Any, Protocol
from weakref import WeakKeyDictionary


class Core(Protocol):
    """A core that one thread at a time may use."""

    def before_fork(self) -> None:
        """Wait until no other thread uses the core, and keep others out."""

    def after_fork(self) -> None:
        """Let others in; called in parent and child."""


class _Fork(threading.local):
    """The fork that a thread prepares or has made."""

    held: list[tuple[Any, Callable[[], Any]]] = []  # noqa: RUF012 - never changed: every fork sets a new list
    """What the thread holds: for each, the result of taking it, and the function that releases it."""


_fork = _Fork()
_cores: WeakKeyDictionary[object, Core] = WeakKeyDictionary()
_forking = threading.Lock()  # held from before a fork until after it, so that one thread forks at a time

_call = methodcaller("__call__")


def let_fork(owner: object, core: Core) -> None:
    """Let the process fork while ``owner``, which holds ``core``, exists, whatever other threads do."""
    with _forking:  # a thread that forks has listed the cores that it holds
        _cores[owner] = core


def _before() -> None:
    _fork.held = []
    _take([(_forking.acquire, _forking.release)])
    # A finaliser might free a sequence of a core that this thread holds now, and wait for itself.
    _take([(gc.disable, gc.enable if gc.isenabled() else gc.disable)])
    owners = [reference() for reference in _cores.keyrefs()]  # a list made in one step: other threads free owners
    cores = [core for owner in owners if owner is not None and (core := _cores.get(owner)) is not None]
    _take([(core.before_fork, core.after_fork) for core in cores])


def _take(pairs: Iterable[tuple[Callable[[], Any], Callable[[], Any]]]) -> None:
    """Call the first function of each pair, and keep the second one for after the fork."""
    takes, releases = zip(*pairs, strict=True) if (pairs := [*pairs]) else ((), ())
    _fork.held.extend(zip(map(_call, takes), releases, strict=False))


def _releaser() -> Callable[[], Any]:
    """Return a function that calls what the thread kept for after its fork, last one first, and is written in C."""
    held = iter(partial(getattr, _fork, "held"), None)  # the thread's list, each time that it is asked for
    releases = map(partial(map, itemgetter(1)), map(reversed, held))
    calls = map(partial(map, _call), releases)
    return partial(next, map(partial(deque, maxlen=0), calls))


_after = _releaser()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
