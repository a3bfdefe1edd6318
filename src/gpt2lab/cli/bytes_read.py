"""A line on stderr that shows how much of a dataset has been read."""

from __future__ import annotations

import sys
import time
from typing import Any

from gpt2lab.cli.output import megabytes
from gpt2lab.errors import escaped


class BytesRead:
    """A context manager that reports on stderr how much of a dataset has been read.

    ``total`` is in bytes, 0 if unknown. On a terminal the line is kept up to date; elsewhere a line is written every
    half minute. A last one follows if reading took longer than five seconds.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._terminal = sys.stderr.isatty()
        self._interval = 0.2 if self._terminal else 30.0
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> BytesRead:
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._terminal and self._shown > self._start:
            print("\r\033[K", end="", file=sys.stderr)
        if time.monotonic() - self._start > 5:
            print(f"gpt2lab: {self._line()}", file=sys.stderr, flush=True)

    def add(self, count: int) -> None:
        """Count ``count`` more bytes as read."""
        self._done += count
        now = time.monotonic()
        if now - self._shown > self._interval:
            self._shown = now
            before, after = ("\r\033[K", "") if self._terminal else ("gpt2lab: ", "\n")
            print(before + self._line(), end=after, file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """Print a separate line."""
        print(("\r\033[K" if self._terminal else "") + escaped(line), file=sys.stderr, flush=True)

    def _line(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-9)
        of = f" of {megabytes(self._total)} ({self._done / self._total:.0%})" if self._total else ""
        rate = self._done / seconds
        left = max(0, self._total - self._done) / rate if rate else 0
        time_left = f", {left:.0f} s left" if left >= 1 else ""
        return f"{megabytes(self._done)}{of} in {seconds:.0f} s, {rate / 1e6:.1f} MB/s{time_left}"
