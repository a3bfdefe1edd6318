"""Tokenizers that are not GPT-2's kind, run by the ``tokenizers`` package: Unigram, WordPiece, normalizers and others.

The package is an optional extra: ``pip install 'gpt2lab[tokenizers]'``. Importing this module needs it. Texts get the
ids that the package gives them, and ids the package's text, also piece by piece. This module knows nothing of files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import tokenizers

from gpt2lab.bpe import END_OF_TEXT_MARKER, one_by_one, spelled_bytes
from gpt2lab.errors import TokenizerError
from gpt2lab.tokenizer import AddedToken, Decoder, IncrementalDecoder, SpecialTokens, Tokenizer, check_utf8

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WINDOW = 16  # ids before the next one that may change how it is spelled; more than any decoder looks back
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class PackageTokenizer(Tokenizer):
    """A tokenizer that the ``tokenizers`` package runs, described by the text of a ``tokenizer.json``.

    Raises :class:`TokenizerError` if the package cannot build it.
    """

    def __init__(self, description: str, special: SpecialTokens | None = None, rows: int | None = None) -> None:
        self.special = special or SpecialTokens()
        self._arguments = description, special, rows
        self._plain = self._built(encode_special_tokens=True)
        content = json.loads(description)
        decoder = content.get("decoder") or {}
        self._is_byte_level = decoder.get("type") == "ByteLevel"
        self._has_bytes = bool(content["model"].get("byte_fallback"))
        added = [
            AddedToken(token.content, id, token.special, token.normalized)
            for id, token in self._plain.get_added_tokens_decoder().items()
        ]
        n_vocab = max(self._plain.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._set(added, n_vocab, self._plain.token_to_id(END_OF_TEXT_MARKER), rows)
        self._piece = lru_cache(maxsize=1 << 16)(self._piece_of)

    def __reduce__(self) -> tuple[type[PackageTokenizer], tuple[Any, ...]]:
        return PackageTokenizer, self._arguments

    def _built(self, *, encode_special_tokens: bool) -> tokenizers.Tokenizer:
        try:
            built = tokenizers.Tokenizer.from_str(self._arguments[0])
        except BaseException as error:  # the package raises Exception itself, and where it panics, a BaseException
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            reason = " ".join(str(error).split())
            raise TokenizerError(f"the tokenizers package cannot build the tokenizer ({reason})") from None
        built.no_truncation()
        built.no_padding()
        built.encode_special_tokens = encode_special_tokens
        known = {token.content for token in built.get_added_tokens_decoder().values()}
        for token in self.special.added:
            if token.content not in known:
                text = tokenizers.AddedToken(token.content, normalized=token.normalized, special=token.special)
                (built.add_special_tokens if token.special else built.add_tokens)([text])
            if built.token_to_id(token.content) != token.id:
                raise TokenizerError(
                    f"the added token {token.content!r} has the id {token.id} in one file and "
                    f"{built.token_to_id(token.content)} in the tokenizer"
                )
        return built

    @cached_property
    def _special(self) -> tokenizers.Tokenizer:
        """The same tokenizer, which matches special tokens in text."""
        return self._built(encode_special_tokens=False)

    def _encoded(self, text: str, special: bool) -> list[int]:
        check_utf8(text)
        backend = self._special if special else self._plain
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        self._check_rows(ids)
        return ids

    def encode_many(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return the token ids of all ``texts`` in one row, and the number for each. Raises as :meth:`encode` does."""
        return one_by_one(lambda text: self._encoded(text, self.reads_special), texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, as the package spells it. Raises as :meth:`token_bytes`."""
        if self._is_byte_level:
            return super().decode(ids)
        for id in ids:
            self.token_bytes(id)
        return self._text(list(ids))

    def _text(self, ids: list[int]) -> str:
        text: str = self._plain.decode(ids, skip_special_tokens=False)
        return text

    def _bytes_of(self, id: int) -> bytes:
        return self._piece(id)

    def _piece_of(self, id: int) -> bytes:
        """Return the bytes that ``id`` adds to a text before it."""
        token = self._plain.id_to_token(id)
        if token is None:
            return b""
        if id in self._added:
            return self._added[id].content.encode()
        if self._is_byte_level:
            return spelled_bytes(token)
        if self._has_bytes and (byte := _BYTE.fullmatch(token)):
            return bytes.fromhex(byte[1])
        return self._text([self._before, id])[len(self._text([self._before])) :].encode()

    @cached_property
    def _before(self) -> int:
        """An ordinary token, after which others are spelled as within a text."""
        ids = self._plain.encode("a", add_special_tokens=False).ids
        return int(ids[-1]) if ids else 0

    def encoder(self) -> dict[str, int]:
        """Return token → id, in the tokenizer's own spelling."""
        vocabulary: dict[str, int] = self._plain.get_vocab(with_added_tokens=True)
        return vocabulary

    def merges(self) -> list[str]:
        """Raise :class:`TokenizerError`: this is no byte-level BPE."""
        raise TokenizerError("this model's tokenizer has no merges like GPT-2's, so its steps cannot be shown")

    def incremental_decoder(self, after: Sequence[int] = ()) -> Decoder:
        """Return a decoder for one stream of ids, which continues the text of the ids ``after``."""
        return IncrementalDecoder(self) if self._is_byte_level else _WindowDecoder(self._text, after)


class _WindowDecoder:
    """A decoder that spells each id together with those before it, since the package spells a first word unlike others.

    It holds back what may be part of a character.
    """

    def __init__(self, spell: Callable[[list[int]], str], after: Sequence[int]) -> None:
        self._spell = spell
        self._ids = list(after)[-_WINDOW:]
        self._n_given = len(spell(self._ids))

    def feed(self, id: int) -> str:
        """Return the text that token ``id`` completes."""
        self._ids.append(id)
        text = self._spell(self._ids)
        sure = len(text.rstrip("\ufffd"))
        given, self._n_given = text[self._n_given : sure], max(self._n_given, sure)
        if len(self._ids) > 2 * _WINDOW and sure == len(text):
            del self._ids[:-_WINDOW]
            self._n_given = len(self._spell(self._ids))
        return given

    def flush(self) -> str:
        """Return what is left at the end."""
        text = self._spell(self._ids)
        given, self._n_given = text[self._n_given :], len(text)
        return given
