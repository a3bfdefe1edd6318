"""Read text files, JSON lines and CSV of any size as a stream of pieces of documents.

A ``.txt`` file is one document, or several with ``<|endoftext|>`` spelled out between them; each JSON object and each
row of CSV is one document. Unusable records are skipped, counted and reported. If the first record is unusable, the
options do not fit the file, and that is an error. Knows nothing of tokens.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from gpt2lab.bpe import END_OF_TEXT_MARKER
from gpt2lab.data.cuts import last_cut
from gpt2lab.data.files import OnBytes, Reading, Source, open_bytes, text_blocks
from gpt2lab.errors import UsageError

Say = Callable[[str], None]

_MAX_FIELD = 1 << 24  # characters in a CSV field; an unclosed quote would swallow the rest of the file
_NAME = re.compile(r"[^\W\d]\w{0,39}([ -]\w{1,20})?")  # the form of a column name


class Piece(NamedTuple):
    """Part of a document; ``ends`` marks the last part, ``trained`` a part that is trained on."""

    text: str
    ends: bool
    trained: bool = True


def read_pieces(source: Source, reading: Reading, say: Say, on_bytes: OnBytes = lambda _: None) -> Iterator[Piece]:
    """Yield the documents of one source. Encoding the pieces one by one gives the ids of each whole document.

    ``say`` gets a line for the chosen column and one for skipped records. Raises :class:`UsageError` as the readers
    below and those in :mod:`~gpt2lab.data.files` do.
    """
    with open_bytes(source, on_bytes) as stream:
        blocks = text_blocks(stream, source.name, reading)
        if source.kind == "jsonl":
            yield from _jsonl(blocks, source.name, reading, say)
        elif source.kind == "csv":
            yield from _csv(blocks, source.name, reading.column, say)
        else:
            yield from _text(blocks)


def _text(blocks: Iterator[str]) -> Iterator[Piece]:
    """Yield documents in pieces of about one block."""
    held = ""
    for block in blocks:
        searched, held = max(0, len(held) - 1), held + block
        if cut := last_cut(held, searched):
            *whole, part = held[:cut].split(END_OF_TEXT_MARKER)
            yield from (Piece(text, ends=True) for text in whole)
            yield Piece(part, ends=False)
            held = held[cut:]
    yield from (Piece(text, ends=True) for text in held.split(END_OF_TEXT_MARKER))


def _lines(blocks: Iterator[str]) -> Iterator[str]:
    """Yield lines without their line ends."""
    held: list[str] = []
    for block in blocks:
        first, *others = block.split("\n")
        held.append(first)
        if others:
            yield "".join(held)
            yield from others[:-1]
            held = [others[-1]]
    if any(held):
        yield "".join(held)


class _Skipped:
    """A count of skipped records, by reason."""

    def __init__(self, name: str, what: str, say: Say) -> None:
        self._name, self._what, self._say = name, what, say
        self._reasons: Counter[str] = Counter()
        self._first = 0

    def add(self, reason: str, line: int) -> None:
        self._first = self._first or line
        self._reasons[reason] += 1

    def report(self) -> None:
        if self._reasons:
            total = sum(self._reasons.values())
            reasons = ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common())
            self._say(f"{self._name}: {total} {self._what} skipped, the first at line {self._first}: {reasons}")


# ---- JSON lines -----------------------------------------------------------------------------------------------------


def _jsonl(blocks: Iterator[str], name: str, reading: Reading, say: Say) -> Iterator[Piece]:
    """Yield the records of JSON lines. Raises :class:`UsageError` if the first is not an object or lacks the fields."""
    skipped = _Skipped(name, "records", say)
    fields: list[str] = []
    for number, line in enumerate(_lines(blocks), 1):
        if not line.strip():
            continue
        record = _object(line)
        if not fields:
            fields = _choose_fields(name, number, record, reading.field)
        if record is None:
            skipped.add("not a JSON object", number)
            continue
        values = [record.get(field) for field in fields]
        texts = [value for value in values if isinstance(value, str)]
        if len(texts) < len(values):
            skipped.add(f"without text in {' or '.join(fields)}", number)
            continue
        if "\\u" in line and (mended := [_mended(text) for text in texts]) != texts:
            if reading.errors == "strict":
                skipped.add("with half a surrogate pair", number)
                continue
            texts = mended
        yield from _learn_last(texts)
    skipped.report()


def _learn_last(texts: Sequence[str]) -> Iterator[Piece]:
    """Yield one text as a document, or two as a prompt that is not trained on and its completion."""
    for text in texts[:-1]:
        yield Piece(text, ends=False, trained=False)
    yield Piece(texts[-1], ends=True)


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _choose_fields(name: str, line: int, record: dict[str, Any] | None, field: str | None) -> list[str]:
    if record is None:
        raise UsageError(f"{name}, line {line}: not a JSON object; a .jsonl file has one in each line")
    if field is None:
        fields = ["prompt", "completion"] if "text" not in record and "prompt" in record else ["text"]
    else:
        fields = field.split(",")
    if len(fields) > 2:
        raise UsageError(f"--field is one name, or two for prompt and completion, not {field!r}")
    for wanted in fields:
        if not isinstance(record.get(wanted), str):
            has = ", ".join(key for key, value in record.items() if isinstance(value, str)) or "none"
            raise UsageError(f"{name}, line {line}: no text in field {wanted!r}; fields with text: {has} (--field)")
    return fields


def _mended(text: str) -> str:
    """Return ``text`` with ``�`` in place of halves of surrogate pairs."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# ---- CSV ------------------------------------------------------------------------------------------------------------


