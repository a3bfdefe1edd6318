"""One sample of a request, from drawn ids to the parts of the answer.

Text is sent once it is final (``Transcript``). A token's log-probability is sent with the text that begins with the
token, so tokens that spelled a stop string are never sent; an end of text is sent last. For clients that look at ids,
``every_token`` sends each token as soon as it is drawn. This module knows nothing of HTTP.
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
    """Natural log-probability; None for the first token of a text."""
    top: Top
    """The likeliest ids in its place, with their log-probabilities."""
    offset: int
    """Number of characters of prompt and text before it."""


class Delta(NamedTuple):
    """The newly final part of a sample."""

    sample: int
    """The sample's number in its request."""
    text: str
    entries: tuple[Entry, ...] = ()
    finish: Literal["stop", "length"] | None = None
    """The reason for its end; None before that."""
    n_tokens: int = 0
    """Number of tokens drawn so far, without the end of text."""
    mean_logprob: float = 0.0
    """Mean log-probability of all tokens; set when the sample ended."""
    ids: tuple[int, ...] = ()
    """All ids drawn since the last part, if they are wanted, with those that ended the sample."""


class Sample:
    """A running sample.

    ``whole``: nothing is sent before its end. ``logprobs``: tokens are sent, too. ``every_token``: each as it is drawn.
    ``ids``: the drawn ids are sent; in a stream, each as it is drawn. ``offset``: number of characters of its prompt.
    ``number``: its number in its request.
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
        ids: bool = False,
    ) -> None:
        self.ended = False
        self.number = number
        self._transcript = transcript
        self._whole = whole
        self._tokens = _Tokens(tokenizer, offset) if logprobs else None
        self._every_token = every_token
        self._ids: list[int] | None = [] if ids else None
        self._offset = offset
        self._n_characters = offset

    @property
    def n_tokens(self) -> int:
        """Number of tokens drawn so far, without the end of text; any thread may read it."""
        return len(self._transcript.tokens)

    def push(self, event: Event) -> Delta | None:
        """Take one drawn token; return the part that it makes final, None if nothing is to be sent."""
        script = self._transcript
        text = script.push(event.token, event.logprob, event.last)
        if self._tokens:
            self._tokens.add(event)
        if self._ids is not None:
            self._ids.append(event.token)
        self._n_characters += len(text)
        self.ended = event.last or script.stopped
        if self.ended:
            return self._end(script.text if self._whole else text, event.token)
        if self._whole:
            return None
        entries, ids = self._certain(), self._take_ids()
        return Delta(self.number, text, entries, n_tokens=self.n_tokens, ids=ids) if text or entries or ids else None

    def _end(self, text: str, last: int) -> Delta:
        """Return the last part; ``last`` is the last token drawn."""
        script = self._transcript
        stopped = script.stopped
        spelled_stop = stopped and last not in script.ends
        entries = self._certain() if spelled_stop or not self._tokens else self._tokens.rest()
        n = len(script.tokens)
        mean = sum(script.logprobs) / n if n else 0.0
        return Delta(self.number, text, entries, "stop" if stopped else "length", n, mean, self._take_ids())

    def _take_ids(self) -> tuple[int, ...]:
        """Remove and return the ids that have not been sent."""
        ids = tuple(self._ids or ())
        if self._ids:
            self._ids.clear()
        return ids

    def _certain(self) -> tuple[Entry, ...]:
        """Return the tokens that may be sent now."""
        if not self._tokens:
            return ()
        return self._tokens.rest() if self._every_token else self._tokens.before(self._n_characters)


class _Tokens:
    """The tokens that have not been sent yet, and where each begins."""

    def __init__(self, tokenizer: Tokenizer, offset: int) -> None:
        self.n_characters = offset
        self._decoder = tokenizer.incremental_decoder()
        self._waiting: deque[Entry] = deque()

    def add(self, event: Event) -> None:
        self._waiting.append(Entry(event.token, event.logprob, event.top, self.n_characters))
        self.n_characters += len(self._decoder.feed(event.token))

    def before(self, n_characters: int) -> tuple[Entry, ...]:
        """Remove and return the tokens that begin before ``n_characters``."""
        entries = []
        while self._waiting and self._waiting[0].offset < n_characters:
            entries.append(self._waiting.popleft())
        return tuple(entries)

    def rest(self) -> tuple[Entry, ...]:
        """Remove and return all tokens that are left."""
        entries = tuple(self._waiting)
        self._waiting.clear()
        return entries
