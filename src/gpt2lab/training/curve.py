"""A training run for a notebook: its curve of losses, live while it trains, and a line about where it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpt2lab.markup.curves import Line, curve_chart
from gpt2lab.markup.fragment import faint, fragment, svg_picture
from gpt2lab.markup.html import escape
from gpt2lab.markup.notebook import Output
from gpt2lab.training.metrics import read_metrics
from gpt2lab.training.reporting import Messages, TimeLeft, Update, Validation

Record = dict[str, Any]


def run_fragment(name: str, records: Sequence[Record], last_step: int, about: str) -> str:
    """Return the chart of the losses in ``records``, those of ``metrics.jsonl``, and the line ``about`` the run."""
    title = f"Training of {name}: loss in nats a token"
    drawn = svg_picture(_chart(title, records, last_step), f"{title}. {about}") if records else ""
    return fragment(f"<h4>{escape(title)}</h4>{drawn}{faint(about)}")


def _chart(title: str, records: Sequence[Record], last_step: int) -> str:
    def points(name: str) -> list[tuple[float, float]]:
        return [(record["step"], record[name]) for record in records if name in record]

    lines = [
        Line("training", 1, points("loss"), thin=True),
        Line("training, running mean", 1, points("average")),
        Line("held out", 0, points("val_loss"), dots=True),
    ]
    return curve_chart(title, lines, "updates", last_step)


class LiveCurve(Messages):
    """A reporter in a notebook: ``say`` takes messages; the current activity and the curve are kept up to date."""

    def __init__(self, say: Callable[[str], object], notebook: Any, metrics: Path) -> None:
        super().__init__(say)
        self._output = Output(notebook)
        self._metrics = metrics
        self._records: list[Record] | None = None
        self._numbers, self._last_step = "", 0
        self._time_left = TimeLeft()

    def __exit__(self, *_: object) -> None:
        if self._records:
            self._show()

    def status(self, text: str) -> None:
        """Show ``text`` below the curve."""
        self._show(faint(text), text)

    def progress(self, text: str, done: int, total: int) -> None:
        """Show a bar below the curve."""
        if self._output.is_due:
            bar = f'<progress max="{total}" value="{done}"></progress>{escape(f"{text} {done:,} of {total:,}")}'
            self._show(f"<p>{bar}</p>", f"{text} {done} of {total}")

    def update(self, made: Update) -> None:
        """Add the update to the curve."""
        records = self._known()
        if made.loss is not None and made.average is not None:
            records.append({"step": made.step, "loss": made.loss, "average": made.average})
        self._last_step = made.last_step
        average = "none" if made.average is None else f"{made.average:.3f}"
        self._numbers = (
            f"update {made.step:,} of {made.last_step:,}, loss {average} (running mean), "
            f"{made.tokens_per_second:,.0f} tokens/s, {self._time_left.after(made)}"
        )
        if self._output.is_due:
            self._show()

    def validation(self, made: Validation) -> None:
        """Add the loss to the curve."""
        self._known().append({"step": made.step, "val_loss": made.loss})
        self._show()

    def _known(self) -> list[Record]:
        """Return the records so far; a resumed run begins with those of its file."""
        if self._records is None:
            self._records = list(read_metrics(self._metrics))
        return self._records

    def _show(self, more: str = "", text: str = "") -> None:
        markup = run_fragment(self._metrics.parent.name, self._records or (), self._last_step, self._numbers)
        self._output.show(markup.removesuffix("</div>") + more + "</div>", text or self._numbers)
