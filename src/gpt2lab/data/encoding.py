"""Encode text to token ids on all cores, in order, in memory that does not grow with the text.

Uses threads, because tiktoken lets other threads run while it works. A checkpoint's own vocabulary is merged in Python,
so it uses processes. This module knows nothing of files.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt2lab.data.files import BLOCK
from gpt2lab.data.pieces import Piece
from gpt2lab.data.tokens import Documents, IdArray, id_type
from gpt2lab.errors import UsageError
from gpt2lab.system.cores import logical_cores
from gpt2lab.tokenizer import Tokenizer


@dataclass(frozen=True)
class Encoded:
    """Tokens of successive pieces of documents.

    Attributes:
        ids: token ids of all pieces in one row, of the vocabulary's :func:`~gpt2lab.data.tokens.id_type`.
        lengths: number of tokens of each piece, int64 [n_pieces].
        characters: number of characters of each piece, int64 [n_pieces].
        ends: whether a document ends with the piece, bool [n_pieces].
        trained: whether the piece is trained on, bool [n_pieces].
        n_bytes: size of each piece's text as UTF-8, int64 [n_pieces].
    """

    ids: IdArray
    lengths: NDArray[np.int64]
    characters: NDArray[np.int64]
    ends: NDArray[np.bool_]
    trained: NDArray[np.bool_]
    n_bytes: NDArray[np.int64]

    def trained_tokens(self) -> NDArray[np.bool_]:
        """Return whether each token is trained on, bool [n_tokens]."""
        return np.repeat(self.trained, self.lengths)


class DocumentIndex:
    """Lengths of documents, summed as their pieces arrive; documents without a token are left out."""

    def __init__(self) -> None:
        self._tokens: list[NDArray[np.int64]] = []
        self._characters: list[NDArray[np.int64]] = []
        self._open = np.zeros(2, dtype=np.int64)  # tokens and characters of the unfinished document

    def add(self, encoded: Encoded) -> None:
        """Count the pieces of ``encoded``."""
        if not len(encoded.ends):
            return
        document: NDArray[np.int64] = np.cumsum(encoded.ends) - encoded.ends  # index of each piece's document, from 0
        sums = np.zeros((2, int(document[-1]) + 2), dtype=np.int64)
        np.add.at(sums[0], document, encoded.lengths)
        np.add.at(sums[1], document, encoded.characters)
        sums[:, 0] += self._open
        done = int(encoded.ends.sum())
        self._open = sums[:, done].copy()
        full = sums[0, :done] > 0
        self._tokens.append(sums[0, :done][full])
        self._characters.append(sums[1, :done][full])

    def starts(self) -> NDArray[np.int64]:
        """Return the start of each complete document, int64 [n_documents]."""
        lengths = np.concatenate([np.empty(0, np.int64), *self._tokens])
        starts: NDArray[np.int64] = np.cumsum(lengths) - lengths
        return starts

    def characters(self) -> NDArray[np.int64]:
        """Return the number of characters of each complete document, int64 [n_documents]."""
        return np.concatenate([np.empty(0, np.int64), *self._characters])


def encode_pieces(pieces: Iterable[Piece], tokenizer: Tokenizer, jobs: int | None = None) -> Iterator[Encoded]:
    """Yield the tokens of ``pieces`` in order; encodes batches of some hundred kilobytes of text, ``jobs`` at once.

    ``jobs`` defaults to the number of cores.
    """
    jobs = jobs or logical_cores()
    batches = batches_of(pieces)
    for batch in batches:
        yield encode_batch(tokenizer, batch)  # builds the vocabulary; short texts need no more
        break
    if jobs == 1:
        yield from (encode_batch(tokenizer, batch) for batch in batches)
        return
    first = next(batches, None)
    if first is None:
        return
    executor, encode = _start(tokenizer, jobs)
    waiting: deque[Future[Encoded]] = deque([executor.submit(encode, first)])
    try:
        for batch in batches:
            waiting.append(executor.submit(encode, batch))
            if len(waiting) > 2 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def encode_batch(tokenizer: Tokenizer, batch: list[Piece]) -> Encoded:
    """Encode a few pieces."""
    texts = [piece.text for piece in batch]
    ids, lengths = tokenizer.encode_many(texts)
    return Encoded(
        ids.astype(id_type(tokenizer.n_vocab)),
        lengths,
        np.asarray([len(text) for text in texts], dtype=np.int64),
        np.asarray([piece.ends for piece in batch], dtype=bool),
        np.asarray([piece.trained for piece in batch], dtype=bool),
        np.asarray([len(text) if text.isascii() else len(text.encode()) for text in texts], dtype=np.int64),
    )


def batches_of(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Group pieces into lists of about one block of text."""
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece.text) + 32
        if size >= BLOCK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _start(tokenizer: Tokenizer, jobs: int) -> tuple[Executor, Callable[[list[Piece]], Encoded]]:
    if tokenizer is Tokenizer.gpt2():
        return ThreadPoolExecutor(jobs), lambda batch: encode_batch(tokenizer, batch)
    spawn = multiprocessing.get_context("spawn")  # a forked process with threads may hang
    try:
        return ProcessPoolExecutor(jobs, spawn, _prepare_process, (tokenizer,)), _encode_in_process
    except OSError as error:  # the pool's locks are in shared memory, on Linux in /dev/shm
        reason = error.strerror or error
        raise UsageError(f"cannot start several processes: {reason}; --jobs 1 needs no shared memory") from None


_own: Tokenizer | None = None
"""The vocabulary that a pool process was started for; None outside the pool."""


def _prepare_process(tokenizer: Tokenizer) -> None:
    global _own
    _own = tokenizer


def _encode_in_process(batch: list[Piece]) -> Encoded:
    assert _own is not None
    return encode_batch(_own, batch)


def collect(stream: Iterable[Encoded], n_vocab: int) -> Documents:
    """Hold all of ``stream`` in memory: 2 bytes per token (4 for a vocabulary beyond 65536)."""
    index = DocumentIndex()
    ids: list[IdArray] = [np.empty(0, id_type(n_vocab))]
    trained: list[NDArray[np.bool_]] = []
    learned_whole = True
    for encoded in stream:
        index.add(encoded)
        ids.append(encoded.ids)
        learned_whole = learned_whole and bool(encoded.trained.all())
        trained.append(encoded.trained_tokens())
    tokens = np.concatenate(ids)
    return Documents(tokens, index.starts(), None if learned_whole else np.concatenate(trained), index.characters())
