"""Files with the numbers of a training run: ``metrics.jsonl``, TensorBoard's events, pictures of the curve.

``metrics.jsonl`` has an object for each update (``step``, ``loss``, …) and each validation (``step``, ``val_loss``).
The other files need optional packages, and are left out without them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from gpt2lab.errors import CheckpointError
from gpt2lab.system.atomic import new_file, replace, write_file
from gpt2lab.system.memory import peak_memory
from gpt2lab.system.paths import printable
from gpt2lab.training.reporting import Dispensable, Reporter, Update, Validation

METRICS = "metrics.jsonl"


def file_reporters(run: Path, step: int, say: Callable[[str], object] = lambda line: None) -> list[Reporter]:
    """Return reporters for all files that can be written here; the run has made ``step`` updates, 0 if it is new.

    ``say`` receives a line for each file that cannot be written after all. Training needs only ``metrics.jsonl``.
    """
    reporters: list[Reporter] = [Metrics(run, step)]
    if find_spec("tensorboard") and printable(run) == str(run):  # its files cannot have a name that is not UTF-8
        reporters.append(Dispensable("TensorBoard's events", lambda: TensorBoard(run, step), say))
    if find_spec("matplotlib"):
        reporters.append(Dispensable("losses.svg and losses.png", lambda: Curve(run), say))
    return reporters


class Metrics(Reporter):
    """A reporter that writes ``metrics.jsonl``, after dropping records beyond ``step``: those updates are repeated."""

    def __init__(self, run: Path, step: int) -> None:
        self._path = run / METRICS
        self._failure: str | None = None
        try:
            if step == 0 and self._path.exists():  # from an earlier training under the same name
                replace(self._path, _unused(run))
            cut_back(self._path, step)
            self._file = self._open()
        except OSError as error:
            raise CheckpointError(f"cannot write {self._path}: {error.strerror or error}") from None

    def _open(self) -> IO[str]:
        return self._path.open("a", encoding="utf-8", newline="\n")

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # after a failure, the rest of a record cannot be written either
            self._file.close()

    @property
    def failure(self) -> str | None:
        """The error of the first record that could not be written; later ones are left out."""
        return self._failure

    def update(self, made: Update) -> None:
        """Add an object."""
        if made.loss is None or made.average is None:  # an update without a loss is no point of any curve
            return
        self._add(
            step=made.step,
            seconds=round(made.seconds, 3),
            loss=made.loss,
            average=made.average,
            learning_rate=made.learning_rate,
            tokens_per_second=round(made.tokens_per_second, 1),
            memory=peak_memory(),
        )

    def validation(self, made: Validation) -> None:
        """Add an object."""
        self._add(step=made.step, seconds=round(made.seconds, 3), val_loss=made.loss)

    def _add(self, **record: float) -> None:
        if self._failure is not None:
            return
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            self._failure = f"cannot write {self._path}: {error.strerror or error}"


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a ``metrics.jsonl``; none without such a file. Lines cut short by a kill are skipped."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield record


def cut_back(path: Path, step: int) -> None:
    """Keep only the records of the first ``step`` updates in a ``metrics.jsonl``."""
    if path.exists():
        kept = [json.dumps(record) + "\n" for record in read_metrics(path) if record["step"] <= step]
        write_file(path, "".join(kept).encode(), sync=False)


def _unused(run: Path) -> Path:
    """Return a free name for the metrics of an earlier training, which are kept."""
    number = 1
    while (path := run / f"metrics-{number}.jsonl").exists():
        number += 1
    return path


class TensorBoard(Reporter):
    """A reporter that writes events under the original's tags: ``loss``, ``val_loss``, ``learning_rate``."""

    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run), purge_step=step + 1)

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def update(self, made: Update) -> None:
        """Add loss and learning rate."""
        if made.loss is not None:
            self._writer.add_scalar("loss", made.loss, made.step)
        self._writer.add_scalar("learning_rate", made.learning_rate, made.step)

    def validation(self, made: Validation) -> None:
        """Add the loss."""
        self._writer.add_scalar("val_loss", made.loss, made.step)

    def saved(self) -> None:
        """Flush the events to disk."""
        self._writer.flush()


class Curve(Reporter):
    """A reporter that draws ``losses.svg`` and ``losses.png`` again at each save."""

    def __init__(self, run: Path) -> None:
        self._run = run

    def saved(self) -> None:
        """Draw the pictures."""
        files = [self._run / "losses.svg", self._run / "losses.png"]
        draw_losses(list(read_metrics(self._run / METRICS)), files, printable(self._run.name))


MOST_POINTS = 2000  # per line: more cannot be seen, and the time to draw grows with their number


def draw_losses(records: list[dict[str, Any]], files: list[Path], title: str) -> None:
    """Draw training and held-out loss over updates into files; suffixes set their formats. Needs matplotlib."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    trained = [(record["step"], record["loss"], record["average"]) for record in records if "loss" in record]
    trained = trained[:: len(trained) // MOST_POINTS + 1]
    held_out = [(record["step"], record["val_loss"]) for record in records if "val_loss" in record]
    if trained:
        steps, losses, averages = zip(*trained, strict=True)
        axes.plot(steps, losses, color="#9ecae1", linewidth=0.8, label="training")
        axes.plot(steps, averages, color="#2171b5", linewidth=1.6, label="training, running mean")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), color="#d94801", marker="o", markersize=3, label="held out")
    axes.set(xlabel="updates", ylabel="loss (nats a token)")
    axes.set_title(title, parse_math=False)  # a name may contain dollar signs
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if trained or held_out:
        axes.legend(frameon=False)
    for file in files:
        with new_file(file, sync=False) as out:
            figure.savefig(out, format=file.suffix.removeprefix("."), dpi=150)
