"""The notebook that runs this program, if one does: outputs that are replaced while a cell runs.

IPython is neither needed nor imported: in a notebook's kernel it is there already.
"""

from __future__ import annotations

import sys
import uuid
from time import monotonic
from typing import Any

INTERVAL = 0.5
"""Seconds between two contents of an output: browsers and files of notebooks are spared the rest."""


def shell() -> Any | None:
    """Return IPython's shell if this program runs in a notebook's kernel, else None."""
    ipython = sys.modules.get("IPython")
    found = ipython.get_ipython() if ipython is not None else None
    return found if getattr(found, "kernel", None) is not None else None


class Output:
    """An output of the current cell whose content is replaced; in the next cell, a new output takes its place."""

    def __init__(self, notebook: Any) -> None:
        self._notebook = notebook
        self._cell: object = None
        self._id = ""
        self._shown = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the content is so old that it is time for another."""
        return monotonic() - self._shown >= INTERVAL

    def show(self, markup: str, text: str) -> None:
        """Show ``markup``; programs that show no HTML show ``text``."""
        cell = self._notebook.execution_count
        begins = not self._id or cell != self._cell
        if begins:
            self._cell, self._id = cell, uuid.uuid4().hex
        self._notebook.display_pub.publish(
            {"text/html": markup, "text/plain": text}, transient={"display_id": self._id}, update=not begins
        )
        self._shown = monotonic()
