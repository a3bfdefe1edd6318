"""A job's parts: which are there, whether they belong to the job that is asked for, and the end, when all are.

What the parts depend on is kept beside them, so that a job that was interrupted goes on only as it was begun. Parts are
made by whoever comes to it and in any order; what one holds depends on its number alone, so a part that is made twice
is the same part. Knows nothing of what parts hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from gpt2lab.errors import UsageError
from gpt2lab.jobs.outputs import RECORD, Output

Settings = Mapping[str, Any]


def recorded_settings(output: Output) -> dict[str, Any] | None:
    """What the parts beside ``output`` were made with; None if no job was begun there."""
    parts = output.parts()
    if RECORD not in parts:
        if parts:
            raise UsageError(f"{output.parts_name} holds something else (it has no {RECORD}); give another --out")
        return None
    try:
        settings = json.loads(output.read(RECORD))["settings"]
    except (ValueError, LookupError, TypeError):
        settings = None
    if not isinstance(settings, dict):
        raise UsageError(f"{output.parts_name}/{RECORD} is damaged; --overwrite begins anew")
    return settings


class Parts:
    """The parts of one job.

    ``begin`` goes on with those that are there, or raises :class:`~gpt2lab.errors.UsageError` if they were made with
    other settings, unless ``overwrite`` lets them be removed.
    """

    def __init__(self, output: Output, count: int) -> None:
        self._output = output
        self._names = [f"part-{number:08d}" for number in range(count)]

    def begin(self, settings: Settings, *, overwrite: bool = False) -> list[int]:
        """Numbers of the parts that are still to be made."""
        if self._output.exists() and not overwrite:
            raise UsageError(f"{self._output.name} exists already; give another name or --overwrite")
        try:
            recorded = recorded_settings(self._output)
            self._check_same(recorded or settings, settings)
        except UsageError:
            if not overwrite or self._is_foreign():
                raise
            self._output.forget()
            recorded = None
        if recorded is None:
            self._output.write(RECORD, json.dumps({"settings": settings}, indent=1).encode())
        there = self._output.parts()
        return [number for number, name in enumerate(self._names) if name not in there]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """If the block ends with an error before there is any part, nothing of the job is left."""
        try:
            yield
        except BaseException:
            with suppress(UsageError):
                if self._output.parts() == {RECORD}:
                    self._output.forget()
            raise

    def state(self) -> str:
        """How far the job is, and how to go on, in a line."""
        there = len(self._output.parts() & set(self._names))
        if not there:
            return "stopped before a part was done: nothing is kept (a smaller --part_size keeps more)"
        return f"stopped with {there:,} of {len(self._names):,} parts done: the same command goes on from there"

    def add(self, number: int, data: bytes) -> None:
        """Keep a part."""
        self._output.write(self._names[number], data)

    def name_of(self, number: int) -> str:
        """What a part is called at the output, for those who write it there themselves."""
        return self._names[number]

    def finish(self, *, overwrite: bool = False) -> None:
        """Make the output of all parts, and remove them."""
        self._output.join(self._names, overwrite=overwrite)
        self._output.forget()

    def _is_foreign(self) -> bool:
        return RECORD not in self._output.parts()

    def _check_same(self, recorded: Settings, settings: Settings) -> None:
        for name in (*settings, *recorded):
            if (was := recorded.get(name)) != (now := settings.get(name)):
                what = name.replace("_", " ")
                told = f" ({was!r}, not {now!r})" if len(f"{was!r}{now!r}") < 60 else ""
                an = "" if what.endswith("s") else "an"
                raise UsageError(
                    f"{self._output.parts_name} was begun with {an}other {what}{told}: give the same, another --out, "
                    "or --overwrite to begin anew"
                )
