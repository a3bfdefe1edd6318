"""The small JSON files of a run folder: its settings, the shape of its model, and why it ended.

Each is read again when it changes, and what it holds is checked: another program may have written it. This module
knows nothing of curves.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2lab.errors import escaped

SETTINGS, SHAPE, ENDED = "settings.json", "config.json", "ended.json"

TOLD = (
    "model_name", "dataset", "val_dataset", "steps", "stop_after", "patience", "batch_size", "accumulate_gradients",
    "block_size", "optimizer", "learning_rate", "schedule", "warmup_steps", "weight_decay", "dropout", "lora", "seed",
    "val_every", "save_every", "sample_every", "sample_prompt", "top_k", "top_p",
)  # fmt: skip
"""Settings of a run that clients receive; of paths, only the last part."""
_PATHS = ("model_name", "dataset", "val_dataset")

STATES = {
    "finished": "finished",
    "no better": "finished",
    "interrupted": "stopped",
    "diverged": "diverged",
    "failed": "failed",
}
"""The state of a run by the outcome in ``ended.json``."""

_MOST_BYTES = 1 << 20
_MOST_STEPS = 1 << 53  # beyond it a browser's numbers are not exact
_LARGEST = 1e300
_LONGEST_REASON = 500  # characters


class JsonFile:
    """The object in a JSON file; ``values`` is empty if there is none, or, with ``stays``, the last one that was."""

    def __init__(self, path: Path, *, stays: bool = False) -> None:
        self.values: dict[str, Any] = {}
        self._path, self._stays = path, stays
        self._stamp: tuple[int, ...] | None = None

    def look(self) -> None:
        """Read the file if it has changed."""
        found = stamp(self._path)
        if found != self._stamp and not (found is None and self._stays):
            self.values = _read(self._path)
        self._stamp = found


def stamp(path: Path) -> tuple[int, ...] | None:
    """Return a stamp that changes when the file does; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a number that JSON in a browser can hold: not NaN, infinite or a bool."""
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST


def as_step(value: Any) -> int | None:
    """Return ``value`` if it is the number of an update; else None."""
    return value if type(value) is int and 0 <= value < _MOST_STEPS else None


def vocabulary_of(shape: Mapping[str, Any]) -> int | None:
    """Return the number of tokens in a ``config.json``; None if it has none."""
    return as_step(shape.get("vocab_size")) or None


def end_of(record: Mapping[str, Any], last_step: int) -> dict[str, str] | None:
    """Return the ``state`` and the ``reason`` in an ``ended.json``.

    None if there is none, or if the run went on since: it has then made more updates than the record says.
    """
    state, reason, step = STATES.get(str(record.get("outcome"))), record.get("reason"), as_step(record.get("step"))
    if state is None or not isinstance(reason, str) or step is None or step < last_step:
        return None
    return {"state": state, "reason": escaped(reason)[:_LONGEST_REASON]}


def base_of(settings: Mapping[str, Any]) -> str | None:
    """Return the name of the model that a run fine-tunes, without its folder; None for one from random weights."""
    name = settings.get("model_name")
    if settings.get("config") is not None or not isinstance(name, str):
        return None
    return _last_part(name) or None


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def told(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run's settings that clients receive, without the folders of files on this machine."""

    def plain(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return ", ".join(str(plain(name, each)) for each in value[:20])
        if isinstance(value, str):
            return (_last_part(value) if name in _PATHS else value)[:200]
        return value if isinstance(value, bool) or is_number(value) else None

    found = {name: plain(name, settings[name]) for name in TOLD if name in settings}
    if settings.get("config") is not None:
        found.pop("model_name", None)  # a run from random weights has none
    return {name: value for name, value in found.items() if value not in (None, "")}
