"""Forks of a process whose threads compute: the child gets every core in a state that it can use.

A fork copies the memory but only the thread that forks. If another thread were in a core at that moment, the child
would wait for it forever. So a fork waits until no thread is in any core, which may take as long as a step; the child
then starts threads of its own. This module knows only that cores have locks.

Ctrl-C may interrupt a Python function between any two bytecodes, and fork() proceeds even if a hook was interrupted. So
whatever takes a lock and notes that it did, and whatever releases the locks, is one call into C.
"""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from operator import itemgetter, methodcaller
from typing import Protocol
from weakref import WeakKeyDictionary

from gpt2lab.system.process import around_forks


class Core(Protocol):
    """A core that one thread at a time may use."""

    @property
    def before_fork(self) -> Callable[[], object]:
        """Wait until no other thread uses the core, and keep others out."""

    @property
    def after_fork(self) -> Callable[[], object]:
        """Let others in; called in parent and child."""


class LockedCore:
    """A core that ``lock`` guards."""

    def __init__(self, lock: threading.Lock) -> None:
        self.before_fork: Callable[[], object] = lock.acquire
        self.after_fork: Callable[[], object] = lock.release


_Pair = tuple[Callable[[], object], Callable[[], object]]
"""A function that takes something before a fork, and one that releases it afterwards."""

_Taken = list[tuple[object, Callable[[], object]]]
"""What has been taken: what the first function of a pair returned, and the second function."""


class _Fork(threading.local):
    """The latest fork of a thread."""

    releases: Iterator[object] = iter(())
    """An iterator that releases what the thread has taken for the fork, one thing at a time, and each once."""


_fork = _Fork()
_cores: WeakKeyDictionary[object, Core] = WeakKeyDictionary()
_forking = threading.Lock()  # held from before a fork until after it, so that one thread forks at a time

_call = methodcaller("__call__")


def let_fork(owner: object, core: Core) -> None:
    """Let the process fork while ``owner``, which holds ``core``, exists, whatever other threads do.

    Cores that were registered later are taken first: a thread that holds one may wait for an earlier one.
    """
    with _forking:  # a thread that is about to fork has listed the cores that it takes
        _cores[owner] = core


def _before() -> None:
    turn: _Taken = []
    collecting: _Taken = []
    cores: _Taken = []
    # It sees what is added to the lists below. Cores are first: what is collected after that may use one.
    _fork.releases = map(_call, map(itemgetter(1), chain(cores, collecting, turn)))
    _take(turn, [(_forking.acquire, _forking.release)])
    # A finaliser might free a sequence of a core that this thread holds now, and wait for itself.
    _take(collecting, [(gc.disable, gc.enable if gc.isenabled() else gc.disable)])
    owners = [reference() for reference in reversed(_cores.keyrefs())]  # made in one step: other threads free owners
    known = [core for owner in owners if owner is not None and (core := _cores.get(owner)) is not None]
    _take(cores, [(core.before_fork, core.after_fork) for core in known])


def _take(taken: _Taken, pairs: list[_Pair]) -> None:
    """Call the first function of each pair and, in the same step, add the second one to ``taken``."""
    taken.extend(zip(map(_call, map(itemgetter(0), pairs)), map(itemgetter(1), pairs), strict=False))


# Takes the thread's iterator, whichever it is when the function is called, and runs through it.
_after = partial(next, map(partial(deque, maxlen=0), iter(partial(getattr, _fork, "releases"), None)))

around_forks(before=_before, after_in_parent=_after, after_in_child=_after)
