"""The file of a benchmark's results: one JSON object a line, appended as soon as it is measured.

A second run with the same file measures only what it lacks, so an interrupted benchmark resumes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Records:
    """The results in ``path``, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._all: list[Record] = [json.loads(line) for line in lines if line.endswith("}")]  # a kill cuts the last
        if lines and not lines[-1].endswith("}"):
            path.write_text("".join(json.dumps(record) + "\n" for record in self._all), encoding="utf-8")

    def add(self, **record: Any) -> None:
        """Append a record."""
        self._all.append(record)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def of(self, **wanted: Any) -> list[Record]:
        """Return the records that have all of these values; "" and a missing value are the same."""
        return [r for r in self._all if all(r.get(name, "") == value for name, value in wanted.items())]