def _csv(blocks: Iterator[str], name: str, column: str | None, say: Say) -> Iterator[Piece]:
    """Yield a column's cells. Raises :class:`UsageError` if there is no such column, or several and none was named."""
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))
    lines = _lines(blocks)
    first_line = next(lines, "")
    delimiter = max(",\t;|", key=lambda mark: len(next(csv.reader([first_line], delimiter=mark), [])))
    reader = csv.reader((line + "\n" for line in chain([first_line], lines)), delimiter=delimiter, strict=True)
    rows = _rows(reader)
    ahead = list(islice(rows, 2))
    if not ahead:
        return
    first = ahead[0][0]
    if first is None:
        raise UsageError(f"{name}, line {ahead[0][1]}: not a row of CSV (a quote may be missing)")
    second = ahead[1][0] if len(ahead) > 1 else None
    index, header = _choose_column(name, first, second or [], column)
    heading = "the first line is a header" if header else "there is no header"
    say(f"{name}: column {first[index] if header else index + 1} of {len(first)}; {heading}")
    skipped = _Skipped(name, "rows", say)
    for row, line in chain(ahead[1:] if header else ahead, rows):
        if row is None:
            skipped.add("malformed", line)
        elif len(row) <= index:
            skipped.add("too short", line)
        elif not row[index]:
            skipped.add("empty", line)
        else:
            yield Piece(row[index], ends=True)
    skipped.report()


def _rows(reader: Any) -> Iterator[tuple[list[str] | None, int]]:
    """Yield rows that are not blank, each with the number of its last line; None for a malformed row."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None, reader.line_num
        else:
            if row:
                yield row, reader.line_num


def _choose_column(name: str, first: list[str], second: list[str], column: str | None) -> tuple[int, bool]:
    """Return the index of the column, and whether ``first`` is a header."""
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


def _is_header(first: list[str], second: list[str]) -> bool:
    """Return whether the first row looks like column names, and one is ``text`` or the second row does not."""
    if len(set(first)) < len(first) or not all(map(_looks_like_a_name, first)):
        return False
    return "text" in first or (bool(second) and not all(map(_looks_like_a_name, second)))


def _looks_like_a_name(cell: str) -> bool:
    return _NAME.fullmatch(cell.strip()) is not None
