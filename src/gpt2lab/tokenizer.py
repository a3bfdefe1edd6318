"""Text to token ids and back: GPT-2's byte-level BPE, with the ids of the original ``encoder.py``.

GPT-2's own vocabulary is the packaged ``vocab.bpe`` alone, merged by tiktoken; a checkpoint's own vocabulary is merged
pair by pair as the original did, because tiktoken takes a token's rank for its id and knows no pairs. Nothing is read
before the first use, and nothing is ever fetched. Knows nothing of models, contexts or files of checkpoints: who has
an ``encoder.json`` reads it and hands the contents over.
"""

from __future__ import annotations

import codecs
import heapq
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
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
"""How the token between documents is spelled. In text it is plain text unless the caller says otherwise."""

VOCAB_FILE = Path(__file__).parent / "assets" / "vocab.bpe"
"""OpenAI's ``vocab.bpe``: a header, then one merge a line, most frequent first."""

# How encoder.py cuts text into pieces that no merge crosses, and tiktoken's equivalent without needless backtracking.
_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SPLIT_TIKTOKEN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

# tiktoken's regex engine gives up (a Rust panic) on whitespace runs of about a million characters before a word.
_LONG_RUN = 100_000
_WHITE_SPACE = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"  # Unicode's; Python's \s has more


def _visible_bytes() -> dict[int, str]:
    """Byte → the printable character that stands for it in ``vocab.bpe`` (``bytes_to_unicode`` of the original).

    The order matters: it is the order of the first 256 ids.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


_VISIBLE = _visible_bytes()
_BYTE_OF = {ord(char): byte for byte, char in _VISIBLE.items()}


_BYTE_OF_LINE = _BYTE_OF | {ord(" "): ord(" ")}


def pieces_of(text: str) -> Iterator[str]:
    """The pieces, in order, that ``text`` is cut into before merging: no token reaches across two of them."""
    import regex  # as the original, and as tiktoken: the standard library's has no \p

    return (match.group() for match in regex.finditer(_SPLIT, text))


def to_visible(token: bytes) -> str:
    """``token`` as ``vocab.bpe`` spells it: a printable character for each byte, ``Ġ`` for a space."""
    return token.decode("latin-1").translate(_VISIBLE)


class IncrementalDecoder:
    """Turns ids into text as they come, holding back the bytes of a character until it is whole.

    All pieces and the final :meth:`flush` joined are what :meth:`Tokenizer.decode` gives for the same ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, id: int) -> str:
        """Text that is certain once token ``id`` is known; empty while a character is still in pieces."""
        return self._decoder.decode(self._token_bytes(id))

    def flush(self) -> str:
        """What is left at the end: ``\\ufffd`` for an unfinished character, else nothing."""
        return self._decoder.decode(b"", final=True)


