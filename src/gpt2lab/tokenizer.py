"""Text to token ids and back, with the ids of the original ``encoder.py``.

This module knows nothing of models, contexts or checkpoint files: callers read an ``encoder.json`` and pass its
contents. :mod:`gpt2lab.bpe` merges text into tokens.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from gpt2lab.bpe import END_OF_TEXT_MARKER, Gpt2Vocabulary, OwnVocabulary, Vocabulary
from gpt2lab.errors import TokenizerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class AddedToken:
    """A token that text matches as a whole, before any merging.

    Attributes:
        content: the text that it matches.
        id: its id; it may be beyond the rows of the embedding, if no text needs it.
        special: whether it marks something rather than being a word. Without ``special=True``, text never matches it.
        normalized: whether tokens that are not ``normalized`` are matched first.
    """

    content: str
    id: int
    special: bool = True
    normalized: bool = False


@dataclass(frozen=True)
class SpecialTokens:
    """What a model's files say of its special tokens; the defaults mean that they say nothing.

    Attributes:
        added: all added tokens, special or not.
        eos: the ids that end a text, the most usual first; None: the files name none, and ``<|endoftext|>`` does.
        bos: the id that begins a text.
        pad, unk: the ids of padding and of unknown characters.
        before, after: ids that the tokenizer puts around every text.
        chat_template: the template of chats, in Jinja.
    """

    added: tuple[AddedToken, ...] = ()
    eos: tuple[int, ...] | None = None
    bos: int | None = None
    pad: int | None = None
    unk: int | None = None
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    chat_template: str | None = None


class IncrementalDecoder:
    """A decoder that turns ids into text as they arrive, and holds back a character's bytes until it is complete.

    All pieces and the final :meth:`flush`, joined, equal the result of :meth:`Tokenizer.decode` for the same ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, id: int) -> str:
        """Return the text that token ``id`` completes; empty while a character is still incomplete."""
        return self._decoder.decode(self._token_bytes(id))

    def flush(self) -> str:
        """Return what is left at the end: ``\\ufffd`` for an unfinished character, else nothing."""
        return self._decoder.decode(b"", final=True)


class Tokenizer:
    """A byte-level BPE vocabulary: :meth:`gpt2` for GPT-2's own, :meth:`from_files` for a checkpoint's.

    Attributes:
        n_vocab: number of tokens; ids are 0 … n_vocab - 1.
        end_of_text: id of ``<|endoftext|>``, or None if the vocabulary has none.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.n_vocab: int = vocabulary.n_vocab
        self.end_of_text: int | None = vocabulary.end_of_text

    @classmethod
    def gpt2(cls) -> Tokenizer:
        """Return GPT-2's vocabulary of 50257 tokens, built once, on the first call."""
        return _gpt2()

    @classmethod
    def from_files(cls, encoder: Mapping[str, int], merges: Sequence[str]) -> Tokenizer:
        """Build the vocabulary of a checkpoint's ``encoder.json`` (token → id) and ``vocab.bpe`` (lines ``"Ġ t"``).

        A ``#version`` header and empty lines among the merges are skipped. Tokens not spelled in the byte alphabet
        stand for their own text. Ids may come in any order and leave gaps; a missing id stands for no text.
        Raises :class:`TokenizerError` if the two do not make one usable vocabulary.
        """
        lines = [line for n, line in enumerate(merges) if line and not (n == 0 and line.startswith("#version"))]
        standard = cls.gpt2()
        if len(encoder) == standard.n_vocab and lines == standard.merges() and encoder == standard.encoder():
            return standard
        return cls(OwnVocabulary(dict(encoder), lines))

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Return the token ids of ``text``.

        With ``allow_special``, each ``<|endoftext|>`` becomes its single id (if the vocabulary has it); by default
        it is text like any other, as in the original. Raises :class:`TokenizerError` for text that UTF-8 cannot encode.
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
        """Return the token ids of all ``texts`` in one row, and the number for each; ``<|endoftext|>`` is plain text.

        The ids equal those of :meth:`encode`, without a Python object for each. With GPT-2's vocabulary, other
        threads run meanwhile. Raises :class:`TokenizerError` for text that UTF-8 cannot encode.
        """
        for text in texts:
            _check_utf8(text)
        return self._vocabulary.encode_many(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; bytes that are not UTF-8 become ``\\ufffd``. Raises as :meth:`token_bytes`."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes that token ``id`` stands for. Raises :class:`TokenizerError` if there is no such token."""
        if not hasattr(id, "__index__") or not 0 <= id < self.n_vocab:
            raise TokenizerError(f"there is no token {id!r}: ids are whole numbers from 0 to {self.n_vocab - 1}")
        return self._vocabulary.token_bytes(id)

    def encoder(self) -> dict[str, int]:
        """Return token → id as in ``encoder.json``, where every byte is spelled as a printable character."""
        return self._vocabulary.encoder()

    def merges(self) -> list[str]:
        """Return the lines of ``vocab.bpe`` in order of rank, without the header."""
        return self._vocabulary.merges()

    def incremental_decoder(self) -> IncrementalDecoder:
        """Return a decoder for one stream of ids."""
        return IncrementalDecoder(self)


class _Splitter:
    """Cuts text at added tokens, as the ``tokenizers`` package does: the first match counts, of several the longest."""

    def __init__(self, added: Sequence[AddedToken]) -> None:
        passes = [[token for token in added if token.normalized is later] for later in (False, True)]
        self._passes = [(_pattern(tokens), {token.content: token for token in tokens}) for tokens in passes if tokens]

    def split(self, text: str, *, special: bool) -> Iterator[str | int]:
        """Yield the parts of ``text``: plain text, and the ids of added tokens between; special ones if ``special``."""
        yield from self._split(text, special, 0)

    def _split(self, text: str, special: bool, stage: int) -> Iterator[str | int]:
        if stage == len(self._passes):
            if text:
                yield text
            return
        pattern, tokens = self._passes[stage]
        start = 0
        for match in pattern.finditer(text):
            token = tokens[match.group()]
            if token.special and not special:
                continue
            yield from self._split(text[start : match.start()], special, stage + 1)
            yield token.id
            start = match.end()
        yield from self._split(text[start:], special, stage + 1)


def _pattern(tokens: Sequence[AddedToken]) -> re.Pattern[str]:
    """Return a pattern that prefers longer tokens where several begin at one place."""
    return re.compile("|".join(re.escape(each) for each in sorted({t.content for t in tokens}, key=len, reverse=True)))


@cache
def _gpt2() -> Tokenizer:
    return Tokenizer(Gpt2Vocabulary())


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise TokenizerError(
            f"character {error.start} of the text is U+{code:04X}, an unpaired surrogate: the text was not valid "
            "UTF-8 where it came from; re-encode it as UTF-8"
        ) from None
