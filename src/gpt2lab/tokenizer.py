"""Text to token ids and back, with the ids of the original ``encoder.py``.

This module knows nothing of models, contexts or checkpoint files: callers read an ``encoder.json`` and pass its
contents. :mod:`gpt2lab.bpe` merges text into tokens.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import cache, cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gpt2lab.bpe import END_OF_TEXT_MARKER, Gpt2Vocabulary, OwnVocabulary, Vocabulary, one_by_one
from gpt2lab.config import END_OF_TEXT
from gpt2lab.errors import TokenizerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class AddedToken(NamedTuple):
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


class SpecialTokens(NamedTuple):  # cheaper at start than a dataclass
    """What a model's files say of its special tokens; the defaults mean that they say nothing.

    Attributes:
        added: all added tokens, special or not.
        eos: the ids that end a text, the most usual first; None: the files name none, and ``<|endoftext|>`` does.
        bos: the id that begins a text.
        pad, unk: the ids of padding and of unknown characters.
        before, after: ids that the tokenizer puts around every text.
        chat_template: the template of chats, in Jinja.
        more_templates: the name and the text of each further template, such as one for the use of tools.
    """

    added: tuple[AddedToken, ...] = ()
    eos: tuple[int, ...] | None = None
    bos: int | None = None
    pad: int | None = None
    unk: int | None = None
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    chat_template: str | None = None
    more_templates: tuple[tuple[str, str], ...] = ()

    @property
    def are_gpt2s(self) -> bool:
        """Whether texts and their ends are those of GPT-2's own tokenizer."""
        own = {(END_OF_TEXT_MARKER, END_OF_TEXT, True)}
        added = {(token.content, token.id, token.special) for token in self.added}
        ends = self.eos in (None, (END_OF_TEXT,)) and self.bos in (None, END_OF_TEXT)
        return added <= own and ends and not self.before and not self.after


