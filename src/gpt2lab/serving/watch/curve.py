"""A curve of any length in little memory: neighbouring points are merged as it grows.

Merging depends only on the points' steps, never on when the curve is read. This module knows nothing of files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MOST_ROWS = 2000
"""The most rows of a curve: more than a screen has columns to show."""

Row = list[float | None]
"""``[first, last, count, low_step, low, high, mean, …]``: the steps that a row covers, its number of points, the lowest
value with its step, the highest, and the means of the value and of those added with it (None: some points had none)."""

_FIRST, _LAST, _COUNT, _LOW_STEP, _LOW, _HIGH, _MEANS = range(7)


@dataclass(frozen=True)
class Seen:
    """The part of a curve that a client has: ``count`` rows of a ``layout``, which changes if an earlier row does."""

    version: int = -1
    layout: int = -1
    count: int = 0


class Curve:
    """Points ``(step, value, …)`` with ascending steps."""

    def __init__(self, most: int = MOST_ROWS) -> None:
        self.rows: list[list[float]] = []
        self._most = most
        self._stride = 1
        self._version = self._layout = 0

    def add(self, step: int, *values: float) -> None:
        """Add a point; its values except the first may be NaN. A repeated step removes that step and all after it."""
        rows = self.rows
        self._version += 1
        self.take_back(step)
        if rows and rows[-1][_FIRST] // self._stride == step // self._stride:
            _join(rows[-1], [step, step, 1, step, values[0], values[0], *values])
            return
        rows.append([step, step, 1, step, values[0], values[0], *values])
        while len(rows) > self._most:
            self._thin()

    def clear(self) -> None:
        """Forget all points."""
        self.rows.clear()
        self._stride = 1
        self._version += 1
        self._layout += 1

    @property
    def lowest(self) -> tuple[int, float] | None:
        """The first step with the lowest value, and that value."""
        if not self.rows:
            return None
        row = min(self.rows, key=lambda row: row[_LOW])
        return int(row[_LOW_STEP]), row[_LOW]

    def since(self, seen: Seen) -> tuple[Seen, dict[str, Any]] | None:
        """Return what a client lacks: ``rows`` to replace its own from row ``from`` on. None if nothing is new."""
        if seen.version == self._version:
            return None
        begin = max(0, seen.count - 1) if seen.layout == self._layout else 0  # the last row may have grown
        rows: list[Row] = [[_short(value) for value in row] for row in self.rows[begin:]]
        return Seen(self._version, self._layout, len(self.rows)), {"from": begin, "rows": rows}

    def take_back(self, step: int) -> None:
        """Remove ``step`` and all later steps; a row that also covers earlier ones keeps its values."""
        if not self.rows or step > self.rows[-1][_LAST]:
            return
        while self.rows and self.rows[-1][_FIRST] >= step:
            self.rows.pop()
        if self.rows:
            self.rows[-1][_LAST] = min(self.rows[-1][_LAST], step - 1)
        self._version += 1
        self._layout += 1

    def _thin(self) -> None:
        """Double the number of steps per row."""
        self._stride *= 2
        kept: list[list[float]] = []
        for row in self.rows:
            if kept and kept[-1][_FIRST] // self._stride == row[_FIRST] // self._stride:
                _join(kept[-1], row)
            else:
                kept.append(row)
        self.rows[:] = kept
        self._layout += 1


def _join(row: list[float], next_row: list[float]) -> None:
    """Merge ``next_row``, whose steps are later, into ``row``."""
    count = row[_COUNT] + next_row[_COUNT]
    share = next_row[_COUNT] / count
    row[_LAST], row[_COUNT] = next_row[_LAST], count
    if next_row[_LOW] < row[_LOW]:
        row[_LOW_STEP], row[_LOW] = next_row[_LOW_STEP], next_row[_LOW]
    if next_row[_HIGH] > row[_HIGH]:
        row[_HIGH] = next_row[_HIGH]
    for place in range(_MEANS, len(row)):
        row[place] += share * (next_row[place] - row[place])


def _short(value: float) -> float | None:
    """Round a value for JSON to six digits; None for NaN."""
    if isinstance(value, int):
        return value
    return float(f"{value:.6g}") if value == value else None
