"""The engines of one model, each opened when it is first needed.

Text is made in a precision that is fast, numbers that are to be looked at are computed in float32, and who needs only
one of the two shall not wait for the other. Knows nothing of text or requests.
"""

from __future__ import annotations

import os
from contextlib import suppress
from threading import Lock, Thread
from typing import TYPE_CHECKING
from weakref import WeakSet

from gpt2lab.engines import open_engine
from gpt2lab.engines.precision import check_device, default_kv_precision
from gpt2lab.errors import Gpt2LabError

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.weights.checkpoint import Checkpoint

OPENER = "gpt2lab opens an engine"  # the name of the threads that do


class Engines:
    """Engines for ``checkpoint`` on ``device``; several threads may ask for them.

    Attributes:
        precision: in which :attr:`generating` holds its weights: the one asked for, else q8_0 (``reference``: float32).
        exact_precision: the same of :attr:`exact`: the one asked for, else float32.

    Raises :class:`~gpt2lab.errors.UsageError` for a device or precision that there is not.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        threads: int | None = None,
        precision: str | None = None,
        kv_precision: str | None = None,
    ) -> None:
        check_device(device, precision, kv_precision)
        self.config = checkpoint.config
        self.checkpoint = checkpoint
        self.device = device
        self.precision = precision or ("q8_0" if device == "cpu" else "float32")
        self.exact_precision = precision or "float32"
        self._threads = threads
        self._kv_precision = kv_precision
        self._opened: dict[str, Engine] = {}
        self._opening = Lock()
        _all_engines.add(self)

    @property
    def generating(self) -> Engine:
        """The engine that draws text."""
        return self._open(self.precision)

    @property
    def exact(self) -> Engine:
        """The engine whose logits are asked for; the same one if the precisions are."""
        return self._open(self.exact_precision)

    @property
    def kv_precision(self) -> str:
        """In which :attr:`generating` holds keys and values."""
        return self._kv_precision or default_kv_precision(self.precision)

    @property
    def opened(self) -> list[Engine]:
        """Those that were needed so far."""
        return list(self._opened.values())

    def open_ahead(self) -> None:
        """Begin to open :attr:`generating` in a thread, if all there is to do is to read its packed weights."""
        if self._opened or self.device != "cpu":
            return
        from gpt2lab.engines.loading import cached_precisions

        if self.precision in cached_precisions(self.checkpoint):
            Thread(target=self._try_to_open, name=OPENER, daemon=True).start()

    def _try_to_open(self) -> None:
        with suppress(Gpt2LabError, MemoryError):  # who asks for the engine will be told
            self._open(self.precision)

    def _open(self, precision: str) -> Engine:
        with self._opening:
            if precision not in self._opened:
                self._opened[precision] = open_engine(
                    self.checkpoint,
                    device=self.device,
                    threads=self._threads,
                    precision=precision,
                    kv_precision=self._kv_precision,
                )
            return self._opened[precision]


_all_engines: WeakSet[Engines] = WeakSet()


def _unlock_in_child() -> None:
    """After a fork: the thread that was opening an engine is not in the child, and would never let go of the lock."""
    for engines in _all_engines:
        engines._opening = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)
