"""A job's parts: which exist, whether they belong to the requested job, and how they are joined at the end.

The settings that the parts depend on are kept beside them, so an interrupted job goes on only with the same settings.
Any worker may make any part, in any order: a part's content depends only on its number, so a part made twice is the
same. This module knows nothing of what parts hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from gpt2lab.errors import UsageError
from gpt2lab.jobs.outputs import RECORD, Output, part_name

Settings = Mapping[str, Any]


class Foreign(UsageError):
    """The folder of the parts holds files that no job made."""


def recorded_settings(output: Output) -> dict[str, Any] | None:
    """Return the settings of the parts beside ``output``; None if no job was begun there.

    Raises :class:`Foreign` if the folder is not a job's, and :class:`UsageError` if its record is damaged.
    """
    parts = output.parts()
    if RECORD not in parts:
        if parts:
            raise Foreign(f"{output.parts_name} is not the folder of a job (it has no {RECORD}); give another --out")
        return None
    try:
        record = json.loads(output.read(RECORD))
    except (ValueError, RecursionError):
        raise UsageError(f"{output.parts_name}/{RECORD} is damaged; give --overwrite to start again") from None
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        raise Foreign(f"{output.parts_name}/{RECORD} is not the record of a job; give another --out")
    settings: dict[str, Any] = record["settings"]
    return settings


class Parts:
    """The parts of one job.

    ``begin`` continues with the existing parts. If they were made with other settings, it raises
    :class:`~gpt2lab.errors.UsageError`, or removes them with ``overwrite``.
    """

    def __init__(self, output: Output, count: int) -> None:
        self._output = output
        self._names = [part_name(number) for number in range(count)]

    def begin(self, settings: Settings, *, overwrite: bool = False) -> list[int]:
        """Return the numbers of the parts still to be made."""
        if self._output.exists() and not overwrite:
            raise UsageError(f"{self._output.name} already exists; give another name or --overwrite")
        try:
            recorded = recorded_settings(self._output)
            self._check_same(recorded or settings, settings)
        except Foreign:
            raise
        except UsageError:
            if not overwrite:
                raise
            self._output.forget()
            recorded = None
        if recorded is None:
            self._output.write(RECORD, json.dumps({"settings": settings}, indent=1).encode())
        there = self._output.parts()
        return [number for number, name in enumerate(self._names) if name not in there]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Remove all traces of the job if the block ends with an error before there is any part."""
        try:
            yield
        except BaseException:
            with suppress(UsageError):
                if self._output.parts() == {RECORD}:
                    self._output.forget()
            raise

    def state(self) -> str:
        """Return a line about the job's progress and how to continue it."""
        there = len(self._output.parts() & set(self._names))
        if not there:
            return "stopped before the first part was complete: nothing was saved (a smaller --part_size saves sooner)"
        return f"stopped with {there:,} of {len(self._names):,} parts complete: run the same command again to resume"

    def add(self, number: int, data: bytes) -> None:
        """Keep a part."""
        self._output.write(self._names[number], data)

    def name_of(self, number: int) -> str:
        """Return a part's name at the output, for callers that write it themselves."""
        return self._names[number]

    def finish(self, *, overwrite: bool = False) -> None:
        """Join all parts into the output, and remove them."""
        self._output.join(self._names, overwrite=overwrite)
        self._output.forget()

    def _check_same(self, recorded: Settings, settings: Settings) -> None:
        for name in (*settings, *recorded):
            was = recorded.get(name, 1 if name == "contract" else None)  # records without a contract are of the first
            if was != (now := settings.get(name)):
                what = name.replace("_", " ")
                values = f" ({was!r}, not {now!r})" if len(f"{was!r}{now!r}") < 60 else ""
                a = "" if what.endswith("s") else "a "
                raise UsageError(
                    f"{self._output.parts_name} belongs to a job with {a}different {what}{values}: use the same, "
                    "another --out, or --overwrite to start again"
                )
