"""Byte-level BPE: the byte alphabet, GPT-2's own vocabulary, and the vocabularies of checkpoints.

GPT-2's own vocabulary comes from the packaged ``vocab.bpe`` alone, and tiktoken merges text with it. The first short
texts are merged pair by pair instead, as in the original, because tiktoken's tables take long to build. So is all text
of a checkpoint's own vocabulary, because tiktoken treats a token's rank as its id and knows no pairs. Nothing is read
before first use, and nothing is ever downloaded. This module knows nothing of special tokens in text or of decoding
streams.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gpt2lab.config import END_OF_TEXT, GPT2_N_VOCAB
from gpt2lab.errors import TokenizerError

if TYPE_CHECKING:
    import numpy as np
    import tiktoken
    from numpy.typing import NDArray

END_OF_TEXT_MARKER = "<|endoftext|>"
"""The spelling of the token between documents. Inside text it is plain text unless the caller says otherwise."""

VOCAB_FILE = Path(__file__).parent / "assets" / "vocab.bpe"
"""OpenAI's ``vocab.bpe``: a header, then one merge per line, most frequent first."""

# encoder.py's pattern for pieces that no merge crosses, and its equivalent for tiktoken without needless backtracking.
_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

_SPLIT_TIKTOKEN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

# The original's pattern for text in ASCII, with re.ASCII.
_SPLIT_ASCII = r"'s|'t|'re|'ve|'m|'ll|'d| ?[a-zA-Z]+| ?[0-9]+| ?[^\sa-zA-Z0-9]+|\s+(?!\S)|\s+"

# Characters to merge pair by pair before tiktoken is used. Importing it and building its tables takes as long as
# merging 30,000 of them, and is most of what a program with one prompt would wait for.
_WITHOUT_TIKTOKEN = 10_000

# tiktoken's regex engine gives up (a Rust panic) on whitespace runs of about a million characters before a word.
_LONG_RUN = 100_000

_WHITE_SPACE = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"  # Unicode's; Python's \s has more


def _visible_bytes() -> dict[int, str]:
    """Map each byte to the printable character for it in ``vocab.bpe`` (``bytes_to_unicode`` of the original).

    The order matters: it is that of the first 256 ids.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


_VISIBLE = _visible_bytes()

_BYTE_OF = {ord(char): byte for byte, char in _VISIBLE.items()}

_BYTE_OF_LINE = _BYTE_OF | {ord(" "): ord(" ")}

_BYTE_TOKENS = [*_VISIBLE]  # the bytes by their ids

_ID_OF_BYTE = {char: id for id, char in enumerate(_VISIBLE.values())}


def pieces_of(text: str) -> Iterator[str]:
    """Cut ``text`` into the pieces within which merging happens, in order: no token spans two of them."""
    import regex  # as the original does; the standard library's re has no \p

    return (match.group() for match in regex.finditer(_SPLIT, text))


def to_visible(token: bytes) -> str:
    """Spell ``token`` as ``vocab.bpe`` does: a printable character for each byte, ``Ġ`` for a space."""
    return token.decode("latin-1").translate(_VISIBLE)


class Vocabulary(Protocol):
    """The interface that a :class:`Tokenizer` needs: the tokens, and the merging of plain text into them."""

    n_vocab: int
    end_of_text: int | None

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes of token ``id``, which is below ``n_vocab``; empty for a gap in the ids."""

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``, in which ``<|endoftext|>`` is plain text."""

    def encode_many(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return the token ids of all ``texts`` in one row, and the number for each text."""

    def encoder(self) -> dict[str, int]:
        """Return token → id, with every byte spelled as a printable character."""

    def merges(self) -> list[str]:
        """Return the lines of ``vocab.bpe`` in order of rank, without the header."""


