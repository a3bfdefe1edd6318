"""One sample of a request on its way from drawn ids to what its client is sent.

Text is told when it is certain (``Transcript``), and a token's log-probability with the text
that it begins: what spelled a stop string is never told. Or every token is told as soon as it is drawn, what ended the
sample included, for those who look at ids. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal, NamedTuple

from gpt2lab.generation.completion import Transcript

if TYPE_CHECKING:
    from gpt2lab.generation.requests import Event
    from gpt2lab.tokenizer import Tokenizer

Top = tuple[tuple[int, float], ...]


class Entry(NamedTuple):
    """One token with its log-probability."""

    token: int
    logprob: float | None
    """Natural logarithm; None for the first token of a text."""
    top: Top
    """The likeliest ids in its place, and theirs."""
    offset: int
    """Characters of prompt and text before it."""


class Delta(NamedTuple):
    """What became certain of a sample."""

    sample: int
    """Which of its request's."""
    text: str
    entries: tuple[Entry, ...] = ()
    finish: Literal["stop", "length"] | None = None
    """Why it ended, if it did."""
    n_tokens: int = 0
    """Tokens drawn, told when it ended; the end of text is not counted."""
    mean_logprob: float = 0.0
    """Of those tokens, told when it ended."""


class Sample:
    """A sample under way.

    ``whole``: nothing is told before its end. ``logprobs``: tokens are told; ``every_token``: all of them, and at once.
    ``offset``: characters of its prompt.
    """

    def __init__(
        self,
        number: int,
        transcript: Transcript,
        tokenizer: Tokenizer,
        *,
        whole: bool,
        logprobs: bool,
        offset: int,
        every_token: bool = False,
    ) -> None:
        self.ended = False
        self._number = number
        self._transcript = transcript
        self._whole = whole
        self._tokens = _Tokens(tokenizer, offset) if logprobs else None
        self._every_token = every_token
        self._offset = offset
        self._n_characters = offset

    def push(self, event: Event) -> Delta | None:
        """Take one drawn token; what there is to tell because of it."""
        script = self._transcript
        n_tokens = len(script.tokens)
        text = script.push(event.token, event.logprob, event.last)
        if self._tokens and (len(script.tokens) > n_tokens or self._every_token):
            self._tokens.add(event)
        self._n_characters += len(text)
        self.ended = event.last or script.stopped
        if self.ended:
            return self._end(script.text if self._whole else text)
        if self._whole:
            return None
        entries = self._certain()
        return Delta(self._number, text, entries) if text or entries else None

    def _end(self, text: str) -> Delta:
        script = self._transcript
        stopped = script.stopped
        spelled_stop = stopped and self._tokens is not None and self._tokens.n_characters > self._n_characters
        entries = self._certain() if spelled_stop or not self._tokens else self._tokens.rest()
        n = len(script.tokens)
        mean = sum(script.logprobs) / n if n else 0.0
        return Delta(self._number, text, entries, "stop" if stopped else "length", n, mean)

    def _certain(self) -> tuple[Entry, ...]:
        """Tokens that may be told now."""
        if not self._tokens:
            return ()
        return self._tokens.rest() if self._every_token else self._tokens.before(self._n_characters)


class _Tokens:
    """Tokens whose text has not been told yet, and where each begins."""

    def __init__(self, tokenizer: Tokenizer, offset: int) -> None:
        self.n_characters = offset
        self._decoder = tokenizer.incremental_decoder()
        self._waiting: deque[Entry] = deque()

    def add(self, event: Event) -> None:
        self._waiting.append(Entry(event.token, event.logprob, event.top, self.n_characters))
        self.n_characters += len(self._decoder.feed(event.token))

    def before(self, n_characters: int) -> tuple[Entry, ...]:
        """Those that begin before ``n_characters``, which are not told again."""
        entries = []
        while self._waiting and self._waiting[0].offset < n_characters:
            entries.append(self._waiting.popleft())
        return tuple(entries)

    def rest(self) -> tuple[Entry, ...]:
        """All that are left."""
        entries = tuple(self._waiting)
        self._waiting.clear()
        return entries
