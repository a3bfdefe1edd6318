"""Fine-tuning from Python: :func:`finetune` turns its arguments into a run, which trains while you iterate over it.

The command line opens its runs here too, so both write the same folders and the same weights. This module imports torch
only when a run is opened.
"""

from __future__ import annotations

import operator
import os
import typing
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from inspect import GEN_RUNNING, getgeneratorstate
from pathlib import Path
from types import NoneType, TracebackType, UnionType
from typing import TYPE_CHECKING, Any, TypeAlias

from gpt2lab.config import ModelConfig
from gpt2lab.errors import UsageError
from gpt2lab.markup.notebook import shell
from gpt2lab.training.curve import LiveCurve, run_fragment
from gpt2lab.training.job import Given, Job
from gpt2lab.training.metrics import METRICS, read_metrics
from gpt2lab.training.reporting import Messages, Reporter, Update
from gpt2lab.training.settings import Settings

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel
    from gpt2lab.training.start import Session

Data: TypeAlias = str | os.PathLike[str] | Sequence[str] | Sequence[os.PathLike[str]] | Sequence[Mapping[str, str]]
"""A path as ``--dataset`` takes it, a list of :class:`~pathlib.Path`, a list of texts, or a list of rows."""


def finetune(
    model: str | os.PathLike[str] | ModelConfig,
    data: Data,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    learning_rate: float | None = None,
    lora: int = 0,
    validation: float | Data | None = 0.05,
    seed: int = 0,
    run_name: str = "run1",
    callbacks: Sequence[Callable[[Update], object]] = (),
    say: Callable[[str], object] = print,
    threads: int | None = None,
    **flags: Any,
) -> Run:
    """Prepare to fine-tune a model; iterate over the returned :class:`Run` to train.

    The same data, settings and seed give the weights that ``gpt2lab train`` gives, in the same folder
    ``checkpoint/RUN_NAME``. If the folder holds an unfinished run, it is resumed.

    Args:
        model: a name or a path, as for :func:`gpt2lab.load`; a shape starts from random weights.
        data: a path as ``--dataset`` takes it, a list of :class:`~pathlib.Path`, a list of texts, or a list of rows
            with ``prompt`` (not learned) and ``completion``.
        steps: total number of updates, those of a resumed run included.
        epochs: passes through the text, in place of ``steps``. By default 3, and at least 100 updates.
        learning_rate: peak learning rate; None chooses it from the model's width.
        lora: rank of the adapters to train; 0 trains all weights.
        validation: the share of the tokens to hold out for validation, or other data to validate with; None: neither.
        seed: seed of the weights, dropout, noise, held-out part and order of the text.
        run_name: name of the run's folder.
        callbacks: functions called with each update, after its validation.
        say: a function called with each message, such as the size of the data and the place of a saved state.
        threads: number of threads; None leaves the choice to PyTorch.
        flags: other flags of ``gpt2lab train`` by name, such as ``batch_size=8`` or ``checkpoint_dir="runs"``, except
            ``config`` and those that ``model``, ``data`` and ``validation`` replace.

    Raises:
        TypeError: for a keyword that is not a flag.
        UsageError: for a value that is out of range, or data without text; also if PyTorch is missing, or another
            process trains under this name.
        CheckpointError, DownloadError: if the model or the state to resume from cannot be read.
    """
    flags |= {"steps": steps, "epochs": epochs, "learning_rate": learning_rate, "lora": lora, "seed": seed}
    settings = Settings(**_taken(flags, Settings))
    share = float(validation or 0) if isinstance(validation, float | int | None) else None
    jobs = {
        "model_name": "" if isinstance(model, ModelConfig) else _model_name(model),
        "config": model if isinstance(model, ModelConfig) else None,
        "dataset": _dataset("data", data),
        "held_out": share or 0.0,
        "val_dataset": _validated(validation) if share is None else None,
        "run_name": run_name,
        "device": flags.pop("device", "auto"),
    }
    job = Job(**jobs, **_taken(flags, Job, but=jobs))
    if flags:
        raise TypeError(f"finetune() got an unexpected keyword argument {min(flags)!r}")
    return Run(open_session(job, settings, _reporter(say, job.run), threads), callbacks)