class Decoder(Protocol):
    """The interface of a decoder of one stream of ids."""

    def feed(self, id: int) -> str:
        """Return the text that token ``id`` completes."""

    def flush(self) -> str:
        """Return what is left at the end."""


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

    ``rows`` is the number of ids that the model has, which may be fewer than the vocabulary's.

    Attributes:
        n_vocab: number of tokens; ids are 0 … n_vocab - 1.
        special: the special tokens, as the model's files state them.
        end_of_text: the id between documents: that of ``<|endoftext|>`` or, if the model ends texts with other ids, the
            first of these; None if there is none.
        eos: the ids that end a text.
        start: the id that begins a text; None if there is none.
        reads_special: whether text matches special tokens where a call does not say.
    """

    def __init__(self, vocabulary: Vocabulary, special: SpecialTokens | None = None, rows: int | None = None) -> None:
        self._vocabulary = vocabulary
        self.special = special or SpecialTokens()
        added = _with_end_of_text(self.special.added, vocabulary.end_of_text)
        self._set(added, max([vocabulary.n_vocab, *(token.id + 1 for token in added)]), vocabulary.end_of_text, rows)

    def _set(self, added: Sequence[AddedToken], n_vocab: int, end_of_text: int | None, rows: int | None) -> None:
        self._added = {token.id: token for token in added}
        self.n_vocab: int = n_vocab if rows is None else min(n_vocab, rows)
        self._is_whole = self.n_vocab == n_vocab
        stated = self.special.eos
        if stated and end_of_text not in stated:
            end_of_text = stated[0]
        self.end_of_text: int | None = end_of_text
        self.eos: tuple[int, ...] = stated if stated is not None else () if end_of_text is None else (end_of_text,)
        self.start: int | None = end_of_text if self.special.bos is None else self.special.bos
        self.reads_special = False
        self._matched = {special: any(special or not token.special for token in added) for special in (False, True)}

    @classmethod
    def gpt2(cls, special: SpecialTokens | None = None) -> Tokenizer:
        """Return GPT-2's vocabulary of 50257 tokens, built once, on the first call; ``special`` may add tokens."""
        return _gpt2() if special is None or special.are_gpt2s else cls(_gpt2()._vocabulary, special)

    @classmethod
    def from_files(
        cls,
        encoder: Mapping[str, int],
        merges: Sequence[str],
        special: SpecialTokens | None = None,
        rows: int | None = None,
    ) -> Tokenizer:
        """Build the vocabulary of a checkpoint's ``encoder.json`` (token → id) and ``vocab.bpe`` (lines ``"Ġ t"``).

        A ``#version`` header and empty lines among the merges are skipped. Tokens not spelled in the byte alphabet
        stand for their own text. Ids may come in any order and leave gaps; a missing id stands for no text. ``encoder``
        also holds the added tokens of ``special``; ``rows`` is the number of ids that the model has.
        Raises :class:`TokenizerError` if the two do not make one usable vocabulary.
        """
        lines = [line for n, line in enumerate(merges) if line and not (n == 0 and line.startswith("#version"))]
        standard = cls.gpt2()
        added = {token.content for token in special.added if token.id >= standard.n_vocab} if special else set()
        if len(encoder) - len(added) == standard.n_vocab and lines == standard.merges():
            base = {token: id for token, id in encoder.items() if token not in added}
            if base == standard.encoder():
                plain = special is None and rows in (None, standard.n_vocab)
                return standard if plain else cls(standard._vocabulary, special, rows)
        return cls(OwnVocabulary(dict(encoder), lines), special, rows)

    def reading_special(self) -> Tokenizer:
        """Return a tokenizer of the same vocabulary for texts in which special tokens are matched."""
        other = copy(self)
        other.reads_special = True
        return other

    def encode(self, text: str, *, special: bool | None = None, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of ``text``.

        With ``special``, special tokens such as ``<|endoftext|>`` become their single ids; by default they are text
        like any other, as in the original. Added tokens that are words always become their ids. With
        ``add_special_tokens``, the ids include those that the model's files put before and after every text; GPT-2's
        put none. Raises :class:`TokenizerError` for text that UTF-8 cannot encode, and for text that needs an id which
        the model does not have.
        """
        ids = self._encoded(text, self.reads_special if special is None else special)
        around = self.special
        if add_special_tokens and (around.before or around.after):
            return [*around.before, *ids, *around.after]
        return ids

    def encode_many(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return the token ids of all ``texts`` in one row, and the number for each, without ids around them.

        The ids equal those of :meth:`encode`, without a Python object for each. With GPT-2's vocabulary, other
        threads run meanwhile. Raises as :meth:`encode` does.
        """
        if self._matched[self.reads_special] or not self._is_whole:
            return one_by_one(lambda text: self._encoded(text, self.reads_special), texts)
        for text in texts:
            check_utf8(text)
        return self._vocabulary.encode_many(texts)

    def _encoded(self, text: str, special: bool) -> list[int]:
        """Return the ids of ``text`` itself."""
        check_utf8(text)
        if not self._matched[special]:
            ids = self._vocabulary.encode(text)
        else:
            ids = []
            for part in self._splitter.split(text, special=special):
                ids += [part] if isinstance(part, int) else self._vocabulary.encode(part)
        self._check_rows(ids)
        return ids

    def _check_rows(self, ids: Sequence[int]) -> None:
        """Raise :class:`TokenizerError` for an id that the model does not have."""
        if self._is_whole or not (beyond := [id for id in ids if id >= self.n_vocab]):
            return
        token = self._bytes_of(beyond[0]).decode("utf-8", "replace")
        raise TokenizerError(
            f"the text holds {token!r}, whose id is {beyond[0]}, but the model has only the ids 0 to {self.n_vocab - 1}"
        )

    @cached_property
    def _splitter(self) -> _Splitter:
        return _Splitter(list(self._added.values()))

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids of special tokens."""
        return frozenset(id for id, token in self._added.items() if token.special)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; bytes that are not UTF-8 become ``\\ufffd``. Raises as :meth:`token_bytes`."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes that token ``id`` stands for. Raises :class:`TokenizerError` if there is no such token."""
        if not hasattr(id, "__index__") or not 0 <= id < self.n_vocab:
            raise TokenizerError(f"there is no token {id!r}: ids are whole numbers from 0 to {self.n_vocab - 1}")
        return self._bytes_of(id)

    def _bytes_of(self, id: int) -> bytes:
        added = self._added.get(id)
        return self._vocabulary.token_bytes(id) if added is None else added.content.encode("utf-8", "replace")

    def encoder(self) -> dict[str, int]:
        """Return token → id as in ``encoder.json``, where every byte is spelled as a printable character."""
        return self._vocabulary.encoder() | {token.content: id for id, token in self._added.items()}

    def merges(self) -> list[str]:
        """Return the lines of ``vocab.bpe`` in order of rank, without the header."""
        return self._vocabulary.merges()

    def incremental_decoder(self, after: Sequence[int] = ()) -> Decoder:
        """Return a decoder for one stream of ids, which continues the text of the ids ``after``."""
        return IncrementalDecoder(self)


def _with_end_of_text(added: Sequence[AddedToken], end_of_text: int | None) -> list[AddedToken]:
    """Return ``added`` with ``<|endoftext|>``, which is special in every vocabulary that has it."""
    if end_of_text is None or any(token.content == END_OF_TEXT_MARKER for token in added):
        return list(added)
    return [*added, AddedToken(END_OF_TEXT_MARKER, end_of_text)]


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


def check_utf8(text: str) -> None:
    """Raise :class:`TokenizerError` for text that UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise TokenizerError(
            f"character {error.start} of the text is U+{code:04X}, an unpaired surrogate: the text was not valid "
            "UTF-8 where it came from; re-encode it as UTF-8"
        ) from None
