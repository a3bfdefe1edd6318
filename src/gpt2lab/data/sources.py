"""Read the text of any file, whatever its format and size, as a stream of pieces of documents.

This is the only reader of text: every command that takes text from a file uses it. A text file is one document, or
several with ``<|endoftext|>`` spelled out between them; each JSON object, each row of a table and of Parquet is one
document. This module knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpt2lab.bpe import END_OF_TEXT_MARKER
from gpt2lab.data.cuts import last_cut
from gpt2lab.data.files import BLOCK, OnBytes, Reading, Source, open_bytes, text_blocks
from gpt2lab.data.pieces import Piece, Say
from gpt2lab.data.records import read_json, read_json_lines, read_parquet
from gpt2lab.data.tables import read_csv, read_tsv
from gpt2lab.errors import UsageError

MAX_RUN = 1 << 22
"""The most characters without a place where text can be cut, which are encoded at once."""

_RECORDS = {"jsonl": read_json_lines, "json": read_json, "csv": read_csv, "tsv": read_tsv}


def read_pieces(source: Source, reading: Reading, say: Say, on_bytes: OnBytes = lambda _: None) -> Iterator[Piece]:
    """Yield the documents of one source. Encoding the pieces one by one gives the ids of each whole document.

    ``say`` gets a line for the chosen column and one for skipped records. Raises :class:`UsageError` as the readers of
    the formats and those in :mod:`~gpt2lab.data.files` do.
    """
    if source.kind == "parquet" and source.path is not None:
        yield from _parts(read_parquet(source.path, source.name, reading, say), source.name)
        on_bytes(source.size)
        return
    with open_bytes(source, on_bytes) as stream:
        blocks = text_blocks(stream, source.name, reading)
        records = _RECORDS.get(source.kind)
        if records is None:
            yield from _text(blocks, source.name)
        else:
            yield from _parts(records(blocks, source.name, reading, say), source.name)


def first_documents(pieces: Iterator[Piece], limit: int) -> Iterator[Piece]:
    """Yield the first ``limit`` documents of ``pieces``."""
    for piece in pieces:
        yield piece
        limit -= piece.ends
        if not limit:
            return


def first_lines(pieces: Iterator[Piece], limit: int) -> Iterator[Piece]:
    """Yield the first ``limit`` lines of ``pieces``; a document's last line counts even without a line end."""
    left = limit
    for piece in pieces:
        lines = piece.text.count("\n")
        if lines < left:
            yield piece
            left -= lines + (piece.ends and bool(piece.text) and not piece.text.endswith("\n"))
            if left > 0:
                continue
            return
        end = 0
        for _ in range(left):
            end = piece.text.index("\n", end) + 1
        yield Piece(piece.text[:end], ends=True, trained=piece.trained)
        return


def _parts(pieces: Iterator[Piece], name: str) -> Iterator[Piece]:
    """Yield ``pieces``, those longer than a block in parts of about one block."""
    for piece in pieces:
        text, begin, end = piece.text, 0, BLOCK
        while len(text) - begin > BLOCK:
            cut = last_cut(text[begin:end])
            if cut:
                yield Piece(text[begin : begin + cut], ends=False, trained=piece.trained)
                begin, end = begin + cut, begin + cut + BLOCK
                continue
            _check_run(end - begin, name)
            if end >= len(text):
                break
            end += BLOCK
        yield Piece(text[begin:], piece.ends, piece.trained) if begin else piece


def _check_run(size: int, name: str) -> None:
    """Raise :class:`UsageError` for too many characters without a cut, which would take minutes and gigabytes."""
    if size > MAX_RUN:
        raise UsageError(f"{name} is hardly text: no space or sign follows a letter in {MAX_RUN:,} characters")


def _text(blocks: Iterator[str], name: str) -> Iterator[Piece]:
    """Yield documents in pieces of about one block."""
    held = ""
    for block in blocks:
        searched, held = max(0, len(held) - 1), held + block
        if cut := last_cut(held, searched):
            *whole, part = held[:cut].split(END_OF_TEXT_MARKER)
            yield from (Piece(text, ends=True) for text in whole)
            yield Piece(part, ends=False)
            held = held[cut:]
        _check_run(len(held), name)
    yield from (Piece(text, ends=True) for text in held.split(END_OF_TEXT_MARKER))
