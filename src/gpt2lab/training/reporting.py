"""Progress of a training run, told on the console.

On a terminal one line is kept up to date, and what is to stay goes above it; elsewhere lines are those of the
original ``train.py``. A trainer tells a :class:`Reporter`; knows nothing of models or files.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from gpt2lab.system.memory import peak_memory
from gpt2lab.training.interrupts import output_is_gone


@dataclass(frozen=True)
class Update:
    """An update that was made: the ``step``-th, ``seconds`` after training began. Losses are in nats a token."""

    step: int
    seconds: float
    loss: float
    average: float
    learning_rate: float
    tokens_per_second: float


@dataclass(frozen=True)
class Validation:
    """A validation after ``step`` updates; ``best`` if none had a lower loss."""

    step: int
    seconds: float
    loss: float
    best: bool


class Reporter:
    """What a trainer tells of; this one keeps it to itself. A context manager that ends what was begun."""

    def say(self, line: str) -> None:
        """A line to stay."""

    def status(self, text: str) -> None:
        """What is being done at the moment."""

    def update(self, made: Update) -> None:
        """An update was made."""

    def validation(self, made: Validation) -> None:
        """A validation was made."""

    def saved(self) -> None:
        """A state was saved."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""


class Lines(Reporter):
    """The original's lines on standard output."""

    def say(self, line: str) -> None:
        """Print it; if nobody reads it any more, training is asked to end."""
        try:
            print(line, flush=True)
        except OSError as error:
            output_is_gone(error)

    def update(self, made: Update) -> None:
        """``[step | seconds] loss=… avg=…``."""
        self.say(f"[{made.step} | {made.seconds:2.2f}] loss={made.loss:2.2f} avg={made.average:2.2f}")

    def validation(self, made: Validation) -> None:
        """``[step | seconds] validation loss = …``."""
        self.say(validation_line(made))


class Live(Reporter):
    """A line on a terminal that is kept up to date."""

    def __init__(self, last_step: int) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._last_step = last_step
        self._console = Console(highlight=False)
        self._live = RichLive("", console=self._console, refresh_per_second=4, transient=True)
        self._numbers, self._status = "", ""
        self._first: Update | None = None
        self._speed = 0.0

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Print it above the live line."""
        self._console.print(line, markup=False, soft_wrap=True)

    def status(self, text: str) -> None:
        """Show it at the end of the line until the next update."""
        self._status = text
        self._show()

    def update(self, made: Update) -> None:
        """Step, loss, average, learning rate, speed, time to go and memory."""
        self._speed = 0.9 * self._speed + 0.1 * made.tokens_per_second if self._speed else made.tokens_per_second
        self._status = ""
        self._numbers = (
            f"{made.step}/{self._last_step}  loss {made.loss:.3f}  avg {made.average:.3f}  "
            f"lr {made.learning_rate:.1e}  {self._speed:,.0f} tokens/s  {self._to_go(made)}  "
            f"{peak_memory() / 2**30:.1f} GiB"
        )
        self._show()

    def validation(self, made: Validation) -> None:
        """The original's line, above the live one."""
        self.say(validation_line(made) + (" (best so far)" if made.best else ""))

    def _to_go(self, made: Update) -> str:
        """Time to the end at the pace since the first update that was seen, validation and all."""
        if self._first is None:
            self._first = made
            return "…"
        each = (made.seconds - self._first.seconds) / (made.step - self._first.step)
        return f"{clock(each * (self._last_step - made.step))} to go"

    def _show(self) -> None:
        from rich.text import Text

        shown = f"{self._numbers.partition('  ')[0]}  {self._status}" if self._status else self._numbers
        self._live.update(Text(shown.strip(), no_wrap=True))  # a status must not be cut off at the end of the line


class Several(Reporter):
    """Tells several reporters the same."""

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters
        self._entered = ExitStack()

    def __enter__(self) -> Several:
        for reporter in self._reporters:
            self._entered.enter_context(reporter)
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)

    def say(self, line: str) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.say(line)

    def status(self, text: str) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.status(text)

    def update(self, made: Update) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.update(made)

    def validation(self, made: Validation) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.validation(made)

    def saved(self) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.saved()


def validation_line(made: Validation) -> str:
    """The original's, with two more digits."""
    return f"[{made.step} | {made.seconds:2.2f}] validation loss = {made.loss:.4f}"


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
