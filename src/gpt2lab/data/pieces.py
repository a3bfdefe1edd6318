"""Pieces of documents, the form in which every reader of text yields them, and the count of records left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gpt2lab.data.files import Reading
from gpt2lab.errors import UsageError

Say = Callable[[str], None]

ENOUGH = 1000
"""Lost records after which a reader gives up, if they are also most of the records so far: the rest may take hours."""
MAX_RECORD = 1 << 24
"""The most characters of a record, held in memory as a whole. Text files have no records, and any length."""
_LINES = 5  # lines of skipped records named in a report


class Piece(NamedTuple):
    """Part of a document; ``ends`` marks the last part, ``trained`` a part that is trained on."""

    text: str
    ends: bool
    trained: bool = True


def lines_of(blocks: Iterator[str], name: str) -> Iterator[str]:
    """Yield lines without their line ends. Raises :class:`UsageError` for one that is longer than a record may be."""
    held: list[str] = []
    size = number = 0
    for block in blocks:
        first, *others = block.split("\n")
        held.append(first)
        size = len(others[-1]) if others else size + len(first)
        number += len(others)
        if size > MAX_RECORD:
            raise UsageError(f"{name}, line {number + 1}: longer than the {MAX_RECORD:,} characters of a record")
        if others:
            yield "".join(held)
            yield from others[:-1]
            held = [others[-1]]
    if any(held):
        yield "".join(held)


class Skipped:
    """A count of skipped records, by reason, with the lines of the first ones.

    ``total`` is the number of records so far, skipped or not, which the reader keeps.
    """

    def __init__(self, name: str, what: str, say: Say, reading: Reading) -> None:
        self.total = 0
        self._name, self._what, self._say = name, what, say
        self._tolerance = 1.0 if reading.errors == "skip" else reading.tolerance
        self._reasons: Counter[str] = Counter()
        self._lines: list[int] = []
        self._lost = 0

    def add(self, reason: str, line: int, count: int = 1) -> None:
        """Count ``count`` records from ``line`` on, whose text is lost.

        Raises :class:`UsageError` once at least :data:`ENOUGH` records, and most of those so far, are lost.
        """
        self._lost += count
        self._add(reason, line, count)
        if self._lost >= ENOUGH and self._lost > self.total / 2:
            self._check("the first ")

    def add_empty(self, line: int) -> None:
        """Count a record without text: nothing is lost."""
        self._add("empty", line, 1)

    def _add(self, reason: str, line: int, count: int) -> None:
        self._reasons[reason] += count
        if len(self._lines) < _LINES:
            self._lines.append(line)

    def report(self) -> None:
        """Report the skipped records, if any; raises :class:`UsageError` if too many are lost."""
        if self._reasons:
            self._check()
            self._say(self._line())

    def _check(self, of: str = "") -> None:
        if self._lost > self._tolerance * self.total:
            limit = f"that is more than {100 * self._tolerance:g} %: " if self._tolerance else ""
            raise UsageError(f"{self._line(of)}; {limit}correct the file, or skip them with --errors skip")

    def _line(self, of: str = "") -> str:
        skipped = sum(self._reasons.values())
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self._reasons.most_common())
        lines = ", ".join(map(str, self._lines)) + (", …" if 1 < len(self._lines) < skipped else "")
        return f"{self._name}: {skipped:,} of {of}{self.total:,} {self._what} skipped, at line {lines}: {reasons}"
