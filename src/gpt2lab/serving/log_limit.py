"""A bound on warnings: clients that provoke the same one again and again must not fill the disk."""

from __future__ import annotations

import logging
import time

BURST = 10
"""The most warnings or errors with the same message that are logged in :data:`SECONDS`."""

SECONDS = 60.0


class LogLimit(logging.Filter):
    """A filter that lets :data:`BURST` records of one message pass in :data:`SECONDS`; lines below warnings all pass.

    The first record after a pause reports how many were left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}  # message without its arguments → since, count

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether ``record`` is logged."""
        if record.levelno < logging.WARNING:
            return True
        now = time.monotonic()
        key = record.msg if isinstance(record.msg, str) else type(record.msg).__name__, record.levelno
        since, count = self._seen.get(key, (now, 0))
        if now - since >= SECONDS:
            if count > BURST:
                record.msg = f"{record.msg} ({count - BURST} more in the last {now - since:.0f} s were left out)"
            since, count = now, 0
        self._seen[key] = since, count + 1
        return count < BURST
