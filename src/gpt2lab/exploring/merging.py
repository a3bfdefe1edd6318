"""The steps by which byte-pair encoding turns a text into ids: bytes, pieces, and one merge after the other.

Yields the same ids as :meth:`gpt2lab.Tokenizer.encode`, by the original's slow algorithm, so that each step can be
shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from gpt2lab.bpe import pieces_of, to_visible
from gpt2lab.errors import UsageError

if TYPE_CHECKING:
    from gpt2lab.tokenizer import Tokenizer

LONGEST_PIECE = 400
"""The most bytes of a piece whose merges are shown: nobody reads more, and the output grows with the square."""


@dataclass(frozen=True)
class Merge:
    """One step, which joins the pair that comes first in the list of merges, wherever it occurs.

    ``rank`` counts from 1, the most frequent pair of the tokenizer's training text; ``symbols`` is the piece after the
    merge, in the alphabet of ``vocab.bpe`` (``Ġ`` is a space).
    """

    rank: int
    pair: tuple[str, str]
    symbols: list[str]


@dataclass(frozen=True)
class Piece:
    """A piece of the text; no merge crosses its ends."""

    text: str
    bytes: str
    symbols: list[str]
    merges: list[Merge]
    ids: list[int]


def merge_steps(text: str, tokenizer: Tokenizer) -> list[Piece]:
    """Return every piece of ``text`` with its merges in order.

    Raises :class:`~gpt2lab.errors.UsageError` for pieces longer than :data:`LONGEST_PIECE` bytes,
    :class:`~gpt2lab.errors.TokenizerError` for text that UTF-8 cannot encode.
    """
    tokenizer.encode(text)  # raises for unpaired surrogates
    ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(tokenizer.merges(), 1)}
    encoder = tokenizer.encoder()
    return [_piece(piece, ranks, encoder) for piece in pieces_of(text)]


def _piece(text: str, ranks: dict[tuple[str, ...], int], encoder: dict[str, int]) -> Piece:
    data = text.encode()
    if len(data) > LONGEST_PIECE:
        raise UsageError(
            f"the piece {text[:20]!r}… has {len(data)} bytes, more than the {LONGEST_PIECE} whose merges "
            "can be shown: gpt2lab tokens shows its ids"
        )
    symbols = first = list(to_visible(data))
    merges = []
    while known := {pair: ranks[pair] for pair in pairwise(symbols) if pair in ranks}:
        pair = min(known, key=known.__getitem__)
        symbols = _joined(symbols, pair)
        merges.append(Merge(known[pair], pair, symbols))
    return Piece(text, data.hex(" "), first, merges, [encoder[symbol] for symbol in symbols])


def _joined(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Return ``symbols`` with every occurrence of ``pair`` joined, from left to right."""
    result: list[str] = []
    i = 0
    while i < len(symbols):
        if tuple(symbols[i : i + 2]) == pair:
            result.append(pair[0] + pair[1])
            i += 2
        else:
            result.append(symbols[i])
            i += 1
    return result
