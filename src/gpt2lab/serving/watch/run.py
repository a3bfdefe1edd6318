"""Training runs watched from outside: their progress, read from their folders.

This module reads what ``gpt2lab train`` writes (``metrics.jsonl``, ``settings.json``, ``ended.json``, ``samples-*``),
whether training has not begun, is running or ended long ago, and keeps little of it however long the run. It writes
nothing, and knows nothing of HTTP.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from gpt2lab.errors import UsageError
from gpt2lab.serving.watch import described
from gpt2lab.serving.watch.curve import Curve, Seen
from gpt2lab.serving.watch.described import JsonFile, as_step, is_number, stamp
from gpt2lab.serving.watch.files import Lines, Samples, Tail, is_folder, list_samples, read_samples
from gpt2lab.system.locks import is_held
from gpt2lab.system.paths import printable

METRICS = "metrics.jsonl"

RECENT = 200
"""Number of updates over which speed and pace are averaged."""
QUIET_SECONDS = 60.0
QUIET_PACES = 20.0
"""A run whose process cannot be seen is quiet after QUIET_SECONDS and QUIET_PACES times its pace without a line."""
_NUMBERS = ("loss", "val_loss", "seconds", "average", "learning_rate", "tokens_per_second", "memory")


@dataclass
class Cursor:
    """The part of a run's news that a client has already received."""

    updates: Seen = field(default_factory=Seen)
    validations: Seen = field(default_factory=Seen)
    told: dict[str, Any] = field(default_factory=dict)