class Tokenizer:
    """A byte-level BPE vocabulary: :meth:`gpt2` for GPT-2's own, :meth:`from_files` for a checkpoint's.

    Attributes:
        n_vocab: number of tokens; ids are 0 … n_vocab - 1.
        end_of_text: id of ``<|endoftext|>``, or None if the vocabulary has none.
    """

    def __init__(self, vocabulary: _Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.n_vocab: int = vocabulary.n_vocab
        self.end_of_text: int | None = vocabulary.end_of_text

    @classmethod
    def gpt2(cls) -> Tokenizer:
        """GPT-2's vocabulary of 50257 tokens; built once, on the first call."""
        return _gpt2()

    @classmethod
    def from_files(cls, encoder: Mapping[str, int], merges: Sequence[str]) -> Tokenizer:
        """The vocabulary of a checkpoint's ``encoder.json`` (token → id) and ``vocab.bpe`` (lines ``"Ġ t"``).

        A ``#version`` header and empty lines among the merges are skipped. Tokens that are not spelled in the
        byte alphabet stand for their own text. Ids may come in any order and leave gaps, which stand for no text.
        Raises :class:`TokenizerError` if the two do not make one usable vocabulary.
        """
        lines = [line for n, line in enumerate(merges) if line and not (n == 0 and line.startswith("#version"))]
        standard = cls.gpt2()
        if len(encoder) == standard.n_vocab and lines == standard.merges() and encoder == standard.encoder():
            return standard
        return cls(_OwnVocabulary(dict(encoder), lines))

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Token ids of ``text``.

        With ``allow_special``, each ``<|endoftext|>`` becomes its one id (where the vocabulary has it); by default
        it is text like any other, as in the original. Raises :class:`TokenizerError` for text that has no UTF-8.
        """
        _check_utf8(text)
        if not allow_special or self.end_of_text is None:
            return self._vocabulary.encode(text)
        first, *rest = text.split(END_OF_TEXT_MARKER)
        ids = self._vocabulary.encode(first)
        for part in rest:
            ids.append(self.end_of_text)
            ids += self._vocabulary.encode(part)
        return ids

    def encode_many(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Token ids of all ``texts`` in one row, and how many belong to each; ``<|endoftext|>`` in them is text.

        The same ids as :meth:`encode` gives, without a Python object for each. With GPT-2's vocabulary other threads
        run meanwhile. Raises :class:`TokenizerError` for text that has no UTF-8.
        """
        for text in texts:
            _check_utf8(text)
        return self._vocabulary.encode_many(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``; bytes that are no UTF-8 become ``\\ufffd``. Raises as :meth:`token_bytes`."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes that token ``id`` stands for. Raises :class:`TokenizerError` if there is no such token."""
        if not hasattr(id, "__index__") or not 0 <= id < self.n_vocab:
            raise TokenizerError(f"there is no token {id!r}: ids are whole numbers from 0 to {self.n_vocab - 1}")
        return self._vocabulary.token_bytes(id)

    def encoder(self) -> dict[str, int]:
        """Token → id as in ``encoder.json``, where every byte is spelled as a printable character."""
        return self._vocabulary.encoder()

    def merges(self) -> list[str]:
        """The lines of ``vocab.bpe`` in order of rank, without the header."""
        return self._vocabulary.merges()

    def incremental_decoder(self) -> IncrementalDecoder:
        """A decoder for one stream of ids."""
        return IncrementalDecoder(self)


@cache
def _gpt2() -> Tokenizer:
    return Tokenizer(_Gpt2Vocabulary())


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise TokenizerError(
            f"character {error.start} of the text is U+{code:04X}, half of a surrogate pair: the text was not valid "
            "UTF-8 where it came from; re-encode it as UTF-8"
        ) from None


class _Vocabulary(Protocol):
    """What a :class:`Tokenizer` needs: the tokens, and how plain text is merged into them."""

    n_vocab: int
    end_of_text: int | None

    def token_bytes(self, id: int) -> bytes: ...
    def encode(self, text: str) -> list[int]: ...
    def encode_many(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]: ...
    def encoder(self) -> dict[str, int]: ...
    def merges(self) -> list[str]: ...


class _Gpt2Vocabulary:
    """GPT-2's own: the 256 bytes, then the product of each merge in order, then ``<|endoftext|>``.

    The products are read when the first token is asked for, and spelled out one by one: few tokens are ever seen.
    """

    def __init__(self) -> None:
        self._lines: list[bytes] | None = None
        self._encoding: tiktoken.Encoding | None = None
        self.n_vocab = GPT2_N_VOCAB
        self.end_of_text: int | None = END_OF_TEXT

    def token_bytes(self, id: int) -> bytes:
        if self._lines is None:
            self._lines = _read_tokens()
        return _spelled(self._lines[id])

    def encode(self, text: str) -> list[int]:
        encoding = self._built()
        parts = [text] if len(text) < _LONG_RUN else _cut_long_runs(text)
        return [id for part in parts for id in encoding.encode_ordinary(part)]

    def encode_many(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        import numpy as np

        if any(END_OF_TEXT_MARKER in text for text in texts):
            return _one_by_one(self.encode, texts)
        encode = self._built().encode_to_numpy
        joined = END_OF_TEXT_MARKER.join(texts)  # one call instead of many; nothing merges across the marker
        parts = [joined] if len(joined) < _LONG_RUN else list(_cut_long_runs(joined))
        if len(parts) > 1 < len(texts):  # whitespace at the end of a text is not cut as that before a word
            return _one_by_one(self.encode, texts)
        rows = [encode(part, allowed_special={END_OF_TEXT_MARKER}, disallowed_special=()) for part in parts]
        ids = rows[0] if len(rows) == 1 else np.concatenate(rows)
        if len(texts) == 1:
            return ids, np.asarray([len(ids)])
        marks = np.flatnonzero(ids == END_OF_TEXT)
        lengths = np.diff(marks, prepend=-1, append=len(ids)) - 1
        return ids[ids != END_OF_TEXT], lengths[: len(texts)]

    def _built(self) -> tiktoken.Encoding:
        if self._encoding is None:
            import tiktoken

            ranks = {_spelled(line): rank for rank, line in enumerate(_read_tokens()[:END_OF_TEXT])}
            special = {END_OF_TEXT_MARKER: END_OF_TEXT}  # plain text to encode_ordinary
            self._encoding = tiktoken.Encoding(
                "gpt2", pat_str=_SPLIT_TIKTOKEN, mergeable_ranks=ranks, special_tokens=special
            )
        return self._encoding

    def encoder(self) -> dict[str, int]:
        products = (line.replace(" ", "") for line in self.merges())
        return {token: id for id, token in enumerate([*_VISIBLE.values(), *products, END_OF_TEXT_MARKER])}

    def merges(self) -> list[str]:
        return VOCAB_FILE.read_text(encoding="utf-8").split("\n")[1:-1]


def _one_by_one(
    encode: Callable[[str], list[int]], texts: Sequence[str]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    import numpy as np

    rows = [np.asarray(encode(text), dtype=np.uint32) for text in texts]
    return np.concatenate([np.empty(0, np.uint32), *rows]), np.asarray([len(row) for row in rows], dtype=np.int64)


def _read_tokens() -> list[bytes]:
    """The tokens in order of their ids, for :func:`_spelled`: a merge of ``vocab.bpe`` makes what its line spells."""
    products = VOCAB_FILE.read_bytes().replace(b" ", b"").replace("Ġ".encode(), b" ").split(b"\n")[1:-1]
    return [*(char.encode() for char in _VISIBLE.values()), *products, END_OF_TEXT_MARKER.encode()]


def _spelled(line: bytes) -> bytes:
    """The bytes of a token; most are ASCII, which is as it should be once ``Ġ`` is a space again."""
    return line if line.isascii() else line.decode().translate(_BYTE_OF_LINE).encode("latin-1")


def _cut_long_runs(text: str) -> Iterator[str]:
    """``text`` in parts that encode as the whole does, cut before the last character of each long whitespace run.

    That is where the pattern itself cuts: the last whitespace character belongs to the word after it.
    """
    start = 0
    for run in re.finditer(_WHITE_SPACE + "{2,}", text):
        if run.end() - run.start() >= _LONG_RUN and run.end() < len(text):
            yield text[start : run.end() - 1]
            start = run.end() - 1
    yield text[start:]


class _OwnVocabulary:
    """A checkpoint's own: any ids, any merges, merged as in ``encoder.py``."""

    def __init__(self, encoder: dict[str, int], merges: list[str]) -> None:
        _check_ids(encoder)
        self._encoder = encoder
        self._merges = merges
        self._ranks = _parse_merges(merges, encoder)
        self._tokens = {id: _spelled_bytes(token) for token, id in encoder.items()}
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
        return _one_by_one(self.encode, texts)

    def _encode_piece(self, piece: str) -> list[int]:
        symbols = _merge(list(to_visible(piece.encode())), self._ranks)
        return [self._encoder[symbol] for symbol in symbols]

    def encoder(self) -> dict[str, int]:
        return dict(self._encoder)

    def merges(self) -> list[str]:
        return list(self._merges)


def _merge(symbols: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Join neighbours, always the pair of lowest rank next, everywhere it stands and from left to right.

    The original rebuilds the word at every step, which takes hours for a piece of a million letters; a heap of
    candidate pairs and links to the neighbours give the same in n log n.
    """
    after = list(range(1, len(symbols) + 1))
    before = list(range(-1, len(symbols) - 1))
    heap = [(ranks[pair], i, pair) for i, pair in enumerate(pairwise(symbols)) if pair in ranks]
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
            if right < len(symbols) and (pair := (symbols[left], symbols[right])) in ranks:
                heapq.heappush(heap, (ranks[pair], left, pair))
    return [symbol for symbol in symbols if symbol]


def _check_ids(encoder: Mapping[str, int]) -> None:
    """Every byte has a token, and no two tokens share an id."""
    seen: dict[int, str] = {}
    for token, id in encoder.items():
        if isinstance(id, bool) or not isinstance(id, int) or not 0 <= id < 1 << 31:
            raise TokenizerError(f"encoder.json gives token {token!r} the id {id!r}: ids are whole numbers from 0 on")
        if id in seen:
            raise TokenizerError(f"encoder.json gives the id {id} to two tokens, {seen[id]!r} and {token!r}")
        seen[id] = token
    for byte, char in _VISIBLE.items():
        if char not in encoder:
            raise TokenizerError(f"encoder.json has no token {char!r} for the byte {byte}: no byte-level vocabulary")


def _parse_merges(merges: Sequence[str], encoder: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Pair → rank. Both halves and the product must be tokens."""
    ranks: dict[tuple[str, str], int] = {}
    for rank, line in enumerate(merges):
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise TokenizerError(f"merge {rank + 1} of vocab.bpe is {line!r}: expected two tokens with a space between")
        for token in (left, right, left + right):
            if token not in encoder:
                raise TokenizerError(f"merge {rank + 1} of vocab.bpe is {line!r}, but encoder.json has no {token!r}")
        if (left, right) in ranks:
            raise TokenizerError(f"merge {rank + 1} of vocab.bpe, {line!r}, is there twice")
        ranks[left, right] = rank
    return ranks


def _spelled_bytes(token: str) -> bytes:
    """Bytes that ``token`` spells in the byte alphabet, or its own UTF-8 if it is not spelled in it."""
    try:
        if all(ord(char) in _BYTE_OF for char in token):
            return bytes(_BYTE_OF[ord(char)] for char in token)
        return token.encode()
    except UnicodeEncodeError:
        raise TokenizerError(f"encoder.json has the token {token!r}, which is no valid text") from None
