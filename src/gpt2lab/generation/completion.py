"""The results of generation: completions, and how their text is built token by token.

A :class:`Transcript` takes the ids that are drawn and gives text that is final: no half characters, and nothing that
may still turn out to be the beginning of a stop string. It knows nothing of engines or of how ids are drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gpt2lab.errors import shortened

if TYPE_CHECKING:
    from gpt2lab.errors import StageError
    from gpt2lab.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "context", "error"]
"""Reason for a sample's end: end of text or a stop string; its length; a full context; an error in a custom stage."""

Prompt = str | Sequence[int]
"""Text, or token ids."""


@dataclass(frozen=True)
class Completion:
    """One sample.

    Attributes:
        prompt: the prompt as it was given, text or ids.
        text: the completion without its prompt and without the stop string that ended it; empty if the model has no
            tokenizer.
        tokens: the ids drawn, without the prompt's. An end of text that stopped the sample is left out; the ids that
            spelled a stop string are not.
        logprobs: natural log-probability of each of ``tokens`` under softmax(logits) before any filter, if requested.
        seed: the seed used, drawn by the system if none was given.
        index: number of the random stream of ``seed``, and the place in the list that ``generate`` returns.
        finish_reason: ``stop``, ``length``, ``context`` or ``error``.
        top_logprobs: for each of ``tokens`` the likeliest ids in its place and their log-probabilities, likeliest
            first, if requested.
        token_texts: the text that each of ``tokens`` adds, stop strings included, if ``logprobs`` was requested and the
            model has a tokenizer.
        error: the error if a custom stage ended the sample; its ``__cause__`` is the exception that the stage raised,
            with its traceback.
    """

    prompt: Prompt
    text: str
    tokens: list[int]
    logprobs: list[float] | None
    seed: int
    index: int
    finish_reason: FinishReason
    top_logprobs: list[tuple[tuple[int, float], ...]] | None = None
    error: StageError | None = None
    token_texts: list[str] | None = None

    def __repr__(self) -> str:
        ended = f"{len(self.tokens):,} tokens, {self.finish_reason}, seed {self.seed}, index {self.index}"
        prompt = shortened(self.prompt) if isinstance(self.prompt, str) else f"{len(self.prompt)} ids"
        return f"<Completion of {prompt}: {shortened(self.text or self.tokens)} ({ended})>"

    def _repr_html_(self) -> str:
        """Return prompt and text for a notebook, tokens coloured by their probability if it is known."""
        from gpt2lab.markup import fragment, html

        prompt = self.prompt if isinstance(self.prompt, str) else " ".join(map(str, self.prompt))
        text = fragment.plain_text(self.text or " ".join(map(str, self.tokens)))
        if self.logprobs is not None and self.token_texts is not None:
            records = html.probable(self.tokens, self.token_texts, self.logprobs, self.text)
            text = html.titled_tokens(records, "The completion, token by token") + html.tints("Probability of a token:")
        about = f"{len(self.tokens):,} tokens, ended by {self.finish_reason}; seed {self.seed}, index {self.index}"
        return fragment.fragment(f"{fragment.prompt(prompt)}{text}{fragment.faint(about)}")


@dataclass(frozen=True)
class Piece:
    """The text that one drawn token adds to one sample.

    Attributes:
        index: the sample's number, as :attr:`Completion.index`.
        prompt: its prompt, as it was given.
        text: text that is now final; often a word, sometimes empty.
        completion: the whole sample if this is its last piece, else None.
    """

    index: int
    prompt: Prompt
    text: str
    completion: Completion | None


class Transcript:
    """The text of one sample, built as its tokens arrive.

    ``ends`` are the ids that end it; ``stop`` are strings that end it wherever they appear in the text that follows the
    first ``n_unstopped`` tokens. The stop string that is complete first counts; if several are complete at once, the
    longest. Ids in ``hidden`` add nothing to the text, which continues that of the ids ``after``.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        ends: Collection[int] = (),
        stop: Sequence[str] = (),
        *,
        hidden: Collection[int] = (),
        n_unstopped: int = 0,
        after: Sequence[int] = (),
    ) -> None:
        self.ends = ends
        self.stop = stop
        self._hidden = hidden
        self._n_unstopped = n_unstopped
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.texts: list[str] | None = [] if tokenizer else None
        """The text that each token adds, stop strings included."""
        self.stopped = False
        """Whether an id or a string that ends the text has been reached."""
        self._decoder = tokenizer.incremental_decoder(after) if tokenizer else None
        self._pieces: list[str] = []
        self._held = ""

    @property
    def text(self) -> str:
        """All text that is final."""
        return "".join(self._pieces)

    def push(self, token: int, logprob: float, last: bool = False) -> str:
        """Take one drawn id and return the text that it makes final; after the ``last`` id, that is all the rest."""
        if token in self.ends:
            self.stopped = True
            return self.finish()
        self.tokens.append(token)
        self.logprobs.append(logprob)
        text = self._decoded(token)
        return text + self.finish() if last and not self.stopped else text

    def _decoded(self, token: int) -> str:
        """Return the text that ``token`` makes final."""
        if self._decoder is None or self.texts is None:
            return ""
        added = self._decoder.feed(token) if token not in self._hidden else ""
        self.texts.append(added)
        return self._add(added) if token not in self._hidden else ""

    def finish(self) -> str:
        """Return the text that was held back, since no more tokens follow."""
        text = self._add(self._decoder.flush()) if self._decoder else ""
        rest, self._held = self._held, ""
        self._pieces.append(rest)
        return text + rest

    def _add(self, text: str) -> str:
        if not self.stop or len(self.tokens) <= self._n_unstopped:  # the usual case, and this runs for every token
            self._pieces.append(text)
            return text
        self._held += text
        cut = self._find_stop()
        if cut is None:
            cut = len(self._held) - self._n_pending()
            certain, self._held = self._held[:cut], self._held[cut:]
        else:
            self.stopped = True
            certain, self._held = self._held[:cut], ""
        self._pieces.append(certain)
        return certain

    def _find_stop(self) -> int | None:
        """Return where in the held text the stop string that is complete first begins."""
        found = [(start + len(stop), start) for stop in self.stop if (start := self._held.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _n_pending(self) -> int:
        """Return the length of the longest suffix of the held text that begins a stop string."""
        longest = min(len(self._held), max(map(len, self.stop), default=1) - 1)
        return next(
            (n for n in range(longest, 0, -1) if any(stop.startswith(self._held[-n:]) for stop in self.stop)), 0
        )