class Run:
    """A run folder, which need not exist. :meth:`look` reads it, :meth:`news` reports; any thread may call both."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder.absolute()
        self._lock = threading.Lock()
        self._tail = Tail(self.folder / METRICS)
        self._settings = JsonFile(self.folder / described.SETTINGS, stays=True)
        self._shape = JsonFile(self.folder / described.SHAPE, stays=True)
        self._ended = JsonFile(self.folder / described.ENDED)
        self._samples: list[tuple[int, str]] = []
        self._model = self.folder / "model.safetensors"
        self._served: str | None = None
        self._beside: frozenset[str] = frozenset()
        self._loaded: tuple[int, ...] | None = None
        self._newer = False
        self._held: bool | None = None
        self._was_held = False
        self._there = False
        self._problem: str | None = None
        self._begin_anew()

    def look(self) -> bool:
        """Read what is new; return whether there is more to read now."""
        with self._lock:
            try:
                lines = self._tail.read()
                self._problem = None
            except OSError as error:
                lines, self._problem = None, f"cannot read {METRICS}: {error.strerror or error}"
            self._there = lines is not None
            if lines is not None:
                self._take(lines)
            if lines is None or not lines.more:
                self._look_around()
            return lines is not None and lines.more

    def news(self, cursor: Cursor) -> dict[str, Any] | None:
        """Return what is new since ``cursor``, for JSON, and advance ``cursor``; None if nothing is."""
        with self._lock:
            facts = self._facts()
            news = {name: value for name, value in facts.items() if cursor.told.get(name, cursor) != value}
            cursor.told = facts
            for name, curve in (("updates", self._updates), ("validations", self._validations)):
                if found := curve.since(getattr(cursor, name)):
                    seen, news[name] = found
                    setattr(cursor, name, seen)
            return {"run": self.name, **news} if news else None

    def samples(self, step: int) -> Samples | None:
        """Return the samples written after ``step`` updates; None if there are none."""
        return read_samples(self._samples_folder(), step)

    @property
    def has_model(self) -> bool:
        """Whether training has written a model yet."""
        return stamp(self._model) is not None

    def serve(self, name: str | None, served: Collection[str]) -> None:
        """Note that a server has just loaded the run's model under ``name`` (None: it has not), and ``served`` in all.

        Call this before any thread looks at the run.
        """
        self._served, self._beside, self._loaded = name, frozenset(served), stamp(self._model)

    # ---- reading

    def _begin_anew(self) -> None:
        self._updates, self._validations = getattr(self, "_updates", Curve()), getattr(self, "_validations", Curve())
        self._updates.clear()
        self._validations.clear()
        self._recent: deque[tuple[int, float, float]] = deque(maxlen=RECENT)  # step, seconds, tokens/s
        self._last: dict[str, Any] = {}
        self._last_validation: dict[str, Any] | None = None
        self._unread = 0
        self._part = 1.0
        self._changed_at: float | None = None

    def _take(self, lines: Lines) -> None:
        if lines.anew:
            self._begin_anew()
        for record in _records(lines.lines):
            if record is None:
                self._unread += 1
            elif "loss" in record:
                self._take_update(record)
            else:
                self._take_validation(record)
        self._part, self._changed_at = lines.part, lines.changed_at

    def _take_update(self, record: dict[str, Any]) -> None:
        step, rate, speed = record["step"], record.get("learning_rate"), record.get("tokens_per_second")
        if self._last and step <= self._last["step"]:
            self._validations.take_back(step)
            self._recent.clear()
        self._updates.add(step, record["loss"], _or_nan(rate), _or_nan(speed))
        self._recent.append((step, _or_nan(record.get("seconds")), _or_nan(speed)))
        self._last = record

    def _take_validation(self, record: dict[str, Any]) -> None:
        self._validations.add(record["step"], record["val_loss"])
        self._last_validation = {"step": record["step"], "loss": record["val_loss"]}

    def _look_around(self) -> None:
        """Read the small files, the list of samples, and whether a process holds the folder."""
        for file in (self._settings, self._shape, self._ended):
            file.look()
        self._newer = stamp(self._model) != self._loaded
        self._samples = list_samples(self._samples_folder())
        self._held = is_held(self.folder)
        self._was_held = self._was_held or bool(self._held)

    def _samples_folder(self) -> Path:
        """Return the folder of the run's samples: :class:`Job`'s folders are relative to where training was started."""
        of_runs, of_samples = (
            PurePath(str(self._settings.values.get(name) or default))
            for name, default in (("checkpoint_dir", "checkpoint"), ("sample_dir", "samples"))
        )
        bases = [self.folder.parent.parent, Path.cwd()]
        beneath = (*of_runs.parts, self.folder.name)
        if not of_runs.is_absolute() and self.folder.parts[-len(beneath) :] == beneath:
            bases.insert(0, Path(*self.folder.parts[: -len(beneath)]))
        folders = [base / of_samples / self.folder.name for base in bases]
        return next((folder for folder in folders if is_folder(folder)), folders[0])

    # ---- reporting

    def _facts(self) -> dict[str, Any]:
        """Return everything to report except the curves."""
        last = self._last
        state = self._state()
        facts = {name: last.get(name) for name in ("step", "seconds", "loss", "average", "learning_rate", "memory")}
        return {
            **facts,
            "state": state,
            "problem": self._problem,
            "reading": round(self._part, 3) if self._part < 1 else None,
            "unread": self._unread,
            "changed_at": self._changed_at,
            "last_step": self._last_step,
            "tokens_per_second": _mean(speed for _, _, speed in self._recent),
            "ends_at": self._ends_at() if state == "running" else None,
            "validation": self._last_validation if self._validations.rows else None,
            "best": _step_and_loss(self._validations.lowest),
            "settings": described.told(self._settings.values),
            "vocabulary": described.vocabulary_of(self._shape.values),
            "reason": self._end["reason"] if self._end and self._end["state"] == state else None,
            "served": self._serving(),
            "samples": [list(each) for each in self._samples],
        }

    def _serving(self) -> dict[str, Any] | None:
        """Return the run's ``model`` on this server, whether the folder has a ``newer`` one, and its ``base``."""
        base = described.base_of(self._settings.values)
        if self._served is None:
            return None
        return {"model": self._served, "newer": self._newer, "base": base if base in self._beside else None}

    def _state(self) -> str:
        """Return ``waiting``, ``starting``, ``running``, ``quiet`` or ``gone``, or how training ended.

        ``finished``, ``diverged``, ``failed`` and ``stopped`` are what the trainer wrote; without its word, ``stopped``
        if no process holds the folder, but one did. ``quiet``: nothing is new, and the reason is unknown.
        """
        if not self._there and (self._last or self._last_validation):
            return "gone"
        if self._held:
            return "running" if self._last else "starting"
        if self._end:
            return self._end["state"]
        if not self._last:
            return "starting" if is_folder(self.folder) else "waiting"
        finished = self._last_step is not None and self._last["step"] >= self._last_step
        if finished:
            return "finished"
        if self._was_held:
            return "stopped"
        silence = time.time() - (self._changed_at or 0.0)
        return "quiet" if silence > max(QUIET_SECONDS, QUIET_PACES * (self._pace() or 0.0)) else "running"

    @property
    def _end(self) -> dict[str, str] | None:
        """The end that the trainer has recorded."""
        return described.end_of(self._ended.values, self._last.get("step", 0))

    @property
    def _last_step(self) -> int | None:
        """The update after which training ends."""
        limits = [as_step(self._settings.values.get(name)) for name in ("steps", "stop_after")]
        return min((limit for limit in limits if limit), default=None)

    def _pace(self) -> float | None:
        """Return the seconds from one update to the next, validation included."""
        if len(self._recent) < 2:
            return None
        (first, began, _), (last, ended, _) = self._recent[0], self._recent[-1]
        pace = (ended - began) / (last - first)
        return pace if pace >= 0 else None  # None for NaN too

    def _ends_at(self) -> float | None:
        """Return when the last update will be made at the recent pace, in Unix seconds."""
        pace, last_step = self._pace(), self._last_step
        if pace is None or last_step is None or self._changed_at is None:
            return None
        return round(self._changed_at + pace * (last_step - self._last["step"]), 1)