def _reporter(say: Callable[[str], object], run: Path) -> Reporter:
    """Return a reporter of messages, which in a notebook also shows the curve while the run trains."""
    notebook = shell()
    return Messages(say) if notebook is None else LiveCurve(say, notebook, run / METRICS)


class Run:
    """A training run. Iterating over it trains; each item is the :class:`~gpt2lab.training.reporting.Update` just made.

    You may leave the loop at any time: the run waits, and another loop continues it. :meth:`stop` saves a state and
    ends the run; leaving a ``with`` block does so too. Ctrl-C during an update finishes it, saves, and raises
    KeyboardInterrupt. Other processes cannot train under the run's name until it ends.

    Attributes:
        folder: the run folder, which :func:`gpt2lab.load` and every command take as a model.
    """

    def __init__(self, session: Session, callbacks: Sequence[Callable[[Update], object]] = ()) -> None:
        self.folder = session.trainer.run
        self._session, self._callbacks = session, callbacks
        self._updates = session.updates()

    def __repr__(self) -> str:
        return f"<Run {str(self.folder)!r}: {self._about()}>"

    def _repr_html_(self) -> str:
        """Return the curve of the losses for a notebook."""
        return run_fragment(self.folder.name, self.metrics, self.last_step, self._about())

    def _about(self) -> str:
        best = (
            ""
            if not self.step or self.best_step is None
            else f", best on held-out text after update {self.best_step:,}"
        )
        return f"update {self.step:,} of {self.last_step:,}, {self.outcome or 'not ended'}{best}"

    def __iter__(self) -> Iterator[Update]:
        return self

    def __next__(self) -> Update:
        trainer = self._session.trainer
        with trainer.interrupts:
            made = next(self._updates, None)
        if made is None:
            trainer.interrupts.pass_on()
            raise StopIteration
        for callback in self._callbacks:
            callback(made)
        return made

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def finish(self) -> None:
        """Train to the end."""
        for _ in self:
            pass

    def stop(self) -> None:
        """Save a state and end the run; the same call of :func:`finetune` resumes it.

        If another thread calls this during an update, that update is finished first.
        """
        self._session.trainer.stopping = True
        if getgeneratorstate(self._updates) != GEN_RUNNING:
            for _ in self._updates:
                pass

    @property
    def step(self) -> int:
        """The number of updates made."""
        return self._session.trainer.step

    @property
    def last_step(self) -> int:
        """The number of the update after which training ends."""
        return self._session.trainer.last_step

    @property
    def best_step(self) -> int | None:
        """The update with the lowest held-out loss, 0 for the model before training; None without validation."""
        trainer = self._session.trainer
        return None if trainer.validated is None else trainer.best_step

    @property
    def outcome(self) -> str | None:
        """Reason for the end: None before it, then ``finished``, ``no better`` (by ``patience``) or ``interrupted``.

        ``diverged``: the loss was no longer a number. ``ended before``: the folder already held a finished run. The
        folder's ``ended.json`` has it too, with a sentence.
        """
        return self._session.trainer.outcome

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The records in the folder's ``metrics.jsonl``, of updates (``loss``) and validations (``val_loss``)."""
        return list(read_metrics(self.folder / METRICS))

    @property
    def model(self) -> LanguageModel:
        """The best model so far on held-out text; without validation, the current one. Later updates leave it alone."""
        return self._session.model()


def open_session(job: Job, settings: Settings, reporter: Reporter, threads: int | None) -> Session:
    """Prepare this process for training with ``threads`` threads, import torch, and open a session.

    Raises :class:`UsageError` if PyTorch is missing or the folder of samples is not writable.
    """
    from gpt2lab.training.memory import prepare_process

    if settings.sample_every:
        _check_sample_dir(job.samples)
    prepare_process(threads)
    try:
        from gpt2lab.training import distributed, start
    except ModuleNotFoundError as error:
        raise UsageError(f"training needs {error.name}: pip install 'gpt2lab[train]'") from error
    distributed.use_threads(threads)
    return start.Session(job, settings, reporter)


