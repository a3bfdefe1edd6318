"""A line on stderr that shows the progress of a long generation. This module knows nothing of what is generated."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from time import monotonic

from gpt2lab.generation.completion import Piece

LONG = 5.0
"""Seconds after which a job is long, and its speed is reported at the end."""


class Progress:
    """A context manager that counts pieces as they pass, and reports the total at the end of a long job.

    ``total`` is the number of samples wanted; 0 or None means that there is no end. With ``live``, a line is updated
    twice a second on a terminal; where stderr is not a terminal, a line is written every half minute.
    """

    def __init__(self, total: int | None, *, live: bool) -> None:
        self._total = total
        self._live = live
        self._terminal = sys.stderr.isatty()
        self._interval = 0.5 if self._terminal else 30.0
        self._start = monotonic()
        self._shown = self._start
        self._tokens = 0
        self._samples = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live and self._terminal and self._shown > self._start:
            print("\r\033[K", end="", file=sys.stderr)
        if monotonic() - self._start > LONG:
            print(f"gpt2lab: {self._line()}", file=sys.stderr, flush=True)

    def watch(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Count ``pieces`` and yield them unchanged."""
        for piece in pieces:
            self._tokens += 1
            self._samples += piece.completion is not None
            if self._live and monotonic() - self._shown > self._interval:
                self._show()
            yield piece

    def _show(self) -> None:
        self._shown = monotonic()
        before, after = ("\r\033[K", "") if self._terminal else ("gpt2lab: ", "\n")
        print(before + self._line(), end=after, file=sys.stderr, flush=True)

    def _line(self) -> str:
        seconds = max(monotonic() - self._start, 1e-9)
        samples = f"{self._samples:,}" + (f" of {self._total:,}" if self._total else "")
        return f"{samples} samples, {self._tokens:,} tokens in {seconds:.1f} s ({self._tokens / seconds:.1f} tokens/s)"
