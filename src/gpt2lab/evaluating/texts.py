"""Perplexity and bits per byte of texts of any length, in constant memory.

Text is encoded piece by piece as it arrives, and scored window by window; the text, its tokens and the logits are never
held as a whole. Bytes are counted where they are read, not derived from tokens.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.data.cuts import last_cut
from gpt2lab.errors import UsageError
from gpt2lab.evaluating.batches import Item, score_items
from gpt2lab.evaluating.results import Losses
from gpt2lab.scoring import check_stride

if TYPE_CHECKING:
    from gpt2lab.data.encoding import Encoded
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.tokenizer import Tokenizer

Pieces = Iterable[str]
"""The parts of a document; joined, they are its text."""

PIECE = 1 << 18
"""Characters encoded at a time, roughly."""

_HEAD = 8192  # bytes searched for a zero


@dataclass(frozen=True)
class Windows:
    """The way in which a text is cut into windows.

    Attributes:
        inputs: the number of tokens that a window feeds; it predicts as many, shifted by one.
        stride: the distance between the starts of successive windows; tokens predicted before are not scored again.
    """

    inputs: int
    stride: int

    def of(self, chunks: Iterable[list[int]]) -> Iterator[Item]:
        """Yield the windows of a text whose tokens come in chunks; all tokens but the first are scored, each once.

        With a stride above ``inputs``, the first token of each window is not scored, because nothing comes before it.
        """
        buffer: list[int] = []
        start = first = 0  # of the next window: its first input, and the last input before the first token scored
        for chunk in chunks:
            buffer += chunk
            while len(buffer) > start + self.inputs:
                end = start + self.inputs
                yield Item(buffer[start : first + 1], [buffer[first + 1 : end + 1]])
                start, first = start + self.stride, max(end, start + self.stride)
            dropped = min(start, len(buffer))
            del buffer[:dropped]
            start, first = start - dropped, first - dropped
        if first + 1 < len(buffer):
            yield Item(buffer[start : first + 1], [buffer[first + 1 :]])


def decoded(chunks: Iterable[bytes], name: str) -> Iterator[str]:
    """Decode UTF-8. Raises :class:`~gpt2lab.errors.UsageError` that names the first invalid byte.

    A zero near the beginning is invalid too: it is a sign of a binary file or of UTF-16.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    given = before = 0
    try:
        for chunk in chain(chunks, [b""]):
            before = given - len(decoder.getstate()[0])  # the decoder holds back incomplete characters
            zero = chunk.find(b"\0", 0, max(0, _HEAD - given))
            if zero >= 0:
                raise UsageError(f"{name} is a binary file, not UTF-8 text: byte {given + zero + 1:,} is 0x00")
            given += len(chunk)
            if text := decoder.decode(chunk, final=not chunk):
                yield text
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UsageError(
            f"{name} is not UTF-8 text: byte {before + error.start + 1:,} is 0x{byte:02x}; convert it to UTF-8"
        ) from None


def encoded(pieces: Pieces, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """Yield the ids of a text that comes in pieces: the same as those of the whole."""
    waiting = ""
    for piece in pieces:
        waiting += piece
        if len(waiting) < PIECE:
            continue
        if cut := last_cut(waiting, max(0, len(waiting) - PIECE // 2)):
            yield tokenizer.encode(waiting[:cut], add_special_tokens=False)
            waiting = waiting[cut:]
    if waiting:
        yield tokenizer.encode(waiting, add_special_tokens=False)


def protocol_windows(stride: int | None, n_ctx: int) -> dict[str, Windows]:
    """Return protocol name → windows: with the given stride, or else without overlap and overlapping by half.

    Raises :class:`~gpt2lab.errors.UsageError` for a stride outside 1 … n_ctx.
    """
    chosen = check_stride(stride, n_ctx)
    strides = [chosen] if stride is not None else sorted({n_ctx, chosen}, reverse=True)
    return {
        f"{'non-overlapping' if each == n_ctx else 'strided'}, stride {each}": Windows(n_ctx, each) for each in strides
    }


def text_losses(
    engine: Engine, tokenizer: Tokenizer, documents: Iterable[Pieces], windows: Windows, *, opened: bool = True
) -> Losses:
    """Score every token of ``documents``.

    Each document comes in pieces of text and has its own context. It begins after ``<|endoftext|>`` if ``opened`` and
    the tokenizer has one; otherwise its first token is not scored.
    """
    first = _first(tokenizer) if opened else []
    items = (item for pieces in documents for item in windows.of(chain([first], encoded(pieces, tokenizer))))
    losses = Losses()
    for (scores,) in score_items(engine, items):
        losses.add(-scores.total, len(scores.logprobs))
    return losses


def token_losses(engine: Engine, tokenizer: Tokenizer, stream: Iterable[Encoded], windows: Windows) -> Losses:
    """Score the tokens of ``stream`` that training would learn, each document in a context of its own.

    The stride of ``windows`` must not exceed their inputs. The start of a document is as in :func:`text_losses`.
    """
    first = _first(tokenizer)
    learned: deque[bool] = deque()  # for each token that is yet to be scored
    losses = Losses()
    for (scores,) in score_items(engine, _items(_pieces(stream), first, windows, learned)):
        chosen = np.array([learned.popleft() for _ in scores.logprobs], bool)
        if chosen.any():
            losses.add(-float(scores.logprobs[chosen].sum()), int(chosen.sum()))
    return losses


_Ids = tuple[list[int], bool, bool]  # of a piece of a document: the ids, whether they are learned, whether it ends


def _pieces(stream: Iterable[Encoded]) -> Iterator[_Ids]:
    for each in stream:
        ends = np.cumsum(each.lengths).tolist()
        bounds = zip([0, *ends], ends, each.trained.tolist(), each.ends.tolist(), strict=False)
        yield from ((each.ids[begin:end].tolist(), learned, last) for begin, end, learned, last in bounds)


def _items(pieces: Iterator[_Ids], first: list[int], windows: Windows, learned: deque[bool]) -> Iterator[Item]:
    """Yield the windows of all documents; append to ``learned`` whether each token that they score is learned."""

    def document(piece: _Ids) -> Iterator[list[int]]:
        unscored = 0 if first else 1
        yield first
        following: _Ids | None = piece
        while following is not None:
            ids, trained, ends = following
            learned.extend([trained] * max(0, len(ids) - unscored))
            unscored = max(0, unscored - len(ids))
            yield ids
            following = None if ends else next(pieces, None)

    for piece in pieces:
        yield from windows.of(document(piece))


def _first(tokenizer: Tokenizer) -> list[int]:
    return [] if tokenizer.start is None else [tokenizer.start]
