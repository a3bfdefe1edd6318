"""The engines of one model, each opened on first use.

By default, text is generated in a fast precision, while logits and scores are computed in float32. Each engine opens on
first use, so a caller that needs one never waits for the other. This module knows nothing of text or requests.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Lock, Thread
from typing import TYPE_CHECKING
from weakref import WeakSet

from gpt2lab.engines import open_engine
from gpt2lab.engines.precision import checked_device, default_kv_precision
from gpt2lab.errors import Gpt2LabError
from gpt2lab.system.process import around_forks

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.weights.checkpoint import Checkpoint

OPENER = "gpt2lab opens an engine"  # name of the threads that open engines


class Engines:
    """The engines for ``checkpoint`` on ``device``. Several threads may share them.

    Attributes:
        device: the device; that of this machine if ``auto`` was requested.
        precision: precision of :attr:`generating`'s weights: the one requested, else int8 on
            ``cpu`` and float32 on other devices.
        exact_precision: precision of :attr:`exact`'s weights: the one requested, else float32.

    Raises :class:`~gpt2lab.errors.UsageError` for a device or precision that does not exist.
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
        device = checked_device(device, precision, kv_precision)
        self.config = checkpoint.config
        self.checkpoint = checkpoint
        self.device = device
        self.precision = precision or ("int8" if device == "cpu" else "float32")
        self.exact_precision = precision or "float32"
        self._threads = threads
        self._kv_precision = kv_precision
        self._opened: dict[str, Engine] = {}
        self._opening = Lock()
        _all_engines.add(self)

    @property
    def generating(self) -> Engine:
        """The engine that generates text."""
        return self._open(self.precision)

    @property
    def exact(self) -> Engine:
        """The engine for exact logits; the same as :attr:`generating` if the precisions are equal."""
        return self._open(self.exact_precision)

    @property
    def kv_precision(self) -> str:
        """The precision of :attr:`generating`'s KV cache."""
        return self._kv_precision or default_kv_precision(self.precision, self.device)

    @property
    def opened(self) -> list[Engine]:
        """The engines opened so far."""
        return list(self._opened.values())

    def open_ahead(self) -> None:
        """Begin to open :attr:`generating` in a thread, if its packed weights only need to be read."""
        if self._opened or self.device != "cpu":
            return
        from gpt2lab.engines.loading import cached_precisions

        if self.precision in cached_precisions(self.checkpoint):
            Thread(target=self._try_to_open, name=OPENER, daemon=True).start()

    def _try_to_open(self) -> None:
        with suppress(Gpt2LabError, MemoryError):  # raised again when the engine is used
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
    """Replace the locks after a fork: the child lacks the thread that would release a lock."""
    for engines in _all_engines:
        engines._opening = Lock()


around_forks(after_in_child=_unlock_in_child)
