"""Interruptions at moments when nothing is lost. This module knows nothing of the work that is interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from gpt2lab.system.process import ENDING

Item = TypeVar("Item")


class StoppedBetween:
    """A context in which signals interrupt blocks that are :meth:`interruptible`, but not the work between them.

    A signal that arrives during that work is kept until the next such block begins or the context ends; a second
    one acts at once. A signal that ended such a block counts as the end of it: the next one is kept. Signals that are
    ignored, or end the process without Python, stay as they are. Outside the main thread, which alone may change
    signals, nothing changes.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._kept: int | None = None
        self._interruptible = False

    def __enter__(self) -> StoppedBetween:
        if threading.current_thread() is threading.main_thread():
            found = {number: signal.getsignal(number) for number in ENDING}
            self._handlers = {number: handler for number, handler in found.items() if callable(handler)}
            for number in self._handlers:
                signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._interruptible = True  # from here on signals act at once
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if kind is None:
            self._obey()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Run a block in which signals act at once, beginning with one that was kept.

        A ``try`` around the ``with`` catches what they raise, whenever they arrive: its handlers are not interrupted.
        """
        try:
            self._interruptible = True
            self._obey()
            yield
        finally:
            self._interruptible = False

    def items(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield ``items`` unchanged; making an item is interruptible, working on it is not."""
        iterator = iter(items)
        while True:
            try:
                with self.interruptible():
                    item = next(iterator)
            except StopIteration:
                return
            yield item

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._interruptible or self._kept is not None:
            self._act(number, frame)
        else:
            self._kept = number

    def _obey(self) -> None:
        if self._kept is not None:
            number, self._kept = self._kept, None
            self._act(number, None)

    def _act(self, number: int, frame: FrameType | None) -> None:
        before, self._interruptible = self._interruptible, False  # an exception leaves the block: the next signal waits
        self._handlers[number](number, frame)
        self._interruptible = before
