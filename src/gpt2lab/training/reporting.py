"""Progress of a training run, shown on the console.

A terminal gets one line that is kept up to date, with lasting messages above it; elsewhere the lines are those of the
original ``train.py``. A trainer calls a :class:`Reporter`. This module knows nothing of models or files.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic
from typing import Any

from gpt2lab.errors import escaped, first_line
from gpt2lab.system.memory import peak_memory
from gpt2lab.training.interrupts import output_is_gone


@dataclass(frozen=True)
class Validation:
    """A validation after ``step`` updates; ``best`` if its loss is the lowest so far."""

    step: int
    seconds: float
    loss: float
    best: bool


@dataclass(frozen=True)
class Update:
    """An update of a run. Losses are in nats a token.

    Attributes:
        step: its number, from 1.
        last_step: the number of the update after which training ends.
        seconds: time since training began.
        loss: the mean loss of its targets; None if none of them is learned.
        average: a running mean of losses; None before the first loss.
        learning_rate: the learning rate it was made with.
        tokens: tokens read.
        tokens_per_second: its speed.
        validation: the validation after it, if there was one.
    """

    step: int
    last_step: int
    seconds: float
    loss: float | None
    average: float | None
    learning_rate: float
    tokens: int
    tokens_per_second: float
    validation: Validation | None = None


class Reporter:
    """A receiver of a trainer's progress; this one ignores it. Leaving its context closes what it opened."""

    @property
    def failure(self) -> str | None:
        """Why training cannot go on with this reporter, in a few words; None if it can."""
        return None

    def say(self, line: str) -> None:
        """Show a line that stays."""

    def status(self, text: str) -> None:
        """Show the current activity."""

    def progress(self, text: str, done: int, total: int) -> None:
        """Show the current activity, of which ``done`` parts of ``total`` are done."""

    def update(self, made: Update) -> None:
        """Report an update."""

    def validation(self, made: Validation) -> None:
        """Report a validation."""

    def saved(self) -> None:
        """Report that a state was saved."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        """Close what was opened."""


class Messages(Reporter):
    """A reporter that hands each line to ``say``, and leaves updates and validations to whoever iterates over them."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say

    def say(self, line: str) -> None:
        """Hand on ``line``."""
        self._say(line)


LONG = 5.0
"""Seconds of silence after which an activity is reported as long."""
INTERVAL = 30.0
"""Seconds between further reports of it, as in other long jobs."""


class Lines(Reporter):
    """A reporter that prints the original's lines on standard output; activities that take long have lines too."""

    def __init__(self) -> None:
        self._next = monotonic() + LONG

    def say(self, line: str) -> None:
        """Print ``line``; if nobody reads the output any more, ask training to end."""
        self._next = monotonic() + LONG
        try:
            print(escaped(line), flush=True)
        except OSError as error:
            output_is_gone(error)

    def progress(self, text: str, done: int, total: int) -> None:
        """Print a line after some seconds of silence, and then every half minute."""
        if monotonic() > self._next:
            self.say(f"{text} {done} of {total}")
            self._next = monotonic() + INTERVAL

    def update(self, made: Update) -> None:
        """Print ``[step | seconds] loss=… avg=…``."""
        average = f"avg={_number(made.average, '2.2f')}"
        self.say(f"[{made.step} | {made.seconds:2.2f}] loss={_number(made.loss, '2.2f')} {average}")

    def validation(self, made: Validation) -> None:
        """Print ``[step | seconds] validation loss = …``."""
        self.say(validation_line(made))


class TimeLeft:
    """The time left at the average pace since the first reported update, validations included."""

    def __init__(self) -> None:
        self._first: Update | None = None

    def after(self, made: Update) -> str:
        """Return the time left after an update, in words."""
        if self._first is None:
            self._first = made
            return "…"
        each = (made.seconds - self._first.seconds) / (made.step - self._first.step)
        return f"{clock(each * (made.last_step - made.step))} to go"