def open_runs(paths: Sequence[str]) -> list[Run]:
    """Return the runs in ``paths``, each named by the last part of its path, or by more parts if several share it.

    Raises :class:`~gpt2lab.errors.UsageError` for a file, or a folder of run folders.
    """
    folders = list(dict.fromkeys(Path(path).absolute() for path in paths))
    for folder in folders:
        _check_folder(folder)
    return [Run(folder, _name(folder, folders)) for folder in folders]


def _check_folder(folder: Path) -> None:
    try:
        if folder.is_file():
            raise UsageError(f"{folder} is a file: give --watch a run folder, such as checkpoint/run1")
        inside = [] if (folder / METRICS).exists() else sorted(folder.glob(f"*/{METRICS}"))
    except OSError:
        return  # not readable: the page says so
    if inside:
        raise UsageError(f"{folder} contains run folders but is not one: use --watch {inside[0].parent}")


def _name(folder: Path, folders: Sequence[Path]) -> str:
    """Return the fewest last parts of a path that no other path ends with."""
    for count in range(1, len(folder.parts)):
        ending = folder.parts[-count:]
        if sum(other.parts[-count:] == ending for other in folders) == 1:
            return printable("/".join(ending))
    return printable(folder.as_posix())


def _records(lines: list[bytes]) -> Iterator[dict[str, Any] | None]:
    """Yield the object of each line, with a ``step`` and a finite ``loss`` or ``val_loss``; None for other lines."""
    texts = [text for line in lines if (text := line.decode("utf-8", "replace").strip())]
    try:
        values = json.loads(f"[{','.join(texts)}]")  # all at once, which takes half the time
    except (ValueError, RecursionError):
        values = [_parsed(text) for text in texts]
    for value in values:
        yield _checked(value) if isinstance(value, dict) else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _checked(record: dict[str, Any]) -> dict[str, Any] | None:
    step = as_step(record.get("step"))
    numbers = {name: value for name in _NUMBERS if is_number(value := record.get(name))}
    if step is None or not ("loss" in numbers or "val_loss" in numbers):
        return None
    return {**numbers, "step": step}


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _mean(values: Iterable[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return round(sum(known) / len(known), 1) if known else None


def _step_and_loss(found: tuple[int, float] | None) -> dict[str, Any] | None:
    return {"step": found[0], "loss": found[1]} if found else None
