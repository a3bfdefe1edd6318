"""Step times by number of rows: learnt from past steps, used by speculation."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

MAX_ROWS = 32
"""The most rows of a step with guesses: about where a step's time begins to grow in proportion to its rows."""

ROW_COST = 0.07
"""Time of one more row, relative to a step of one row; used until steps have been timed."""

SMOOTH = 0.1
"""Weight of one step in the estimates of time."""

_TOLERANCE = 0.03  # relative change of an estimate that is worth a new table


class StepTimes:
    """The seconds that a step of N rows takes, learnt from past steps."""

    def __init__(self) -> None:
        self._measured: dict[int, float] = {}  # rows -> seconds, smoothed
        self._table: list[float] = []

    def observe(self, rows: int, seconds: float) -> None:
        """Record a step of ``rows`` rows. A step much slower than expected met a busy machine and counts for little."""
        if rows > MAX_ROWS:
            return
        if not self._measured:
            self._measured[rows] = seconds
            return
        expected = self._measured.get(rows) or self.table()[rows]
        weight = SMOOTH if rows in self._measured else 0.5
        self._measured[rows] = expected + weight * (min(seconds, 2 * expected) - expected)
        if self._table and abs(self._measured[rows] / self._table[rows] - 1) > _TOLERANCE:
            self._table = []

    def table(self) -> list[float]:
        """Return the seconds for 0 to :data:`MAX_ROWS` rows.

        They lie on straight lines between measured numbers of rows; beyond the first and last, :data:`ROW_COST` gives
        the slope.
        """
        if not self._table:
            known = sorted(self._measured.items()) or [(1, 1.0)]
            first, last = known[0], known[-1]
            slopes = [_assumed_slope(*first)]
            slopes += [(s1 - s0) / (r1 - r0) for (r0, s0), (r1, s1) in pairwise(known)]
            slopes.append(_assumed_slope(*last))
            rows = [row for row, _ in known]
            for row in range(MAX_ROWS + 1):
                segment = bisect_right(rows, row)
                at, seconds = known[max(0, segment - 1)]
                self._table.append(seconds + (row - at) * slopes[segment])
        return self._table


def _assumed_slope(rows: int, seconds: float) -> float:
    """Return the seconds that one more row takes if a step of ``rows`` rows takes ``seconds``."""
    return seconds * ROW_COST / (1 + ROW_COST * (rows - 1))
