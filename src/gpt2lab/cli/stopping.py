"""Interruptions at moments when nothing is lost. This module knows nothing of the work that is interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

Item = TypeVar("Item")

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StoppedBetween:
    """A context in which signals interrupt the making of an item of :meth:`items`, but not the work on it.

    A signal that arrives during that work is kept until the next item is requested, or the block is left; a second one
    acts at once. Signals that are ignored, or end the process without Python, stay as they are. Outside the main
    thread, which alone may change signals, nothing changes.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._kept: int | None = None
        self._making = False

    def __enter__(self) -> StoppedBetween:
        if threading.current_thread() is threading.main_thread():
            found = {number: signal.getsignal(number) for number in _SIGNALS}
            self._handlers = {number: handler for number, handler in found.items() if callable(handler)}
            for number in self._handlers:
                signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._making = True  # from here on signals act at once
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if kind is None:
            self._obey()

    def items(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield ``items`` unchanged."""
        iterator = iter(items)
        while True:
            try:
                self._making = True
                self._obey()
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._making = False
            yield item

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._making or self._kept is not None:
            self._handlers[number](number, frame)
        else:
            self._kept = number

    def _obey(self) -> None:
        if self._kept is not None:
            number, self._kept = self._kept, None
            self._handlers[number](number, None)
