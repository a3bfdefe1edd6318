"""Documents of JSON lines, of JSON arrays and of Parquet: a field of each record, or a prompt and its completion.

Unusable records are skipped, counted and reported. If the first record is unusable, the options do not fit the file,
and that is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpt2lab.data.files import HALF, Reading, without_halves
from gpt2lab.data.pieces import MAX_RECORD, Piece, Say, Skipped, lines_of
from gpt2lab.errors import UsageError, first_line
from gpt2lab.weights.checkpoint import check_not_pointer

_BLANK = re.compile(r"[ \n\t\r]*")
_IN_NUMBERS = "0123456789.eE+-"
_DECODER = json.JSONDecoder()


def read_json_lines(blocks: Iterator[str], name: str, reading: Reading, say: Say) -> Iterator[Piece]:
    """Yield the records of JSON lines. Raises :class:`UsageError` if the first is not an object or lacks the fields."""
    lines = ((number, line) for number, line in enumerate(lines_of(blocks, name), 1) if line.strip())
    yield from _records(((f"line {number}", number, _object(line)) for number, line in lines), name, reading, say)


def read_json(blocks: Iterator[str], name: str, reading: Reading, say: Say) -> Iterator[Piece]:
    """Yield the records of a JSON array, or of JSON objects one after another.

    Holds one record at a time. Raises :class:`UsageError` at the line where the text is not JSON.
    """
    values = json_values(blocks, name)
    records = ((f"line {line}", line, value if isinstance(value, dict) else None) for line, value in values)
    yield from _records(records, name, reading, say)


def given_records(records: Iterable[Mapping[str, str]], reading: Reading, say: Say) -> Iterator[Piece]:
    """Yield the texts of records in memory. Raises :class:`UsageError` as :func:`read_json_lines` does."""
    numbered = ((f"item {number}", number, dict(record)) for number, record in enumerate(records))
    yield from _records(numbered, "the data", reading, say)


def read_parquet(path: Path, name: str, reading: Reading, say: Say) -> Iterator[Piece]:
    """Yield the rows of a Parquet file; the field is a column. Raises :class:`UsageError` if pyarrow is missing."""
    if find_spec("pyarrow") is None:
        raise UsageError(f"{name} needs pyarrow: pip install 'gpt2lab[parquet]'")
    field = reading.field or reading.column
    chosen = replace(reading, field=field)
    rows = ((f"row {number}", number, row) for number, row in enumerate(parquet_rows(path, name), 1))
    yield from _records(rows, name, chosen, say, "row")


def parquet_rows(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file, a thousand in memory at a time; needs pyarrow."""
    check_not_pointer(path)
    pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1000):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise UsageError(f"{name} is not a usable Parquet file ({first_line(error)})") from None
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror or first_line(error)}") from None


def _records(
    records: Iterable[tuple[str, int, dict[str, Any] | None]],
    name: str,
    reading: Reading,
    say: Say,
    what: str = "record",
) -> Iterator[Piece]:
    """Yield the texts of ``records``, each given with its place in words, its number, and None if it is unusable."""
    skipped = Skipped(name, f"{what}s", say, reading)
    fields: list[str] = []
    for where, number, record in records:
        skipped.total += 1
        if not fields:
            fields = _choose_fields(f"{name}, {where}", record, reading.field)
        if record is None:
            skipped.add("not a JSON object", number)
            continue
        texts = [value for field in fields if isinstance(value := record.get(field), str)]
        if len(texts) < len(fields) and record.get(fields[-1], 0) is None:
            skipped.add_empty(number)
            continue
        if len(texts) < len(fields):
            skipped.add(f"without text in {' or '.join(fields)}", number)
            continue
        if any(map(HALF.search, texts)):
            if reading.errors == "skip":
                skipped.add("with an unpaired surrogate", number)
                continue
            texts = [mended(text, f"{name}, {where}", reading) for text in texts]
        yield from _learn_last(texts)
    skipped.report()


