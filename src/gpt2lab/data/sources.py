"""Read the text of any file, whatever its format and size, as a stream of pieces of documents.

This is the only reader of text: every command that takes text from a file uses it. A text file is one document, or
several with ``<|endoftext|>`` spelled out between them; each JSON object, each row of a table and of Parquet is one
document. This module knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpt2lab.bpe import END_OF_TEXT_MARKER
from gpt2lab.data.cuts import last_cut
from gpt2lab.data.files import OnBytes, Reading, Source, open_bytes, text_blocks
from gpt2lab.data.pieces import Piece, Say
from gpt2lab.data.records import read_json, read_json_lines, read_parquet
from gpt2lab.data.tables import read_csv, read_tsv

_RECORDS = {"jsonl": read_json_lines, "json": read_json, "csv": read_csv, "tsv": read_tsv}


def read_pieces(source: Source, reading: Reading, say: Say, on_bytes: OnBytes = lambda _: None) -> Iterator[Piece]:
    """Yield the documents of one source. Encoding the pieces one by one gives the ids of each whole document.

    ``say`` gets a line for the chosen column and one for skipped records. Raises :class:`UsageError` as the readers of
    the formats and those in :mod:`~gpt2lab.data.files` do.
    """
    if source.kind == "parquet" and source.path is not None:
        yield from read_parquet(source.path, source.name, reading, say)
        on_bytes(source.size)
        return
    with open_bytes(source, on_bytes) as stream:
        blocks = text_blocks(stream, source.name, reading)
        records = _RECORDS.get(source.kind)
        yield from records(blocks, source.name, reading, say) if records else _text(blocks)


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
