"""A bound on warnings: clients that provoke the same one again and again must not fill the disk."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Hashable

BURST = 10
"""The most warnings or errors of one kind that are logged in :data:`SECONDS`."""

SECONDS = 60.0

MAX_KINDS = 256
"""The number of kinds that are counted separately; all others count as one."""

# Parts of a message that differ from time to time: quoted text, what repr() puts in brackets, numbers and addresses.
_VARIABLE = re.compile(r"""'[^']*'|"[^"]*"|<[^<>]*>|0x[0-9a-f]+|\d+""")
_LONGEST = 200  # characters of a message that count


class LogLimit(logging.Filter):
    """A filter that lets :data:`BURST` records of one kind pass in :data:`SECONDS`; lines below warnings all pass.

    Records of an exception are of one kind if its type and the place that raised it are the same; others if their first
    line is, apart from its variable parts. The first record after a pause reports how many were left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[Hashable, tuple[float, int]] = {}  # kind → since, count

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether ``record`` is logged."""
        if record.levelno < logging.WARNING:
            return True
        now = time.monotonic()
        kind = self._known(_kind(record), now)
        since, count = self._seen.get(kind, (now, 0))
        if now - since >= SECONDS:
            if count > BURST:
                record.msg = f"{record.msg} ({count - BURST} more in the last {now - since:.0f} s were left out)"
            since, count = now, 0
        self._seen[kind] = since, count + 1
        return count < BURST

    def _known(self, kind: Hashable, now: float) -> Hashable:
        """Return ``kind``, or None if there are too many. Forgets old kinds of which nothing was left out."""
        if kind not in self._seen and len(self._seen) >= MAX_KINDS:
            recent = {each: (since, n) for each, (since, n) in self._seen.items() if now - since < SECONDS or n > BURST}
            self._seen = recent
            return kind if len(recent) < MAX_KINDS else None
        return kind


def _kind(record: logging.LogRecord) -> Hashable:
    if record.exc_info and (error := record.exc_info[1]) is not None:
        place = error.__traceback__
        while place and place.tb_next:
            place = place.tb_next
        return record.levelno, type(error), place and (place.tb_frame.f_code.co_filename, place.tb_lineno)
    text = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
    return record.levelno, _VARIABLE.sub("…", text.lstrip()[:_LONGEST].partition("\n")[0])
