"""Choose the column of a table that has the text, and tell a header from a row of data."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gpt2lab.errors import UsageError

_NAME = re.compile(r"[^\W\d]\w{0,39}([ -]\w{1,20})?")  # the form of a column name


def choose_column(name: str, first_row: Sequence[str], second: Sequence[str], column: str | None) -> tuple[int, bool]:
    """Return the index of the column, and whether ``first`` is a header."""
    first = [cell.strip() for cell in first_row]  # "id, text" names the column text
    header = _is_header(first, second)
    wanted = "text" if column is None else column
    if wanted in first and (header or not (column is None or column.isdigit())):
        return first.index(wanted), True
    if column is not None and column.isdigit() and 1 <= int(column) <= len(first):
        return int(column) - 1, header
    if column is None and len(first) == 1:
        return 0, header
    names = ", ".join(first) if header else f"1 to {len(first)}"
    problem = "has several columns" if column is None else f"has no column {column!r}"
    raise UsageError(f"{name} {problem}; choose one with --column: {names}")


def _is_header(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether the first row looks like column names, and one is ``text`` or the second row does not."""
    if len(set(first)) < len(first) or not all(map(_looks_like_a_name, first)):
        return False
    return "text" in first or (bool(second) and not all(map(_looks_like_a_name, second)))


def _looks_like_a_name(cell: str) -> bool:
    return _NAME.fullmatch(cell.strip()) is not None