class Live(Reporter):
    """A reporter that keeps one line on a terminal up to date."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._console = Console(highlight=False, emoji=False)
        self._live = RichLive("", console=self._console, refresh_per_second=4, transient=True)
        self._numbers, self._status = "", ""
        self._time_left = TimeLeft()
        self._speed = 0.0

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Print ``line`` above the live line."""
        self._console.print(escaped(line), markup=False, soft_wrap=True)

    def status(self, text: str) -> None:
        """Show ``text`` at the end of the line until the next update."""
        self._status = text
        self._show()

    def progress(self, text: str, done: int, total: int) -> None:
        """Show progress at the end of the line until the next update."""
        self.status(f"{text} {done} of {total}")

    def update(self, made: Update) -> None:
        """Show step, loss, average, learning rate, speed, time to go and memory."""
        self._speed = 0.9 * self._speed + 0.1 * made.tokens_per_second if self._speed else made.tokens_per_second
        self._status = ""
        self._numbers = (
            f"{made.step}/{made.last_step}  loss {_number(made.loss, '.3f')}  avg {_number(made.average, '.3f')}  "
            f"lr {made.learning_rate:.1e}  {self._speed:,.0f} tokens/s  {self._time_left.after(made)}  "
            f"{peak_memory() / 2**30:.1f} GiB"
        )
        self._show()

    def validation(self, made: Validation) -> None:
        """Print the original's line above the live one."""
        self.say(validation_line(made) + (" (best so far)" if made.best else ""))

    def _show(self) -> None:
        from rich.text import Text

        shown = f"{self._numbers.partition('  ')[0]}  {self._status}" if self._status else self._numbers
        self._live.update(Text(shown.strip(), no_wrap=True))  # a status must not be cut off at the end of the line


class Dispensable(Reporter):
    """A reporter that training can do without: its first error is said, and from then on it is not called.

    Args:
        what: the name of what it writes.
        make: makes the reporter.
        say: receives the line about an error.
    """

    def __init__(self, what: str, make: Callable[[], Reporter], say: Callable[[str], object]) -> None:
        self._what, self._say = what, say
        self._reporter = Reporter()
        self._reporter = self._try(make) or self._reporter

    def __enter__(self) -> Dispensable:
        self._try(self._reporter.__enter__)
        return self

    def __exit__(self, *error: object) -> None:
        self._try(lambda: self._reporter.__exit__(*error))

    def update(self, made: Update) -> None:
        """Pass it on."""
        self._try(lambda: self._reporter.update(made))

    def validation(self, made: Validation) -> None:
        """Pass it on."""
        self._try(lambda: self._reporter.validation(made))

    def saved(self) -> None:
        """Pass it on."""
        self._try(self._reporter.saved)

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # of any package that writes such files
            self._reporter = Reporter()
            self._say(f"warning: cannot write {self._what} ({first_line(error)}): training continues without")
            return None


class Several(Reporter):
    """A reporter that passes everything on to several others."""

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters
        self._entered = ExitStack()

    def __enter__(self) -> Several:
        for reporter in self._reporters:
            self._entered.enter_context(reporter)
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)

    @property
    def failure(self) -> str | None:
        """The first failure of any."""
        return next((reporter.failure for reporter in self._reporters if reporter.failure), None)

    def say(self, line: str) -> None:
        """Pass the call on to all."""
        for reporter in self._reporters:
            reporter.say(line)

    def status(self, text: str) -> None:
        """Pass the call on to all."""
        for reporter in self._reporters:
            reporter.status(text)

    def progress(self, text: str, done: int, total: int) -> None:
        """Pass the call on to all."""
        for reporter in self._reporters:
            reporter.progress(text, done, total)

    def update(self, made: Update) -> None:
        """Pass the call on to all."""
        for reporter in self._reporters:
            reporter.update(made)

    def validation(self, made: Validation) -> None:
        """Pass the call on to all."""
        for reporter in self._reporters:
            reporter.validation(made)

    def saved(self) -> None:
        """Pass the call on to all."""
        for reporter in self._reporters:
            reporter.saved()


def _number(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)


def validation_line(made: Validation) -> str:
    """Return the original's line, with two more digits."""
    return f"[{made.step} | {made.seconds:2.2f}] validation loss = {made.loss:.4f}"


def clock(seconds: float) -> str:
    """Return a duration as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
