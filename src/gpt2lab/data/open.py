"""Open any dataset as documents of tokens: raw text, ``.npz`` and encoded shards, local or remote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.data.encoding import Encoded, collect, encode_pieces
from gpt2lab.data.files import OnBytes, Reading, Source
from gpt2lab.data.finding import Choice, find_sources
from gpt2lab.data.mapped import MappedRow
from gpt2lab.data.npz import read_npz
from gpt2lab.data.pieces import Piece, Say
from gpt2lab.data.records import given_records
from gpt2lab.data.shards import read_shards
from gpt2lab.data.sources import first_documents, first_lines, read_pieces
from gpt2lab.data.tokens import Chain, Documents
from gpt2lab.data.vocabulary import token_sizes, vocabulary_hash
from gpt2lab.errors import UsageError
from gpt2lab.tokenizer import Tokenizer


def open_documents(
    paths: Sequence[str],
    tokenizer: Tokenizer,
    *,
    reading: Reading | None = None,
    choice: Choice | None = None,
    jobs: int | None = None,
    say: Say = lambda line: None,
    on_bytes: OnBytes = lambda count: None,
) -> Documents:
    """Return the documents of files, folders, patterns, ``-`` or URLs; see :func:`~gpt2lab.data.finding.find_sources`.

    Text is encoded into memory, shards are memory-mapped. ``say`` gets a line for each choice that readers make, for
    skipped files and for skipped records.
    Raises :class:`UsageError` if there is no text or a reader refuses a source, and :class:`CheckpointError` for
    damaged shards.
    """
    reading = reading or Reading()
    sources = find_sources(local_paths(paths, say), reading, choice, say)
    parts: list[Documents] = []
    for encoded, group in groupby(sources, key=lambda source: source.kind == "shards"):
        if encoded:
            vocabulary = vocabulary_hash(tokenizer)
            found = (read_shards(source.path, tokenizer.n_vocab, vocabulary) for source in group if source.path)
            parts += chain.from_iterable(found)
        else:
            stream = encode_sources(list(group), tokenizer, reading, jobs=jobs, say=say, on_bytes=on_bytes)
            parts.append(collect(stream, tokenizer.n_vocab))
    parts = [part for part in parts if len(part)]
    if not parts:
        raise UsageError(f"the dataset is empty: there is no text in {', '.join(paths)}")
    return parts[0] if len(parts) == 1 else _joined(parts)


def given_documents(
    records: Sequence[Mapping[str, str]],
    tokenizer: Tokenizer,
    *,
    reading: Reading | None = None,
    say: Say = lambda line: None,
) -> Documents:
    """Return the documents of records in memory, which are read like those of JSON lines.

    Raises :class:`UsageError` if there is no text.
    """
    documents = collect(encode_pieces(given_records(records, reading or Reading(), say), tokenizer), tokenizer.n_vocab)
    if not len(documents):
        raise UsageError("the data are empty: there is no text in them")
    return documents


def local_paths(paths: Sequence[str], say: Say) -> list[str]:
    """Return ``paths`` with each remote one replaced by its local copy."""
    if not any("://" in path for path in paths):
        return list(paths)
    from gpt2lab.data.remote import fetch, is_remote

    return [str(fetch(path, say)) if is_remote(path) else path for path in paths]


def encode_sources(
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    reading: Reading,
    *,
    jobs: int | None = None,
    say: Say = lambda line: None,
    on_bytes: OnBytes = lambda count: None,
    limit: int | None = None,
) -> Iterator[Encoded]:
    """Yield the tokens of sources other than shards, one source after another; of text, the first ``limit`` lines.

    If any source has records, ``limit`` is their number. Token arrays ignore it.
    """
    for is_npz, group in groupby(sources, key=lambda source: source.kind == "npz"):
        if is_npz:
            for source in group:
                if source.path is not None:
                    yield from read_npz(source.path, tokenizer, on_bytes)
        else:
            texts = list(group)
            pieces: Iterator[Piece] = chain.from_iterable(read_pieces(each, reading, say, on_bytes) for each in texts)
            if limit is not None:
                first = first_lines if all(each.kind == "text" for each in texts) else first_documents
                pieces = first(pieces, limit)
            yield from encode_pieces(pieces, tokenizer, jobs)


def encoded_again(documents: Documents, tokenizer: Tokenizer) -> Iterator[Encoded]:
    """Yield each document of shards in the form that :func:`encode_sources` yields; characters are not counted."""
    sizes = token_sizes(tokenizer)[0]
    for index, begin in enumerate(documents.starts.tolist()):
        ids = documents[index]
        learned = np.ones(len(ids), bool)
        if documents.trained is not None:
            learned = np.asarray(documents.trained[begin : begin + len(ids)]).astype(bool)
        edges = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(np.diff(learned)) + 1])
        lengths = np.diff(edges, append=len(ids))
        ends = np.arange(len(edges)) == len(edges) - 1
        n_bytes = np.add.reduceat(sizes[ids], edges)
        yield Encoded(ids, lengths, np.zeros_like(lengths), ends, learned[edges], n_bytes)


def _joined(parts: list[Documents]) -> Documents:
    """Join several into one, without copying their tokens."""
    begins = np.cumsum([0, *(len(part.tokens) for part in parts[:-1])])
    starts = np.concatenate([part.starts + begin for part, begin in zip(parts, begins, strict=True)])
    tokens = Chain([part.tokens for part in parts])
    trained = None
    if any(part.trained is not None for part in parts):
        trained = Chain([_trained(part) for part in parts])
    characters: NDArray[np.int64] | None = None
    known = [part.characters for part in parts if part.characters is not None]
    if len(known) == len(parts):
        characters = np.concatenate(known)
    return Documents(tokens, starts, trained, characters)


def _trained(part: Documents) -> NDArray[Any] | MappedRow:
    """Return a uint8 mask for all of ``part``, which must not be a chain."""
    if part.trained is None:
        return np.ones(len(part.tokens), np.uint8)
    return part.trained if isinstance(part.trained, MappedRow) else part.trained[:].view(np.uint8)
