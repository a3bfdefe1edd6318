"""Documents of CSV and TSV: the cells of a column.

Rows that do not fit are skipped, counted and reported. A row with more cells than the first does not fit: an unquoted
comma has cut its text, and only a part of it would be read. In TSV a quote is an ordinary character.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

from gpt2lab.data.files import Reading
from gpt2lab.data.headers import choose_column
from gpt2lab.data.pieces import MAX_RECORD, Piece, Say, Skipped, lines_of
from gpt2lab.errors import UsageError


class Row(NamedTuple):
    """Cells, None for a malformed row, and the numbers of the first and last line."""

    cells: list[str] | None
    first: int
    last: int


def read_csv(blocks: Iterator[str], name: str, reading: Reading, say: Say) -> Iterator[Piece]:
    """Yield a column's cells. Raises :class:`UsageError` if there is no such column, or several and none was named."""
    # An unclosed quote would swallow the rest of the file.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD))
    lines = lines_of(blocks, name)
    first_line = next(lines, "")
    delimiter = max(",\t;|", key=lambda mark: len(next(csv.reader([first_line], delimiter=mark), [])))
    reader = csv.reader((line + "\n" for line in chain([first_line], lines)), delimiter=delimiter, strict=True)
    yield from _column(_rows(reader), name, reading, say)


def read_tsv(blocks: Iterator[str], name: str, reading: Reading, say: Say) -> Iterator[Piece]:
    """Yield a column's cells as :func:`read_csv` does; a line is a row, and only tabs separate cells."""
    lines = enumerate(lines_of(blocks, name), 1)
    rows = (Row(line.split("\t"), number, number) for number, line in lines if line)
    yield from _column(rows, name, reading, say)


def _rows(reader: Any) -> Iterator[Row]:
    """Yield rows that are not blank."""
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield Row(None, first, reader.line_num)
        else:
            if cells:
                yield Row(cells, first, reader.line_num)


def _column(rows: Iterator[Row], name: str, reading: Reading, say: Say) -> Iterator[Piece]:
    ahead = list(islice(rows, 2))
    if not ahead:
        return
    first = ahead[0].cells
    if first is None:
        raise UsageError(f"{name}, line 1: not a row of CSV (a quote may be missing)")
    index, header = choose_column(name, first, (ahead[1].cells if len(ahead) > 1 else None) or [], reading.column)
    heading = "the first line is a header" if header else "there is no header"
    say(f"{name}: column {first[index].strip() if header else index + 1} of {len(first)}; {heading}")
    skipped = Skipped(name, "rows", say, reading)
    for row in chain(ahead[1:] if header else ahead, rows):
        skipped.total += 1
        if row.cells is None:
            skipped.total += row.last - row.first
            skipped.add(_malformed(row), row.first, row.last - row.first + 1)
        elif len(row.cells) <= index:
            skipped.add("too short", row.first)
        elif len(row.cells) > len(first):
            skipped.add(f"with more than {len(first)} cells", row.first)
        elif not row.cells[index]:
            skipped.add_empty(row.first)
        else:
            yield Piece(row.cells[index], ends=True)
    skipped.report()


def _malformed(row: Row) -> str:
    if row.first == row.last:
        return "malformed"
    return f"swallowed by a quote that opens at line {row.first} and is not closed before line {row.last}"
