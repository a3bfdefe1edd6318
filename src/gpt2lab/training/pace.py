"""The number of updates that a run with a deadline will make, from the time that its updates take.

Schedules count updates, so a deadline is converted into a number of updates after each update. If the machine becomes
faster or slower, more or fewer are left, and the learning rate still reaches its final value in time. This module knows
nothing of what an update does.
"""

from __future__ import annotations

from collections import deque

RECENT = 50  # updates whose times are averaged


class Pace:
    """The pace of a run of at most ``steps`` updates, which ends after ``minutes`` of training unless that is 0.

    Interruptions do not count.
    """

    def __init__(self, minutes: float, steps: int) -> None:
        self._end, self._most = 60 * minutes, steps  # seconds, updates
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._between = 0.0  # seconds in all that passed between updates, while the run validated and saved
        self._count = 0
        self.last = steps
        """The number of the last update, estimated from the pace."""
        self.reserve = 0.0
        """Seconds that the last validation will take."""

    def took(self, update: float, before: float) -> None:
        """Note the seconds of an update, and those between the one before it and its beginning."""
        self._recent.append(update)
        self._between += before
        self._count += 1

    def plan(self, step: int, seconds: float) -> None:
        """Set :attr:`last`, now that ``step`` updates are made and ``seconds`` of training have passed.

        It is ``step`` if there is no time for another. Before the first update of a process, the mean of the earlier
        ones stands for the pace.
        """
        left = self._end - seconds - self.reserve
        if left <= 0:
            self.last = step
        elif self._recent or step:
            mean = sum(self._recent) / len(self._recent) + self._between / self._count if self._recent else None
            each = seconds / step if mean is None else mean
            self.last = min(self._most, step + int(left / max(each, 1e-9)))