def mended(text: str, where: str, reading: Reading) -> str:
    """Return ``text`` without half surrogate pairs; raises :class:`UsageError` for one if ``reading`` is strict."""
    if reading.errors == "strict":
        half = HALF.search(text)
        raise UsageError(
            f"{where}: an unpaired surrogate (\\u{ord(half[0]) if half else 0:04x}), which is not a character: "
            "--errors replace reads it as �, --errors skip leaves the record out"
        )
    return without_halves(text, reading.errors)


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


def _choose_fields(where: str, record: dict[str, Any] | None, field: str | None) -> list[str]:
    if record is None:
        raise UsageError(
            f"{where}: not a JSON object; a .jsonl file needs one on each line, a .json file a list of them"
        )
    if field is None:
        fields = ["prompt", "completion"] if "text" not in record and "prompt" in record else ["text"]
    else:
        fields = field.split(",")
    if len(fields) > 2:
        raise UsageError(f"--field must be one name, or two for prompt and completion, not {field!r}")
    for wanted in fields:
        if not isinstance(record.get(wanted), str):
            has = ", ".join(key for key, value in record.items() if isinstance(value, str)) or "none"
            raise UsageError(f"{where}: no text in field {wanted!r}; fields with text: {has} (--field)")
    return fields


class _Text:
    """JSON text that arrives in blocks, and the place up to which it is parsed."""

    def __init__(self, blocks: Iterator[str]) -> None:
        self._blocks = blocks
        self.held, self.at, self.line = "", 0, 1

    def more(self) -> bool:
        """Read at least a block, and as much text as is not yet parsed; return whether there was any."""
        wanted, got, parts = len(self.held) - self.at, 0, []
        while got <= wanted and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            got += len(block)
        if got:
            self.held, self.at = "".join([self.held[self.at :], *parts]), 0
        return got > 0

    def pass_to(self, end: int) -> None:
        """Mark the text before ``end`` as parsed."""
        self.line += self.held.count("\n", self.at, end)
        self.at = end

    def peek(self) -> str:
        """Skip blanks; return the next character, or an empty string at the end."""
        while True:
            blank = _BLANK.match(self.held, self.at)
            self.pass_to(blank.end() if blank else self.at)
            if self.at < len(self.held) or not self.more():
                return self.held[self.at : self.at + 1]


def json_values(blocks: Iterator[str], name: str) -> Iterator[tuple[int, Any]]:
    """Yield the elements of a JSON array, or the values one after another, each with the number of its first line.

    Holds one at a time. Raises :class:`UsageError` at the line where the text is not JSON.
    """
    text = _Text(blocks)
    in_array = text.peek() == "["
    if in_array:
        text.pass_to(text.at + 1)
    while mark := text.peek():
        if in_array and mark == "]":
            text.pass_to(text.at + 1)
            break
        value, end = _value(text, name)
        yield text.line, value
        text.pass_to(end)
        after = text.peek()
        if in_array and after == ",":
            text.pass_to(text.at + 1)
        elif in_array and after != "]":
            raise UsageError(f"{name}, line {text.line}: not JSON (a , or ] is missing after an element)")
    if text.peek():
        raise UsageError(f"{name}, line {text.line}: not JSON (text follows the array)")


def _value(text: _Text, name: str) -> tuple[Any, int]:
    """Return the value that follows, and where it ends; a number may go on in the next block."""
    while True:
        try:
            value, end = _DECODER.raw_decode(text.held, text.at)
        except (ValueError, RecursionError) as error:
            if len(text.held) - text.at > MAX_RECORD:
                raise UsageError(
                    f"{name}, line {text.line}: longer than the {MAX_RECORD:,} characters of a record, or not JSON"
                ) from None
            if isinstance(error, RecursionError) or not text.more():
                raise UsageError(f"{name}, line {text.line}: not JSON ({first_line(error)})") from None
        else:
            goes_on = end == len(text.held) or text.held[end] in _IN_NUMBERS
            if not goes_on or not text.more():
                return value, end
