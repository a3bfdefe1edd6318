"""Text to token ids and back, with the ids of the original ``encoder.py``.

Knows nothing of models, contexts or files of checkpoints: who has an ``encoder.json`` reads it and hands the contents
over. How text is merged into tokens is :mod:`gpt2lab.bpe`.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from gpt2lab.bpe import END_OF_TEXT_MARKER, Gpt2Vocabulary, OwnVocabulary, Vocabulary
from gpt2lab.errors import TokenizerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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

    def __init__(self, vocabulary: Vocabulary) -> None:
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
        return cls(OwnVocabulary(dict(encoder), lines))

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
    return Tokenizer(Gpt2Vocabulary())


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise TokenizerError(
            f"character {error.start} of the text is U+{code:04X}, half of a surrogate pair: the text was not valid "
            "UTF-8 where it came from; re-encode it as UTF-8"
        ) from None
