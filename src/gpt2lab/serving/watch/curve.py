"""A curve of any length in little memory: neighbouring points are put together as it grows.

Which points go together depends on their steps alone, never on when one looked. Knows nothing of files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MOST_ROWS = 2000
"""Rows that a curve has at most; more than a screen has columns to show them in."""

Row = list[float | None]
"""``[first, last, count, low_step, low, high, mean, …]``: the steps that a row covers, how many points it has, the
lowest value with its step, the highest, and the means of the value and of what comes with it (None: some had none)."""

_FIRST, _LAST, _COUNT, _LOW_STEP, _LOW, _HIGH, _MEANS = range(7)


@dataclass(frozen=True)
class Seen:
    """How far somebody knows a curve: so many rows of a ``layout``, which changes when rows other than the last do."""

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
        """Add a point; its values but the first may be NaN. A step that was there takes back what came since."""
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
        """The step with the lowest value, the first of such, and that value."""
        if not self.rows:
            return None
        row = min(self.rows, key=lambda row: row[_LOW])
        return int(row[_LOW_STEP]), row[_LOW]

    def since(self, seen: Seen) -> tuple[Seen, dict[str, Any]] | None:
        """What somebody lacks: ``rows`` to take the place of theirs ``from`` a row on. None if that is nothing."""
        if seen.version == self._version:
            return None
        begin = max(0, seen.count - 1) if seen.layout == self._layout else 0  # the last one may have grown
        rows: list[Row] = [[_short(value) for value in row] for row in self.rows[begin:]]
        return Seen(self._version, self._layout, len(self.rows)), {"from": begin, "rows": rows}

    def take_back(self, step: int) -> None:
        """Forget ``step`` and all after it, as well as rows tell them apart."""
        if not self.rows or step > self.rows[-1][_LAST]:
            return
        while self.rows and self.rows[-1][_FIRST] >= step:
            self.rows.pop()
        if self.rows:
            self.rows[-1][_LAST] = min(self.rows[-1][_LAST], step - 1)
        self._version += 1
        self._layout += 1

    def _thin(self) -> None:
        """Twice as many steps to a row."""
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
    """Put ``next_row``, whose steps are later, into ``row``."""
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
    """As JSON gets it: six digits, and nothing for NaN."""
    if isinstance(value, int):
        return value
    return float(f"{value:.6g}") if value == value else None