def _check_sample_dir(folder: Path) -> None:
    """Raise :class:`UsageError` if the folder is not writable: before training, not after the first updates."""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:  # a parent folder that may not be read
        raise UsageError(f"cannot write samples into {folder}: {error.strerror or error}") from None
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UsageError(f"cannot write samples into {folder}: {there} is not a writable folder")


def _taken(flags: dict[str, Any], kind: type, but: Container[str] = ()) -> dict[str, Any]:
    """Take the values of ``kind``'s fields out of ``flags``, except those in ``but``; check and return them."""
    hints = typing.get_type_hints(kind)
    names = [field.name for field in fields(kind) if field.name in flags and field.name not in but]
    return {name: _checked(name, flags.pop(name), hints[name]) for name in names}


def _checked(name: str, value: Any, hint: Any) -> Any:
    """Return ``value`` as the type ``hint``. Raises :class:`UsageError` if it is of another type."""
    kinds = [hint] if typing.get_origin(hint) not in (typing.Union, UnionType) else typing.get_args(hint)
    if value is None and NoneType in kinds:
        return None
    kind = next(kind for kind in kinds if kind is not NoneType)
    if typing.get_origin(kind) is typing.Literal:
        if value not in (choices := typing.get_args(kind)):
            raise UsageError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        return value
    wanted, convert = _KINDS.get(kind, _KINDS[str])
    try:
        if isinstance(value, bool) and kind is not bool:
            raise TypeError
        return convert(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} must be {wanted}, got {value!r}") from None


def _number(value: Any) -> float:
    return float(value / 1)  # raises TypeError for a text


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _text(value: Any) -> str:
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError
    return text


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, [value] if isinstance(value, str) else value))


_KINDS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    int: ("a whole number", operator.index),
    float: ("a number", _number),
    bool: ("True or False", _flag),
    str: ("a string", _text),
    tuple[str, ...]: ("a string or a list of strings", _texts),
}


def _model_name(model: Any) -> str:
    try:
        return _text(model)
    except TypeError:
        raise UsageError(f"model must be a name, a path or a ModelConfig, got {model!r}") from None


def _dataset(name: str, data: Any) -> tuple[str, ...] | Given:
    """Return ``data`` as a job takes it. Raises :class:`UsageError` for anything but :data:`Data`."""
    if isinstance(data, str | os.PathLike):
        return (os.fspath(data),)
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise UsageError(f"{name} must be a path, a list of texts or a list of rows, got {data!r}")
    items = list(data)
    if items and all(isinstance(item, os.PathLike) for item in items):
        return tuple(map(os.fspath, items))
    records = tuple(_record(f"{name}[{number}]", item) for number, item in enumerate(items))
    if len({"text" in record for record in records}) > 1:
        raise UsageError(
            f"{name} has both texts and rows: give only texts, or only rows with 'prompt' and 'completion'"
        )
    return Given(records)


def _record(name: str, item: Any) -> dict[str, str]:
    """Return a text or a row as a record. Raises :class:`UsageError` if it is neither, or if it names a file."""
    if isinstance(item, str):
        if _is_file(item):
            raise UsageError(
                f"{name}, {item!r}, is the name of a file: give it as pathlib.Path({item!r}) to read the file"
            )
        return {"text": item}
    fields = ("prompt", "completion")
    if not isinstance(item, Mapping) or not all(isinstance(item.get(field), str) for field in fields):
        raise UsageError(
            f"{name} must be a string, or a row with the strings 'prompt' and 'completion', got {item!r:.80}"
        )
    return {field: item[field] for field in fields}


def _is_file(text: str) -> bool:
    try:
        return len(text) < 256 and Path(text).is_file()
    except (OSError, ValueError):  # a null character
        return False


def _validated(data: Any) -> str | Given:
    dataset = _dataset("validation", data)
    if isinstance(dataset, Given):
        return dataset
    if len(dataset) > 1:
        raise UsageError(f"validation must be one path, got {len(dataset)}: put the files into a folder")
    return dataset[0]