class Gpt2Vocabulary:
    """GPT-2's own vocabulary: the 256 bytes, then the product of each merge in order, then ``<|endoftext|>``.

    The products are read when the first token is requested, and decoded one by one, because few tokens are ever used.
    """

    def __init__(self) -> None:
        self._encoding: tiktoken.Encoding | None = None
        self._left = _WITHOUT_TIKTOKEN
        self.n_vocab = GPT2_N_VOCAB
        self.end_of_text: int | None = END_OF_TEXT

    @cached_property
    def _lines(self) -> list[bytes]:
        """The merges as ``vocab.bpe`` spells them, by rank."""
        return VOCAB_FILE.read_bytes().split(b"\n")[1:-1]

    @cached_property
    def _ranks(self) -> dict[bytes, int]:
        """The rank of each merge."""
        return {line: rank for rank, line in enumerate(self._lines)}

    def token_bytes(self, id: int) -> bytes:
        if id < 256:
            return bytes([_BYTE_TOKENS[id]])
        return END_OF_TEXT_MARKER.encode() if id == END_OF_TEXT else _spelled(_joined(self._lines[id - 256]))

    def encode(self, text: str) -> list[int]:
        if self._encoding is None and text.isascii() and len(text) <= self._left:
            self._left -= len(text)
            return self._merged(text)
        encoding = self._built()
        parts = [text] if len(text) < _LONG_RUN else _cut_long_runs(text)
        return [id for part in parts for id in encoding.encode_ordinary(part)]

    def encode_many(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        import numpy as np

        if any(END_OF_TEXT_MARKER in text for text in texts):
            return one_by_one(self.encode, texts)
        encode = self._built().encode_to_numpy
        joined = END_OF_TEXT_MARKER.join(texts)  # one call instead of many; nothing merges across the marker
        parts = [joined] if len(joined) < _LONG_RUN else list(_cut_long_runs(joined))
        if len(parts) > 1 < len(texts):  # whitespace at the end of a text splits unlike that before a word
            return one_by_one(self.encode, texts)
        rows = [encode(part, allowed_special={END_OF_TEXT_MARKER}, disallowed_special=()) for part in parts]
        ids = rows[0] if len(rows) == 1 else np.concatenate(rows)
        if len(texts) == 1:
            return ids, np.asarray([len(ids)])
        marks = np.flatnonzero(ids == END_OF_TEXT)
        lengths = np.diff(marks, prepend=-1, append=len(ids)) - 1
        return ids[ids != END_OF_TEXT], lengths[: len(texts)]

    def __reduce__(self) -> tuple[type[Gpt2Vocabulary], tuple[()]]:
        return Gpt2Vocabulary, ()

    def _built(self) -> tiktoken.Encoding:
        if self._encoding is None:
            import tiktoken

            lines = enumerate(_read_tokens()[:END_OF_TEXT])
            ranks = {(line if line.isascii() else _spelled(line)): rank for rank, line in lines}  # saves 50,000 calls
            special = {END_OF_TEXT_MARKER: END_OF_TEXT}  # plain text to encode_ordinary
            self._encoding = tiktoken.Encoding(
                "gpt2", pat_str=_SPLIT_TIKTOKEN, mergeable_ranks=ranks, special_tokens=special
            )
        return self._encoding

    def _merged(self, text: str) -> list[int]:
        """Return the ids of a text in ASCII as the original finds them, from the merges alone."""
        pieces = re.findall(_SPLIT_ASCII, text, re.ASCII)
        return [self._id(token) for piece in pieces for token in _merge([*to_visible(piece.encode())], self._rank)]

    def _rank(self, left: str, right: str) -> int | None:
        return self._ranks.get(f"{left} {right}".encode())

    def _id(self, token: str) -> int:
        """Return the id of a token as ``vocab.bpe`` spells it: exactly one merge produces it."""
        if len(token) == 1:
            return _ID_OF_BYTE[token]
        ranks = (self._rank(token[:i], token[i:]) for i in range(1, len(token)))
        return 256 + next(rank for rank in ranks if rank is not None)

    def encoder(self) -> dict[str, int]:
        products = (line.replace(" ", "") for line in self.merges())
        return {token: id for id, token in enumerate([*_VISIBLE.values(), *products, END_OF_TEXT_MARKER])}

    def merges(self) -> list[str]:
        return VOCAB_FILE.read_text(encoding="utf-8").split("\n")[1:-1]


def one_by_one(
    encode: Callable[[str], list[int]], texts: Sequence[str]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Encode texts one after the other; return all ids in one row, and the number for each text."""
    import numpy as np

    rows = [np.asarray(encode(text), dtype=np.uint32) for text in texts]
    return np.concatenate([np.empty(0, np.uint32), *rows]), np.asarray([len(row) for row in rows], dtype=np.int64)


def _read_tokens() -> list[bytes]:
    """Read the tokens in id order, for :func:`_spelled`: a line of ``vocab.bpe`` spells the product of its merge."""
    products = _joined(VOCAB_FILE.read_bytes()).split(b"\n")[1:-1]
    return [*(char.encode() for char in _VISIBLE.values()), *products, END_OF_TEXT_MARKER.encode()]


def _joined(lines: bytes) -> bytes:
    """Turn lines of ``vocab.bpe`` into the products of their merges, in which ``Ġ`` is a space again."""
    return lines.replace(b" ", b"").replace("Ġ".encode(), b" ")


def _spelled(line: bytes) -> bytes:
    """Return the bytes of a token; most lines are ASCII and need no change once ``Ġ`` is a space again."""
    return line if line.isascii() else line.decode().translate(_BYTE_OF_LINE).encode("latin-1")


def _cut_long_runs(text: str) -> Iterator[str]:
    """Cut ``text`` before the last character of each long whitespace run; the parts encode as the whole does.

    The pattern itself cuts there: the last whitespace character belongs to the word after it.
    """
    start = 0
    for run in re.finditer(_WHITE_SPACE + "{2,}", text):
        if run.end() - run.start() >= _LONG_RUN and run.end() < len(text):
            yield text[start : run.end() - 1]
            start = run.end() - 1
    yield text[start:]


class OwnVocabulary:
    """A checkpoint's own vocabulary: any ids, any merges, merged as in ``encoder.py``."""

    def __init__(self, encoder: dict[str, int], merges: list[str]) -> None:
        _check_ids(encoder)
        self._encoder = encoder
        self._merges = merges
        self._ranks = _parse_merges(merges, encoder)
        self._tokens = {id: spelled_bytes(token) for token, id in encoder.items()}
        self._encode_word = lru_cache(maxsize=1 << 16)(self._encode_piece)
        self.n_vocab = max(encoder.values()) + 1
        self.end_of_text = encoder.get(END_OF_TEXT_MARKER)

    def token_bytes(self, id: int) -> bytes:
        return self._tokens.get(id, b"")

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in pieces_of(text):
            ids += self._encode_word(piece) if len(piece) < 64 else self._encode_piece(piece)
        return ids

    def encode_many(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        return one_by_one(self.encode, texts)

    def _encode_piece(self, piece: str) -> list[int]:
        symbols = _merge([*to_visible(piece.encode())], lambda left, right: self._ranks.get((left, right)))
        return [self._encoder[symbol] for symbol in symbols]

    def __reduce__(self) -> tuple[type[OwnVocabulary], tuple[dict[str, int], list[str]]]:
        return OwnVocabulary, (self._encoder, self._merges)  # for another process; its memory of words stays here

    def encoder(self) -> dict[str, int]:
        return dict(self._encoder)

    def merges(self) -> list[str]:
        return list(self._merges)


def _merge(symbols: list[str], rank_of: Callable[[str, str], int | None]) -> list[str]:
    """Repeatedly join the neighbouring pair of lowest rank, at every place it occurs, from left to right.

    The original rebuilds the word at every step, which takes hours for a piece of a million letters; a heap of
    candidate pairs and links to the neighbours give the same result in n log n.
    """
    after = list(range(1, len(symbols) + 1))
    before = list(range(-1, len(symbols) - 1))
    heap = [(rank, i, pair) for i, pair in enumerate(pairwise(symbols)) if (rank := rank_of(*pair)) is not None]
    heapq.heapify(heap)
    while heap:
        lowest, born = heap[0][0], []
        while heap and heap[0][0] == lowest:
            _, left, pair = heapq.heappop(heap)
            right = after[left]
            if symbols[left] != pair[0] or right == len(symbols) or symbols[right] != pair[1]:
                continue  # one of the two has meanwhile become part of another symbol
            symbols[left], symbols[right] = pair[0] + pair[1], ""
            after[left] = right = after[right]
            if right < len(symbols):
                before[right] = left
            born += [before[left], left]
        for left in born:
            right = after[left] if left >= 0 else len(symbols)
            if right < len(symbols) and (rank := rank_of(symbols[left], symbols[right])) is not None:
                heapq.heappush(heap, (rank, left, (symbols[left], symbols[right])))
    return [symbol for symbol in symbols if symbol]


def _check_ids(encoder: Mapping[str, int]) -> None:
    """Check that every byte has a token and that no two tokens share an id."""
    seen: dict[int, str] = {}
    for token, id in encoder.items():
        if isinstance(id, bool) or not isinstance(id, int) or not 0 <= id < 1 << 31:
            raise TokenizerError(
                f"encoder.json gives token {token!r} the id {id!r}: ids must be whole numbers from 0 up"
            )
        if id in seen:
            raise TokenizerError(f"encoder.json gives the id {id} to two tokens, {seen[id]!r} and {token!r}")
        seen[id] = token
    for byte, char in _VISIBLE.items():
        if char not in encoder:
            raise TokenizerError(
                f"encoder.json has no token {char!r} for the byte {byte}: it is not a byte-level vocabulary"
            )


def _parse_merges(merges: Sequence[str], encoder: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Map each pair to its rank. Both halves and the product must be tokens."""
    ranks: dict[tuple[str, str], int] = {}
    for rank, line in enumerate(merges):
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise TokenizerError(f"merge {rank + 1} of vocab.bpe is {line!r}: expected two tokens with a space between")
        for token in (left, right, left + right):
            if token not in encoder:
                raise TokenizerError(f"merge {rank + 1} of vocab.bpe is {line!r}, but encoder.json has no {token!r}")
        if (left, right) in ranks:
            raise TokenizerError(f"merge {rank + 1} of vocab.bpe, {line!r}, occurs twice")
        ranks[left, right] = rank
    return ranks


def spelled_bytes(token: str) -> bytes:
    """Return the bytes that ``token`` spells in the byte alphabet, or its own UTF-8 if it is not spelled in it."""
    try:
        if all(ord(char) in _BYTE_OF for char in token):
            return bytes(_BYTE_OF[ord(char)] for char in token)
        return token.encode()
    except UnicodeEncodeError:
        raise TokenizerError(f"encoder.json has the token {token!r}, which is not valid text") from None
